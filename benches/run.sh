#!/usr/bin/env bash
# Measures Headcount beside its peers; the results go to benches/results/.
#   benches/run.sh [--brief] [WORKLOAD...]
# Some workloads only: they are printed, and the results stay as they are. --brief: all for a
# moment, to see that they work, and not optimised, for that builds faster and no figure counts.
# Needs Rust and a Debian machine with its package mirror in reach, and should have that alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=(--release) built=release command=bench
for arg; do
    [ "$arg" != --brief ] || build=() built=debug command=test
done

[ -n "${HEADCOUNT_ETCD:-}" ] || bash tests/etcd.sh
peers=${CARGO_TARGET_DIR:-$PWD/target}/peers
manifest=(--locked --manifest-path benches/peers/Cargo.toml)
# etcd-client's build needs protoc: the machine's, or one out of a crate.
if [ -z "${PROTOC:-}" ] && ! command -v protoc >/dev/null; then
    PROTOC=$(CARGO_TARGET_DIR=$peers cargo run -q "${build[@]}" "${manifest[@]}" -p protoc)
    export PROTOC
fi
CARGO_TARGET_DIR=$peers cargo build "${build[@]}" "${manifest[@]}" -p peers
HEADCOUNT_PEERS=$peers/$built/peers cargo "$command" --locked --bench measure -- "$@"
