#!/usr/bin/env bash
# What an update moves: Branchline's patches beside casync, rdiff, zstd --patch-from and bsdiff, in bytes.
#
#   tests/bench patch [--json] [OLD.deb NEW.deb]
#
# Without files: at least six pairs of Debian packages, both versions fetched with apt. Every tool's
# result is applied and compared byte for byte with the new package's normal form; a tool that did
# not run is an error. With --json the last line is JSON.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../packages.sh
. "$here/../packages.sh"

for argument in "$@"; do
  if [[ $argument == -h || $argument == --help ]]; then
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
  fi
done
die() {
  printf 'tests/bench patch: %s\n' "$*" >&2
  exit 1
}
mapfile -t packages < <(missing_packages "$here/patch-packages.txt")
if ((${#packages[@]} > 0)); then
  [[ $(id -u) == 0 ]] || die "these Debian packages are missing: ${packages[*]}"
  install_packages "${packages[@]}" || die "apt-get could not install: ${packages[*]}"
fi
if [[ -z ${BRANCHLINE_BINARY:-} ]]; then
  (cd "$here/../.." && cargo build --quiet --release -p branchline >&2) || die "the binary does not build"
  export BRANCHLINE_BINARY=${CARGO_TARGET_DIR:-$here/../../target}/release/branchline
fi
[[ -x $BRANCHLINE_BINARY ]] || die "there is no binary $BRANCHLINE_BINARY"
PYTHONDONTWRITEBYTECODE=1 exec python3 "$here/patch.py" "$@"
