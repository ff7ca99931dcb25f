# shellcheck shell=bash
# Rates of the line and the ports, and who reaches whom.

# Goodput in percent of a rate in Mbit/s: goodput MACHINE ADDRESS RATE [iperf3 options]
goodput() {
  local machine=$1 address=$2 rate=$3
  shift 3
  lab exec "$machine" iperf3 --client "$address" --time 2 --omit 1 --json "$@" 2>/dev/null |
    json end sum_received bits_per_second |
    awk -v rate="$rate" '{ printf "%.1f\n", $1 / rate / 10000 }'
}

# A TCP stream loses 4.4 percent of a rate to headers: 95.6 is the best there is.
is_goodput() { awk -v p="$1" 'BEGIN { exit !(p >= 90 && p <= 96.5) }'; }

# As goodput, measured up to six times: other work on the machine lowers it, or lets what a stalled reader left lying
# count for too short a time. Wrong shaping is wrong every time.
settled_goodput() {
  for _ in 1 2 3 4 5 6; do
    percent=$(goodput "$@")
    if is_goodput "$percent"; then break; fi
  done
  echo "$percent"
}

expect_goodput() { expect "$1: $2 % of the rate" yes "$(is_goodput "$2" && echo yes || echo no)"; }

test_shaping() {
  local before after percent
  lab up --hosts 2 --wan 20mbit --lan 100mbit
  lab spawn headquarters iperf iperf3 --server
  lab spawn host2 iperf iperf3 --server
  poll 30 lab exec host1 bash -c 'exec 3<>/dev/tcp/10.1.1.2/5201' 2>/dev/null
  poll 30 lab exec host1 bash -c 'exec 3<>/dev/tcp/203.0.113.1/5201' 2>/dev/null
  expect_goodput "host to host" "$(settled_goodput host1 10.1.1.2 100)"
  expect_goodput "host to host, backwards" "$(settled_goodput host1 10.1.1.2 100 --reverse)"
  expect_goodput "host to headquarters" "$(settled_goodput host1 "$HEADQUARTERS_ADDRESS" 20)"
  for _ in 1 2 3 4 5 6; do
    before=$(lab counters | json wan received_bytes)
    percent=$(goodput host1 "$HEADQUARTERS_ADDRESS" 20 --reverse)
    after=$(lab counters | json wan received_bytes)
    if is_goodput "$percent"; then break; fi
  done
  expect_goodput "headquarters to host" "$percent"
  # Three seconds of 20 Mbit/s, with its start and its end.
  expect "the line's counter saw $((after - before)) bytes of it" yes \
    "$( ((after - before > 6400000 && after - before < 9000000)) && echo yes || echo no)"
  lab down
}

# Opens a connection that stays open: open_flow MACHINE ADDRESS. Then flow_state says alive or dead.
open_flow() {
  coproc FLOW { exec "$LAB_SOURCE/lab" exec "$1" python3 "$LAB_SOURCE/self-test/flow.py" "$2" 7000 2>&1; }
  IFS= read -r -t 15 -u "${FLOW[0]}" greeting || greeting="no answer"
}

flow_state() {
  local state
  echo >&"${FLOW[1]}"
  IFS= read -r -t 15 -u "${FLOW[0]}" state || state="no answer"
  echo "$state"
}

close_flow() {
  local process=$FLOW_PID
  eval "exec ${FLOW[1]}>&-"
  wait "$process" || true
}

# What a new connection is greeted with, or "no connection".
greets() {
  lab exec "$1" python3 "$LAB_SOURCE/self-test/flow.py" "$2" 7000 </dev/null 2>/dev/null ||
    echo "no connection"
}

map_host() { set_row "$1" "$2" "$3" >/dev/null; }
unmap_host() { snmp station set "$MAP.21.2.$1" i 6 >/dev/null; }

test_routes() {
  local machine
  lab up --hosts 3
  for machine in headquarters host1 host2 host3; do
    lab spawn $machine echo python3 "$LAB_SOURCE/self-test/echo.py" 7000
    poll 30 lab exec $machine bash -c 'exec 3<>/dev/tcp/127.0.0.1/7000' 2>/dev/null
  done

  expect "an inside host reaches headquarters behind the router's address" \
    "203.0.113.1 sees $ROUTER_WAN_ADDRESS" "$(greets host1 "$HEADQUARTERS_ADDRESS")"
  expect "inside hosts reach each other directly" "10.1.1.2 sees 10.1.1.1" "$(greets host1 10.1.1.2)"
  expect "headquarters has no way to an inside address" "no connection" "$(greets headquarters 10.1.1.1)"
  in_network headquarters ip route add 10.1.0.0/16 via "$ROUTER_WAN_ADDRESS"
  expect "the router refuses it even if somebody routes it there" "no connection" \
    "$(greets headquarters 10.1.1.1)"
  in_network headquarters ip route del 10.1.0.0/16
  expect "an address without a row is dead" "no connection" "$(greets headquarters 198.51.100.65)"

  open_flow host1 "$HEADQUARTERS_ADDRESS"
  expect "before its row: greeted" "203.0.113.1 sees $ROUTER_WAN_ADDRESS" "$greeting"
  map_host 1 10.1.1.1 198.51.100.65
  expect "what a host opened before its row appeared stays alive" alive "$(flow_state)"
  expect "the filter passes the declared ports only" "no connection" "$(greets headquarters 198.51.100.65)"
  lab pass 9100,7000
  expect "headquarters reaches a mapped host" "10.1.1.1 sees 203.0.113.1" \
    "$(greets headquarters 198.51.100.65)"
  expect "a mapped host goes out under its own address" "203.0.113.1 sees 198.51.100.65" \
    "$(greets host1 "$HEADQUARTERS_ADDRESS")"
  expect "its neighbour still goes out behind the router's" \
    "203.0.113.1 sees $ROUTER_WAN_ADDRESS" "$(greets host2 "$HEADQUARTERS_ADDRESS")"
  map_host 2 10.1.1.2 198.51.100.66
  expect "the table holds what was mapped, forwarded and told alike" \
    '[{"global": "198.51.100.65", "local": "10.1.1.1"}, {"global": "198.51.100.66", "local": "10.1.1.2"}] active active' \
    "$(lab nat-table | json forwarding inbound) $(lab nat-table | json snmp 0 status) $(lab nat-table | json snmp 1 status)"
  unmap_host 1
  expect "and stays alive when the row goes" alive "$(flow_state)"
  close_flow

  open_flow headquarters 198.51.100.66
  expect "a flow through a row carries" alive "$(flow_state)"
  unmap_host 2
  expect "destroying the row ends the flow" dead "$(flow_state)"
  close_flow
  expect "no new one opens" "no connection" "$(greets headquarters 198.51.100.66)"
  lab down
}
