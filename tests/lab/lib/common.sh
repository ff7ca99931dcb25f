# shellcheck shell=bash
# shellcheck disable=SC2034  # used by those who source this
# What every part of the lab shares: names, paths, the machines and how a process runs in one.
# Sourced by the scripts in the directory above.

LAB_ID=${BRANCHLINE_LAB_ID:-bl}
LAB_RUN=${BRANCHLINE_LAB_RUN:-/run/branchline-lab-$LAB_ID}
LAB_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/branchline
LAB_SHARED=$LAB_RUN/shared
LAB_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Addresses: TEST-NET-3 is the line to headquarters, TEST-NET-2 the batch of public addresses that
# is routed to the site, 10.1/16 the inside.
HEADQUARTERS_ADDRESS=203.0.113.1
ROUTER_WAN_ADDRESS=203.0.113.2
ROUTER_LAN_ADDRESS=10.1.0.1
STATION_ADDRESS=10.1.0.2
LAB_BATCH_ROUTE=198.51.100.0/24
WAN_IFINDEX=2

say() { printf 'lab %s: %s\n' "$LAB_ID" "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# poll SECONDS COMMAND...: runs COMMAND every 20 ms until it succeeds or the time is over.
poll() {
  local until=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000))
  shift
  until "$@"; do
    ((${EPOCHREALTIME/[.,]/} < until)) || return 1
    sleep 0.02
  done
}

lab_is_up() { [[ -f $LAB_RUN/lab.env ]]; }

# Reads what `lab up` was told: HOSTS, WAN, LAN, ROOTS, BATCH, TABLE_ROWS.
load_lab() {
  lab_is_up || die "is not up (no $LAB_RUN/lab.env); start it with: lab up"
  # shellcheck source=/dev/null
  . "$LAB_RUN/lab.env"
}

host_names() {
  local i
  for ((i = 1; i <= HOSTS; i++)); do echo "host$i"; done
}

machine_names() {
  printf '%s\n' headquarters router station
  host_names
}

namespace() { echo "$LAB_ID-$1"; }

host_address() { echo "10.1.$((1 + ($1 - 1) / 250)).$((1 + ($1 - 1) % 250))"; }

# The address of a machine on its own network.
address_of() {
  case $1 in
    headquarters) echo $HEADQUARTERS_ADDRESS ;;
    router) echo $ROUTER_LAN_ADDRESS ;;
    station) echo $STATION_ADDRESS ;;
    host[1-9]*)
      if [[ ! ${1#host} =~ ^[0-9]+$ ]] || ((${1#host} > HOSTS)); then
        die "there is no $1, only $HOSTS hosts"
      fi
      host_address "${1#host}"
      ;;
    *) die "there is no machine named $1" ;;
  esac
}

# Runs a command of this machine in another's network namespace, and nothing else of it.
in_network() {
  local name=$1
  shift
  nsenter --net="/run/netns/$(namespace "$name")" -- "$@"
}
