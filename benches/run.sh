#!/usr/bin/env bash
# Measures Headcount beside its peers; the results go to benches/results/.
#   benches/run.sh [--brief] [WORKLOAD...]
# --brief: everything for a moment, to see that it works; writes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ -n "${HEADCOUNT_ETCD:-}" ] || bash tests/etcd.sh
peers=${CARGO_TARGET_DIR:-$PWD/target}/peers
# etcd-client's build needs protoc: the machine's, or one out of a crate.
if [ -z "${PROTOC:-}" ] && ! command -v protoc >/dev/null; then
    PROTOC=$(CARGO_TARGET_DIR=$peers cargo run -q --release --locked \
        --manifest-path benches/peers/Cargo.toml -p protoc)
    export PROTOC
fi
CARGO_TARGET_DIR=$peers cargo build --release --locked --manifest-path benches/peers/Cargo.toml -p peers
HEADCOUNT_PEERS=$peers/release/peers cargo bench --locked --bench measure -- "$@"
