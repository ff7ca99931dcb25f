# shellcheck shell=bash
# Every SET sequence and error of the test router: what the wire says is what a driver must handle.

MAP=1.3.6.1.2.1.123.1.4.1

hex() {
  local octets
  IFS=. read -r -a octets <<<"$1"
  printf '%02x' "${octets[@]}"
}

# row INDEX LOCAL GLOBAL [IFINDEX]: bindings of all columns but the status, in ROW.
row() {
  local at="${4:-2}.$1" local_address global_address
  local_address=$(hex "$2") global_address=$(hex "$3")
  ROW=("$MAP.2.$at" s site1 "$MAP.3.$at" i 1 "$MAP.4.$at" x 30 "$MAP.5.$at" i 1
    "$MAP.6.$at" x "$local_address" "$MAP.7.$at" x "$local_address" "$MAP.10.$at" i 1
    "$MAP.11.$at" x "$global_address" "$MAP.12.$at" x "$global_address" "$MAP.15.$at" x f0)
}

# snmp USER get|set|... ARGUMENTS: one request from the station's network.
snmp() {
  local user=$1 verb=$2
  shift 2
  snmp_options "$user"
  MIBS="" in_network station "snmp$verb" "${SNMP_OPTIONS[@]}" "${SNMP_EXTRA[@]}" -Oqv "$ROUTER_LAN_ADDRESS" "$@" 2>&1
}
SNMP_EXTRA=()

set_row() {
  row "$1" "$2" "$3"
  snmp station set "${ROW[@]}" "$MAP.21.2.$1" i 4
}

# The error of a SET in one word, or ok; with the position that the agent blames, if it blames one.
set_result() {
  local answer
  if answer=$(snmp "$@"); then
    echo ok
  else
    sed -nE 's/^Reason: \(?([A-Za-z]+).*/\1/p; s/.*(Timeout|Authentication failure|Unknown user).*/\1/p' \
      <<<"$answer" | head -n 1
  fi
}

expect_set() {
  local name=$1 wanted=$2
  shift 2
  expect "SET: $name" "$wanted" "$(set_result station set "$@")"
}

expect_status() { expect "  its status" "$2" "$(snmp station get "$MAP.21.2.$1")"; }

# 1 active, 2 notInService, 3 notReady; 4 createAndGo, 5 createAndWait, 6 destroy.
test_snmp() {
  lab up --hosts 1
  row 1 10.1.1.1 198.51.100.65
  expect_set "createAndGo, its status first" ok "$MAP.21.2.1" i 4 "${ROW[@]}"
  expect_status 1 1
  expect_set "createAndGo of a row that exists" inconsistentValue "${ROW[@]}" "$MAP.21.2.1" i 4
  expect_set "a column while the row is active" inconsistentValue "$MAP.6.2.1" x "$(hex 10.1.0.11)"
  row 2 10.1.1.2 198.51.100.65
  expect_set "a second row for one global address" inconsistentValue "${ROW[@]}" "$MAP.21.2.2" i 4
  expect_status 2 "No Such Instance currently exists at this OID"
  row 2 10.1.1.1 198.51.100.66
  expect_set "a second row for one local address" inconsistentValue "${ROW[@]}" "$MAP.21.2.2" i 4
  row 2 10.1.1.2 192.0.2.9
  expect_set "an address outside the batch" inconsistentValue "${ROW[@]}" "$MAP.21.2.2" i 4
  expect_set "createAndGo with columns missing" inconsistentValue "$MAP.2.2.2" s a "$MAP.21.2.2" i 4
  expect_set "createAndWait alone" ok "$MAP.21.2.3" i 5
  expect_status 3 3
  expect_set "active while notReady" inconsistentValue "$MAP.21.2.3" i 1
  row 3 10.1.0.2 198.51.100.66
  expect_set "its columns" ok "${ROW[@]}"
  expect_status 3 2
  expect_set "active" ok "$MAP.21.2.3" i 1
  expect_set "notInService" ok "$MAP.21.2.3" i 2
  expect_set "another global address meanwhile" ok "$MAP.11.2.3" x "$(hex 198.51.100.67)" \
    "$MAP.12.2.3" x "$(hex 198.51.100.67)"
  expect_set "active again" ok "$MAP.21.2.3" i 1
  expect "  the binding tells the new address" '"C6 33 64 43 "' \
    "$(snmp station get 1.3.6.1.2.1.123.1.6.1.4.2.1.4.10.1.0.2)"
  expect_set "notReady written by a manager" wrongValue "$MAP.21.2.3" i 3
  expect_set "a wrong type" wrongType "$MAP.3.2.4" s x
  expect_set "an address of three octets" wrongLength "$MAP.21.2.4" i 5 "$MAP.6.2.4" x 0a0001
  expect_set "entry type dynamic" wrongValue "$MAP.21.2.4" i 5 "$MAP.3.2.4" i 2
  expect_set "a read-only column" notWritable "$MAP.19.2.1" u 4
  expect_set "a read-only table" notWritable 1.3.6.1.2.1.123.1.6.1.4.2.1.4.10.1.1.1 x c6336442
  expect_set "a column of an absent row" inconsistentName "$MAP.6.2.9" x "$(hex 10.1.0.9)"
  row 1 10.1.1.1 198.51.100.68 99
  expect_set "an interface that is not a NAT interface" inconsistentName "${ROW[@]}" "$MAP.21.99.1" i 4
  expect_set "destroying an absent row" ok "$MAP.21.2.9" i 6
  expect_set "outside the write view" noAccess 1.3.6.1.6.3.1.1.6.1.0 i 1
  row 5 10.1.1.5 198.51.100.70
  expect_set "a port other than 0" inconsistentValue "${ROW[@]}" "$MAP.8.2.5" u 80 "$MAP.9.2.5" u 80 \
    "$MAP.13.2.5" u 80 "$MAP.14.2.5" u 80 "$MAP.21.2.5" i 4
  test_batches
  test_users
  lab down
}

test_batches() {
  row 6 10.1.0.40 198.51.100.72
  local first=("${ROW[@]}" "$MAP.21.2.6" i 4)
  row 7 10.1.0.41 192.0.2.1
  expect_set "two rows in one PDU, the second wrong" inconsistentValue "${first[@]}" "${ROW[@]}" \
    "$MAP.21.2.7" i 4
  expect_status 6 "No Such Instance currently exists at this OID"
  row 7 10.1.0.41 198.51.100.73
  expect_set "two rows in one PDU" ok "${first[@]}" "${ROW[@]}" "$MAP.21.2.7" i 4
  expect_set "both destroyed in one PDU" ok "$MAP.21.2.6" i 6 "$MAP.21.2.7" i 6
  expect "  what is left" "1 3" "$(lab nat-table | json snmp 0 index) $(lab nat-table | json snmp 1 index)"
}

test_users() {
  expect "a user that may only read writes" noAccess "$(set_result reader set "$MAP.21.2.1" i 6)"
  expect "  and reads" 1 "$(snmp reader get "$MAP.21.2.1")"
  SNMP_EXTRA=(-l authNoPriv)
  expect_set "without privacy" authorizationError "$MAP.21.2.1" i 6
  SNMP_EXTRA=(-A wrong-passphrase)
  expect_set "a wrong authentication passphrase" "Authentication failure" "$MAP.21.2.1" i 6
  SNMP_EXTRA=(-X wrong-passphrase)
  expect_set "a wrong privacy passphrase" Timeout "$MAP.21.2.1" i 6
  SNMP_EXTRA=(-v2c -c public)
  expect_set "version 2c" Timeout "$MAP.21.2.1" i 6
  SNMP_EXTRA=()
}

test_faults() {
  lab up --hosts 3 --table-rows 8
  expect "fault: none" ok "$(row_result 1 10.1.1.1 198.51.100.65)"
  lab fault table-full
  expect "fault: table-full" resourceUnavailable "$(row_result 2 10.1.1.2 198.51.100.66)"
  lab fault table-full off
  lab fault read-only
  expect "fault: read-only" notWritable "$(row_result 2 10.1.1.2 198.51.100.66)"
  lab fault read-only off
  lab fault commit-failed
  expect "fault: commit-failed" commitFailed "$(row_result 2 10.1.1.2 198.51.100.66)"
  expect "  nothing changed" 1 "$(lab nat-table | json forwarding inbound | grep -o global | wc -l)"
  expect "  only once" ok "$(row_result 2 10.1.1.2 198.51.100.66)"

  lab fault drop-requests
  expect "fault: drop-requests" Timeout "$(row_result 3 10.1.1.3 198.51.100.67)"
  lab fault drop-requests off
  expect "  nothing was done" 2 "$(lab nat-table | json snmp | grep -o '"index"' | wc -l)"
  # Short answers pass, so that the tool, which asks for the engine first, gets as far as the SET.
  lab fault drop-replies 250
  expect "fault: drop-replies" Timeout "$(row_result 3 10.1.1.3 198.51.100.67)"
  lab fault drop-replies off
  expect "  and yet it was done" 3 "$(lab nat-table | json snmp | grep -o '"index"' | wc -l)"

  lab fault snmpd-stopped
  expect "fault: snmpd-stopped" Timeout "$(row_result 4 10.1.1.4 198.51.100.68)"
  lab fault snmpd-stopped off
  lab fault hang
  SNMP_EXTRA=(-t 6)
  expect "fault: hang" genError "$(row_result 5 10.1.1.5 198.51.100.69)"
  SNMP_EXTRA=()
  lab fault hang off
  poll 10 router_answers || true
  lab fault sub-agent-dead
  expect "fault: sub-agent-dead" notWritable "$(row_result 5 10.1.1.5 198.51.100.69)"
  lab fault sub-agent-dead off
  expect "  its rows come back" 1 "$(snmp station get "$MAP.21.2.3")"
  lab fault restart-router
  expect "rows survive the router's restart" active "$(lab nat-table | json snmp 0 status)"

  lab fault wan-cut
  expect "fault: wan-cut" no "$(outcome lab exec host1 ping -c 1 -W 1 "$HEADQUARTERS_ADDRESS")"
  lab fault partition host1,host2
  expect "fault: partition, one side" no "$(outcome lab exec host1 ping -c 1 -W 1 10.1.1.3)"
  expect "fault: partition, within" yes "$(outcome lab exec host1 ping -c 1 -W 1 10.1.1.2)"
  lab fault lan-loss 1000
  expect "fault: lan-loss" no "$(outcome lab exec host1 ping -c 1 -W 1 10.1.1.2)"
  lab fault clear
  # The first may still meet a neighbour entry that failed while nothing passed.
  expect "clear mends the line" yes \
    "$(outcome poll 5 "$LAB_SOURCE/lab" exec host1 ping -c 1 -W 1 "$HEADQUARTERS_ADDRESS")"
  expect "clear mends the network" yes \
    "$(outcome poll 5 "$LAB_SOURCE/lab" exec host1 ping -c 1 -W 1 10.1.1.3)"
  lab down
}

row_result() {
  row "$1" "$2" "$3"
  set_result station set "${ROW[@]}" "$MAP.21.2.$1" i 4
}
