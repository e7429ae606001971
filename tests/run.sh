#!/usr/bin/env bash
# Everything that tests: fetches two etcd versions (no root needed), then runs all tests on both,
# and those that need no etcd of their own on the embedded registry as well.
# Needs Rust, a C linker, and a Debian machine with its package mirror in reach.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v cargo >/dev/null || { echo "tests/run.sh: cargo is not on the PATH" >&2; exit 1; }
bash tests/etcd.sh
etcd=$(cd "${CARGO_TARGET_DIR:-target}/etcd" && pwd)

# Not about etcd: once is enough.
once=(demo embedded embedded_load history_selftest support_selftest table)
# About etcd and the embedded registry, or too much for it: with each etcd is enough.
elsewhere=(chaos conformance resources)
# What the embedded registry can't do.
needs_etcd=(
    auth tls                                     # it has neither
    check_cost                                   # it has no metrics
    g13_the_password_comes_from_the_environment  # nor here
    a_gateway_that_is_switched_off_is_named      # it is nothing but the gateway
    g6_g7_g9_no_leader                           # it is one node
    g9_no_leader_at_the_only_endpoint_is_named
    g6_the_leader_dies_while_leases_run_out
    g7_an_etcd_that_is_away_for_seconds          # it keeps nothing on disk
    g8_keeps_its_incarnation_over_an_etcd_restart
    g1_g6_a_restored_etcd_whose_revision_went_back
    g1_g3_g6_a_wiped_etcd_that_looks_as_before
    g8_a_restored_etcd_displaces_nobody
    g8_a_full_etcd_costs_no_registration         # its quota can't be set
    g1_g8_two_hundred_clients_come_back_spread_and_whole # nothing on disk, and no metrics
)

echo "== unit tests, without TLS"
cargo test --lib
echo "== unit and documentation tests, all features"
cargo test --all-features --lib
cargo test --all-features --doc

# All files of tests but those named, as arguments for cargo.
files_but() {
    for file in tests/*.rs; do
        file=$(basename "$file" .rs)
        case " $* " in
            *" $file "*) ;;
            *) printf -- '--test\n%s\n' "$file" ;;
        esac
    done
}
integration() {
    local store=$1 name=$2
    shift 2
    echo "== integration tests on $name"
    HEADCOUNT_ETCD=$store cargo test --all-features "$@"
}
for version in old new; do
    but=()
    [ "$version" = new ] || but=("${once[@]}")
    mapfile -t files < <(files_but "${but[@]}")
    integration "$etcd/$version/etcd" "$("$etcd/$version/etcd" --version | head -n 1)" "${files[@]}"
done

mapfile -t files < <(files_but "${once[@]}" "${elsewhere[@]}" "${needs_etcd[@]}")
skipped=()
for name in "${needs_etcd[@]}"; do
    skipped+=(--skip "$name")
done
integration embedded "the embedded registry" "${files[@]}" -- "${skipped[@]}"
