#!/usr/bin/env bash
# Makes the Debian that machines of the lab stand on, once, and prints where it is.
#
# usage: base.sh [PACKAGE...]   PACKAGE: more than every machine has, such as systemd
#
# The cache is named by the release and by what goes into it; an interrupted build leaves none.
# The mirror is the first one that this computer's apt uses, through apt's proxy if there is one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"

# What a small server has anyway, and what the survey and the packages that tests install lean on.
packages=adduser,ca-certificates,init-system-helpers,iproute2,libxml2-utils,procps
for package in "$@"; do packages+=,$package; done

release() {
  # shellcheck source=/dev/null
  (. /etc/os-release && echo "${VERSION_CODENAME:?}")
}

mirror() {
  local found
  # shellcheck disable=SC2016  # apt expands it
  found=$(apt-get indextargets --format '$(URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
    awk -v release="$(release)" '$2 == release { print $1; exit }' | sed 's#/dists/.*##')
  echo "${found:-http://deb.debian.org/debian}"
}

# Steps that make a Debian a machine of the lab and not a copy of this computer.
finish() {
  local root=$1
  # A package must not start its daemon while dpkg configures it: the installer under test does.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc/*
  : >"$root/etc/machine-id"
}

build() {
  local target=$1 proxy started=$SECONDS
  proxy=$(apt-config shell proxy Acquire::http::Proxy | sed -n "s/^proxy='\(.*\)'$/\1/p")
  say "building the Debian of the lab's machines with debootstrap (about a minute, once): $target"
  rm -rf "$target.new"
  mkdir -p "$target.new"
  if ! env ${proxy:+http_proxy="$proxy"} debootstrap --variant=minbase --include="$packages" \
    "$(release)" "$target.new" "$(mirror)" >"$target.log" 2>&1; then
    rm -rf "$target.new"
    die "debootstrap failed, see $target.log: $(tail -n 3 "$target.log")"
  fi
  finish "$target.new"
  mv "$target.new" "$target"
  say "built in $((SECONDS - started)) s"
}

key=$(printf '%s' "2 $packages" | sha256sum | cut -c 1-8)
target=$LAB_CACHE/base-$(release)-$key
mkdir -p "$LAB_CACHE"
if [[ ! -d $target ]]; then
  (
    flock 9
    [[ -d $target ]] || build "$target"
  ) 9>"$LAB_CACHE/lock"
fi
echo "$target"
