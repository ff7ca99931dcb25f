#!/usr/bin/env bash
# Builds and runs the bench of the bulk plane: tests/bench bulk [--bytes GIB] [--runs N] [--only TRANSPORT] [--json]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo build --quiet --release -p branchline-tests --bin bench-bulk >&2
# As node/systemd/branchline.service has nodes scheduled.
exec chrt --batch 0 "${CARGO_TARGET_DIR:-target}/release/bench-bulk" "$@"
