#!/usr/bin/env bash
# Everything that tests: fetches two etcd versions (no root needed), then runs all tests on both.
# Needs Rust, a C linker, and a Debian machine with its package mirror in reach.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v cargo >/dev/null || { echo "tests/run.sh: cargo is not on the PATH" >&2; exit 1; }
bash tests/etcd.sh
etcd=$(cd "${CARGO_TARGET_DIR:-target}/etcd" && pwd)

echo "== unit tests, without features"
cargo test --lib
echo "== unit and documentation tests, all features"
cargo test --all-features --lib
cargo test --all-features --doc
for version in old new; do
    echo "== integration tests on $("$etcd/$version/etcd" --version | head -n 1)"
    HEADCOUNT_ETCD=$etcd/$version/etcd cargo test --all-features --test '*'
done
