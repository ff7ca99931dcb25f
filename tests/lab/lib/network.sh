# shellcheck shell=bash
# The site's network: a switch with one shaped port per machine, the router, the thin line.

# Rate in bit/s of what tc calls 20mbit, 1gbit, 512kbit.
bits_per_second() {
  case $1 in
    *gbit) echo $((${1%gbit} * 1000000000)) ;;
    *mbit) echo $((${1%mbit} * 1000000)) ;;
    *kbit) echo $((${1%kbit} * 1000)) ;;
    *) die "a rate is written like 20mbit, not $1" ;;
  esac
}

make_namespace() {
  local name=$1 space
  space=$(namespace "$name")
  ip netns add "$space"
  # CUBIC, Linux's own default, if the kernel lets a namespace choose it: else what this computer
  # uses (`lab facts` tells), the same for all. IPv6 would only add chatter to the counters.
  # shellcheck disable=SC2016  # for the shell that is started
  nsenter --net="/run/netns/$space" -- sh -c '
    cd /proc/sys/net
    case " $(cat ipv4/tcp_allowed_congestion_control) " in
      *" cubic "*) echo cubic >ipv4/tcp_congestion_control ;;
    esac
    echo 1 >ipv6/conf/all/disable_ipv6
    echo 1 >ipv6/conf/default/disable_ipv6'
  ip -n "$space" link set lo up
}

# HTB towards the switch and away from it, the same rate both ways.
shape_port() {
  local space=$1 device=$2 rate=$3
  tc -n "$space" -batch - <<TC
qdisc add dev $device root handle 1: htb default 1 r2q 1000
class add dev $device parent 1: classid 1:1 htb rate $rate burst 64kb cburst 64kb
TC
}

connect_to_switch() {
  local name=$1 address=$2 space switch
  space=$(namespace "$name")
  switch=$(namespace switch)
  ip link add eth0 netns "$space" type veth peer name "port-$name" netns "$switch"
  ip -n "$space" -batch - <<IP
addr add $address/16 dev eth0
link set eth0 up
route add default via $ROUTER_LAN_ADDRESS
IP
  ip -n "$switch" link set "port-$name" master br0 up
  shape_port "$space" eth0 "$LAN"
  shape_port "$switch" "port-$name" "$LAN"
}

connect_router() {
  local router headquarters switch
  router=$(namespace router)
  headquarters=$(namespace headquarters)
  switch=$(namespace switch)
  # The interface index is what natAddrMapTable is indexed by, so it is fixed.
  ip link add wan0 netns "$router" index "$WAN_IFINDEX" type veth peer name eth0 netns "$headquarters"
  ip link add lan0 netns "$router" type veth peer name port-router netns "$switch"
  ip -n "$switch" link set port-router master br0 up
  ip -n "$router" -batch - <<IP
addr add $ROUTER_WAN_ADDRESS/24 dev wan0
link set wan0 up
addr add $ROUTER_LAN_ADDRESS/16 dev lan0
link set lan0 up
route add default via $HEADQUARTERS_ADDRESS
route add blackhole $LAB_BATCH_ROUTE
IP
  # Headquarters knows a way to the public batch only. The router drops what no row translates
  # (the blackhole above), or the line's two ends would send it back and forth.
  ip -n "$headquarters" -batch - <<IP
addr add $HEADQUARTERS_ADDRESS/24 dev eth0
link set eth0 up
route add $LAB_BATCH_ROUTE via $ROUTER_WAN_ADDRESS
IP
  in_network router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
  shape_line
}

shape_line() {
  local burst
  # A bucket holds 10 ms of the line, and at least what one segmentation offload hands over.
  burst=$(($(bits_per_second "$WAN") / 800))
  ((burst >= 16384)) || burst=16384
  tc -n "$(namespace router)" qdisc replace dev wan0 root tbf rate "$WAN" burst "$burst" latency 50ms
  tc -n "$(namespace headquarters)" qdisc replace dev eth0 root tbf rate "$WAN" burst "$burst" latency 50ms
}

make_network() {
  local name switch
  for name in switch $(machine_names); do make_namespace "$name"; done
  switch=$(namespace switch)
  ip -n "$switch" link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0
  ip -n "$switch" link set br0 up
  connect_router
  for name in station $(host_names); do connect_to_switch "$name" "$(address_of "$name")"; done
}

# Namespaces of this lab, whatever was recorded about it.
lab_namespaces() { ip netns list | awk -v prefix="$LAB_ID-" 'index($1, prefix) == 1 { print $1 }'; }
