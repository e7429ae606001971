#!/usr/bin/env bash
# What a crate owes those who build on it, beside its tests: its features alone and together, the
# lower bounds of its dependencies, and what these are. Installs what it needs below target/tools.
#
# What can't be reached from here is said in a line that begins with NOT CHECKED.
#
# Nothing compares the public surface with that of the last release, since there is none yet:
# cargo-semver-checks needs one. With the first, `cargo semver-checks` belongs here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

deny_version=0.20.2

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

step() { printf '\n-- %s\n' "$*"; }

features() {
    # From the manifest as cargo reads it: "default" is what the others are without.
    cargo metadata --no-deps --format-version 1 |
        grep -o '"features":{[^}]*}' | head -n 1 |
        grep -oE '"[a-z0-9_-]+":\[' | tr -d '":[' |
        grep -vxE 'features|default'
}

each_feature() {
    local all
    all=$(features)
    [ -n "$all" ] || { echo "no features were found" >&2; return 1; }
    for some in "" $all "${all//$'\n'/,}"; do
        echo "${some:-none}"
        # Not by RUSTFLAGS, for which everything would be built once more.
        cargo clippy --quiet --lib --no-default-features --features "$some" -- -D warnings
    done
}

# As a user gets it whose other dependencies ask for the oldest: without what only our tests need,
# and in a copy, so that Cargo.lock stays.
lower_bounds() {
    awk '/^\[/ { skip = /dev-dependencies/ || /^\[\[/ } !skip' Cargo.toml >"$scratch/Cargo.toml"
    cp -r src README.md "$scratch"
    # The resolver's option is not stable yet, and nothing else is asked of an unstable cargo.
    (cd "$scratch" && RUSTC_BOOTSTRAP=1 cargo -Z direct-minimal-versions generate-lockfile)
    CARGO_TARGET_DIR="$target/lower_bounds" cargo check --quiet --locked \
        --manifest-path "$scratch/Cargo.toml" --lib --all-features
}

deny() {
    local manifest=$1
    shift
    "$target/tools/bin/cargo-deny" --manifest-path "$manifest/Cargo.toml" \
        --config .ci/deny.toml check "$@"
}

dependencies() {
    if ! "$target/tools/bin/cargo-deny" --version 2>/dev/null | grep -qxF "cargo-deny $deny_version"; then
        # Not optimised: it runs for seconds, and would build for minutes.
        if ! CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$target/tools/build" \
            cargo install --debug --quiet --locked --version "$deny_version" \
            --root "$target/tools" cargo-deny 2>"$scratch/install"; then
            cat "$scratch/install" >&2
            grep -qE 'failed to (download|fetch|query)|Could not resolve|could not connect' \
                "$scratch/install" || return 1
            echo "NOT CHECKED: licences, duplicates, sources, advisories: cargo-deny is out of reach"
            return 0
        fi
        rm -rf "$target/tools/build"
    fi
    deny . licenses bans sources
    deny tests/fuzz licenses sources
    deny benches/peers licenses sources
    if timeout 120 "$target/tools/bin/cargo-deny" --config .ci/deny.toml fetch db 2>"$scratch/fetch"; then
        deny . advisories
        deny tests/fuzz advisories
        deny benches/peers advisories
    else
        grep . "$scratch/fetch" | tail -n 1
        echo "NOT CHECKED: advisories and yanked crates: their database is out of reach"
    fi
}

step "each feature alone, none, and all"
each_feature
step "the lower bounds of the dependencies"
lower_bounds
step "licences, duplicates, sources, advisories"
dependencies
