#!/bin/sh
# Makes every picture and every answer of the planner's guide, by the commands that the guide shows.
# BRANCHLINE_BINARY names the binary; without it the one of this repository is built.
set -eu
cd "$(dirname "$0")/.."
if [ -z "${BRANCHLINE_BINARY:-}" ]; then
  cargo build --quiet --release -p branchline
  BRANCHLINE_BINARY=${CARGO_TARGET_DIR:-../../../target}/release/branchline
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
branchline() { "$BRANCHLINE_BINARY" "$@"; }
# What the run took differs from run to run.
without_run() { sed '/^The run$/,/^  Simulated in/d'; }
nobody_off='sites.*.offline={ share = 0, return_mean_seconds = 1 }'

branchline simulate --preset large-retail --print-scenario >"$work/retail.toml"
cp "$work/retail.toml" retail.toml
branchline simulate retail.toml --set sites.0.wan_mbit=100 2>answers/error.txt && exit 1
branchline simulate retail.toml --plots pictures | without_run >answers/summary.txt
branchline simulate retail.toml --set "$nobody_off" | without_run >answers/nobody-off.txt
branchline simulate retail.toml --no-lifts --sweep seed=1,2,3,4,5 >answers/seeds.txt
branchline simulate retail.toml --set "$nobody_off" --plots pictures \
  --sweep headquarters.uplink_bits_per_second=2.5e9,5e9,10e9,20e9 --sweep payload.patch_share=0.1,1 >answers/sweep.txt
branchline simulate retail.toml --print-scenario --set payload.patch_share=0.1 >patch.toml
branchline simulate --compare retail.toml patch.toml >answers/compare.txt
rm retail.toml patch.toml
