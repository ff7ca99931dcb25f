# shellcheck shell=bash
# The branch's router: net-snmp's snmpd with SNMPv3 (authPriv, SHA-256, AES), a sub-agent that is
# its natAddrMapTable, and nftables. And everything that can go wrong with it.

ROUTER_AUTH=(SHA-256 auth-passphrase-1)
ROUTER_PRIVACY=(AES priv-passphrase-1)
READER_AUTH="auth-passphrase-2"
READER_PRIVACY="priv-passphrase-2"

router_directory() { echo "$LAB_RUN/router"; }

write_router_configuration() {
  local directory
  directory=$(router_directory)
  mkdir -p "$directory/persist" "$directory/faults"
  chmod 700 "$directory"
  echo "$PASS" >"$directory/pass"
  cat >"$directory/nat.json" <<JSON
{
  "interface": $WAN_IFINDEX,
  "batch": [$(printf '"%s"' "${BATCH//,/\", \"}")],
  "most_rows": $TABLE_ROWS,
  "rows": "$directory/rows.json",
  "faults": "$directory/faults",
  "socket": "$directory/agentx.sock"
}
JSON
  cat >"$directory/snmpd.conf" <<CONF
agentaddress udp:$ROUTER_LAN_ADDRESS:161
exactEngineID 0x80001f88046272616e63686c696e65
createUser station ${ROUTER_AUTH[0]} "${ROUTER_AUTH[1]}" ${ROUTER_PRIVACY[0]} "${ROUTER_PRIVACY[1]}"
createUser reader ${ROUTER_AUTH[0]} "$READER_AUTH" ${ROUTER_PRIVACY[0]} "$READER_PRIVACY"
view all included .1
view nat included .1.3.6.1.2.1.123
view nat included .1.3.6.1.2.1.1
view nat included .1.3.6.1.2.1.2
view none excluded .1
group writers usm station
group readers usm reader
access writers "" usm priv exact all nat none
access readers "" usm priv exact all none none
sysDescr Branchline test router
sysServices 76
master agentx
agentXSocket $directory/agentx.sock
agentXTimeout 2
agentXRetries 0
CONF
}

start_snmpd() {
  local directory
  directory=$(router_directory)
  machine_spawn router snmpd env MIBS= SNMP_PERSISTENT_DIR="$directory/persist" \
    snmpd -f -C -c "$directory/snmpd.conf" -Lo
}

start_sub_agent() {
  machine_spawn router sub-agent env PYTHONDONTWRITEBYTECODE=1 \
    python3 "$LAB_SOURCE/router/sub_agent.py" "$(router_directory)/nat.json"
}

# What the operator's filter lets through to mapped addresses: TCP ports (9100,9200) or all.
pass_to_mapped() {
  local rule="accept"
  if [[ $1 != all ]]; then
    [[ $1 =~ ^[0-9]+(,[0-9]+)*$ ]] || die "pass all, or TCP ports like 9100,9200; not $1"
    rule="tcp dport { ${1//,/, } } accept"
  fi
  in_network router nft -f - <<NFT
flush chain ip branchline mapped
add rule ip branchline mapped $rule
NFT
  echo "$1" >"$(router_directory)/pass"
}

start_router() {
  in_network router nft -f "$LAB_SOURCE/router/nat.nft"
  pass_to_mapped "$(cat "$(router_directory)/pass")"
  start_snmpd
  start_sub_agent
  poll 15 router_answers ||
    die "the router does not answer: $(tail -n 5 "$(process_file router snmpd).log" "$(process_file router sub-agent).log")"
}

# The options of net-snmp's tools that speak as the user whose name is given.
snmp_options() {
  local auth=${ROUTER_AUTH[1]} privacy=${ROUTER_PRIVACY[1]}
  if [[ $1 == reader ]]; then auth=$READER_AUTH privacy=$READER_PRIVACY; fi
  SNMP_OPTIONS=(-v3 -u "$1" -l authPriv -a "${ROUTER_AUTH[0]}" -A "$auth"
    -x "${ROUTER_PRIVACY[0]}" -X "$privacy" -t 5 -r 0 -On)
}

# natAddrBindNumberOfEntries.0 is the sub-agent's, so an answer proves that both are there.
router_answers() {
  snmp_options station
  MIBS="" in_network station snmpget "${SNMP_OPTIONS[@]}" -Oqv "$ROUTER_LAN_ADDRESS" \
    1.3.6.1.2.1.123.1.5.0 2>/dev/null | grep -qE '^[0-9]+$'
}

# Prints the table as the forwarding plane has it and as SNMP tells it.
nat_table() {
  snmp_options station
  python3 "$LAB_SOURCE/lab_json.py" nat-table \
    <(in_network router nft -j list table ip branchline) \
    <(MIBS="" in_network station snmpbulkwalk "${SNMP_OPTIONS[@]}" -Cr25 "$ROUTER_LAN_ADDRESS" \
      1.3.6.1.2.1.123.1.4.1 2>&1)
}

# ---- faults --------------------------------------------------------------------------------------

# A table of its own for each fault: fault_filter MACHINE FAMILY NAME HOOK RULE, or without RULE to
# take it away.
fault_filter() {
  local machine=$1 family=$2 name=$3 hook=${4:-} rule=${5:-}
  in_network "$machine" nft -f - <<NFT
add table $family fault_$name
delete table $family fault_$name
NFT
  [[ -n $rule ]] || return 0
  in_network "$machine" nft -f - <<NFT
table $family fault_$name {
  chain faults {
    type filter hook $hook priority -300; policy accept;
    $rule
  }
}
NFT
}

# fault_switch NAME on|off: a file that the sub-agent looks for.
fault_switch() {
  local file
  file=$(router_directory)/faults/$1
  case $2 in
    off) rm -f "$file" ;;
    on) : >"$file" ;;
    *) echo "$2" >"$file" ;;
  esac
}

fault_wan_cut() {
  local rule=""
  [[ $1 == off ]] || rule="counter drop"
  fault_filter router netdev wan_cut_in 'ingress device "wan0"' "$rule"
  fault_filter router inet wan_cut_out postrouting "${rule:+oifname \"wan0\" $rule}"
}

# Splits the switch's ports in two sets that cannot reach each other, in one step.
fault_partition() {
  local ports=""
  if [[ $1 != off ]]; then
    ports="{ \"port-${1//,/\", \"port-}\" }"
    fault_filter switch bridge partition forward "iifname $ports oifname != $ports counter drop
    iifname != $ports oifname $ports counter drop"
  else
    fault_filter switch bridge partition
  fi
}

# The rule that loses VALUE packets of a thousand.
loss_rule() {
  case $1 in
    off) ;;
    1000) echo "counter drop" ;;
    *) echo "numgen random mod 1000 < $1 counter drop" ;;
  esac
}

restart_router() {
  local process
  for process in sub-agent snmpd; do
    if process_runs router $process; then machine_kill router $process KILL; fi
  done
  in_network router nft flush table ip branchline
  in_network router nft delete table ip branchline
  in_network router conntrack -F >/dev/null 2>&1 || true
  start_router
}

FAULTS="read-only table-full hang commit-failed sub-agent-dead snmpd-stopped drop-requests
drop-replies wan-cut wan-loss lan-loss partition"

set_fault() {
  local name=$1 value=${2:-on}
  case $name in
    read-only) fault_switch read_only "$value" ;;
    table-full) fault_switch table_full "$value" ;;
    hang) fault_switch hang "$value" ;;
    commit-failed) fault_switch commit_failed "${value/#on/1}" ;;
    sub-agent-dead)
      if [[ $value == on ]]; then
        machine_kill router sub-agent KILL
      elif ! process_runs router sub-agent; then
        start_sub_agent
        poll 15 router_answers || die "the router's sub-agent did not come back"
      fi
      ;;
    snmpd-stopped)
      if [[ $value == on ]]; then machine_kill router snmpd STOP; else machine_kill router snmpd CONT; fi
      ;;
    drop-requests | drop-replies)
      local hook=input rule="udp dport 161 counter drop"
      if [[ $name == drop-replies ]]; then hook=output rule="udp sport 161 counter drop"; fi
      case $value in
        on) ;;
        off) rule="" ;;
        # Only those that are longer, with their UDP header.
        *) rule=${rule/counter/udp length > $value counter} ;;
      esac
      fault_filter router inet "${name/-/_}" $hook "$rule"
      ;;
    wan-cut) fault_wan_cut "$value" ;;
    wan-loss) fault_filter router netdev wan_loss 'ingress device "wan0"' "$(loss_rule "$value")" ;;
    lan-loss) fault_filter switch bridge lan_loss forward "$(loss_rule "$value")" ;;
    partition) fault_partition "$value" ;;
    restart-router) restart_router ;;
    clear)
      local fault
      for fault in $FAULTS; do set_fault "$fault" off; done
      ;;
    *) die "there is no fault named $name; there are: clear restart-router ${FAULTS//$'\n'/ }" ;;
  esac
}
