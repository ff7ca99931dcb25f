#!/usr/bin/env bash
# Fetches Debian packages into the lab's cache, without installing them, and prints their paths:
# first what apt would install, then older versions where the archive has any.
#
# usage: payload.sh [PACKAGE...]     default: prometheus-node-exporter
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"

versions() { apt-cache madison "$1" 2>/dev/null | awk -F ' *\\| *' '$3 ~ /Packages$/ { print $2 }' | uniq | head -n 2; }

fetch() {
  local package=$1 version
  if [[ -z $(versions "$package") ]]; then
    say "asking the archive for its lists (apt-get update)"
    apt-get -q -o Acquire::Retries=3 update >&2 </dev/null
  fi
  [[ -n $(versions "$package") ]] || die "Debian's archive has no package $package"
  for version in $(versions "$package"); do
    # apt writes a colon in a version as %3a.
    local file
    file=$(find . -name "${package}_${version//:/%3a}_*.deb" -print -quit)
    if [[ -z $file ]]; then
      # As root apt would hand the download to a user that may not write here.
      apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$package=$version" >&2 </dev/null ||
        say "the archive does not give $package $version"
      file=$(find . -name "${package}_${version//:/%3a}_*.deb" -print -quit)
    fi
    # Lists name older versions for longer than a mirror has them; the first is the one that everything needs.
    if [[ -z $file ]]; then
      [[ $version != "$(versions "$package" | head -n 1)" ]] || die "$package $version cannot be fetched"
      continue
    fi
    echo "$PWD/${file#./}"
  done
}

mkdir -p "$LAB_CACHE/packages"
cd "$LAB_CACHE/packages"
for package in "${@:-prometheus-node-exporter}"; do fetch "$package"; done
