# shellcheck shell=bash
# Debian packages that tests and benches need. Sourced by tests/run and tests/bench.

# missing_packages FILE: packages of the list that dpkg does not know as installed.
missing_packages() {
  local package
  while read -r package; do
    [[ $package == "" || $package == \#* ]] && continue
    if [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
      printf '%s\n' "$package"
    fi
  done <"$1"
}

# Installs packages. Services that come with one (snmpd, nginx) are not started: the lab runs its
# own, inside its namespaces.
install_packages() {
  local policy=/usr/sbin/policy-rc.d added=no
  local options=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  printf 'installing with apt-get: %s\n' "$*" >&2
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    added=yes
  fi
  local status=0
  {
    apt-get -q "${options[@]}" update &&
      DEBIAN_FRONTEND=noninteractive apt-get -q -y "${options[@]}" install --no-install-recommends "$@"
  } >&2 </dev/null || status=$?
  if [[ $added == yes ]]; then rm -f "$policy"; fi
  return "$status"
}
