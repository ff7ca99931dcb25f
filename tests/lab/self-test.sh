#!/usr/bin/env bash
# Tests of the lab itself: a test that runs in it means something only if the lab is what it says.
# Needs root on Debian. Ends with "lab: N passed, N failed".
#
# usage: self-test.sh [PART...]     parts: table shaping routes snmp faults roots prometheus
set -euo pipefail
LAB_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export BRANCHLINE_LAB_ID=blself
# shellcheck source=lib/common.sh
. "$LAB_SOURCE/lib/common.sh"
# shellcheck source=lib/router.sh
. "$LAB_SOURCE/lib/router.sh"
for part in network snmp roots; do
  # shellcheck source=/dev/null
  . "$LAB_SOURCE/self-test/$part.sh"
done

passed=0
failed=0

# expect NAME WANTED GOT: one assertion.
expect() {
  if [[ $2 == "$3" ]]; then
    passed=$((passed + 1))
    printf 'ok    %s\n' "$1"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n      wanted: %s\n      got:    %s\n' "$1" "$2" "$3"
  fi
}

# outcome COMMAND...: "yes" if it succeeds, else "no".
outcome() {
  if "$@" >/dev/null 2>&1 </dev/null; then echo yes; else echo no; fi
}

lab() { "$LAB_SOURCE/lab" "$@"; }
other_lab() { BRANCHLINE_LAB_ID=blself2 "$LAB_SOURCE/lab" "$@"; }

# The value at a path of keys in the JSON on standard input, compactly: json wan sent_bytes
json() {
  python3 -c '
import functools, json, sys
get = lambda value, key: value[int(key)] if isinstance(value, list) else value[key]
print(json.dumps(functools.reduce(get, sys.argv[1:], json.load(sys.stdin))).strip("\""))' "$@"
}

end_labs() {
  local status=$?
  trap - EXIT
  lab down
  other_lab down
  exit "$status"
}

test_table() {
  local log status=0
  log=$(cd "$LAB_SOURCE/router" && PYTHONDONTWRITEBYTECODE=1 python3 -m unittest 2>&1) || status=$?
  expect "the router's table as a value: $(grep -E '^Ran' <<<"$log")" 0 "$status"
  if ((status != 0)); then printf '%s\n' "$log"; fi
}

# Nothing of a lab may outlive it: namespaces, processes, mounts, files.
leftovers() {
  ip netns list | grep -E '^blself' || true
  grep -F /run/branchline-lab-blself /proc/self/mounts || true
  local file
  for file in /proc/[0-9]*/cmdline; do
    { tr '\0' ' ' <"$file" | grep -F branchline-lab-blself; } 2>/dev/null || true
  done
  find /run -maxdepth 1 -name 'branchline-lab-blself*'
}

test_down() {
  lab up --hosts 2
  lab spawn host1 sleeper sleep 600
  lab spawn host2 orphan sh -c 'setsid sleep 601 & exit 0'
  # The scripts' own records are gone, as after a crash: the namespaces are enough to clean up.
  rm -r "$LAB_RUN"/machines "$LAB_RUN"/lab.env
  expect "a lab that lost its records is not started over" no "$(outcome lab up --hosts 1)"
  lab down
  expect "down leaves nothing behind" "" "$(leftovers)"
  expect "down twice is no error" yes "$(outcome lab down)"
}

parts=("$@")
if ((${#parts[@]} == 0)); then parts=(table shaping routes snmp faults roots prometheus down); fi
for part in "${parts[@]}"; do
  declare -F "test_$part" >/dev/null || die "there is no part $part"
done

trap end_labs EXIT
lab down
other_lab down
for part in "${parts[@]}"; do
  printf '== %s\n' "$part"
  started=$SECONDS
  "test_$part"
  printf '== %s took %s s\n' "$part" "$((SECONDS - started))"
done
echo "lab: $passed passed, $failed failed"
((failed == 0))
