# shellcheck shell=bash
# Roots of the hosts, processes in them, and Prometheus at headquarters.

test_roots() {
  local package started ended
  package=$("$LAB_SOURCE/payload.sh" | head -n 1)
  "$LAB_SOURCE/base.sh" >/dev/null
  started=${EPOCHREALTIME/[.,]/}
  lab up --hosts 6 --roots --bind "$LAB_SOURCE:/opt/lab"
  ended=${EPOCHREALTIME/[.,]/}
  expect "six hosts with roots are up in $(((ended - started) / 1000)) ms" yes \
    "$( ((ended - started < 10000000)) && echo yes || echo no)"
  other_lab up --hosts 1
  expect "a second lab runs beside it" host1 "$(other_lab exec host1 hostname)"
  other_lab down

  cp "$package" "$LAB_SHARED/"
  expect "a real dpkg installs a real package" yes \
    "$(outcome lab exec host1 dpkg -i "$LAB_SHARED/${package##*/}")"
  expect "  in its own root only" "yes no" \
    "$(outcome lab exec host1 dpkg -s prometheus-node-exporter) $(outcome lab exec host2 dpkg -s prometheus-node-exporter)"
  expect "  and without starting its daemon" no "$(outcome lab exec host1 pgrep -f prometheus-node-exporter)"
  lab spawn host1 exporter prometheus-node-exporter
  expect "a daemon runs" yes "$(outcome lab running host1 exporter)"
  expect "a bound path is there" yes "$(outcome lab exec host1 test -x /opt/lab/lab)"
  expect "  and read-only" no "$(outcome lab exec host1 touch /opt/lab/x)"
  expect "the root of this computer is not seen" no "$(outcome lab exec host1 test -e "$LAB_RUN/lab.env")"
  expect "host names differ" "host1 host2" "$(lab exec host1 hostname) $(lab exec host2 hostname)"
  expect "host2 mounts NFS" yes "$(outcome lab exec host2 grep -w nfs4 /etc/fstab)"
  expect "host3 is in a cluster" yes "$(outcome lab exec host3 grep cluster_name /etc/corosync/corosync.conf)"
  expect "host1 is not" no "$(outcome lab exec host1 test -e /etc/corosync)"
  test_processes
  lab down
}

test_processes() {
  lab kill host1 exporter STOP
  lab kill host1 exporter CONT
  lab kill host1 exporter KILL
  expect "a killed daemon's status" 137 "$(lab wait host1 exporter 5)"
  lab spawn host1 writer sh -c 'echo kept >/var/tmp/file; sync; sleep 600'
  poll 30 lab exec host1 test -s /var/tmp/file
  lab power host1 off
  expect "without power nothing runs" no "$(outcome lab running host1 writer)"
  expect "  nor can be started" no "$(outcome lab exec host1 true)"
  lab power host1 on
  expect "with it the disk is as it was" kept "$(lab exec host1 cat /var/tmp/file)"
  expect "  and no process is left" no "$(outcome lab exec host1 pgrep -x sleep -f 'sleep 600')"
  expect "exec tells the command's exit status" 7 "$(lab exec host1 sh -c 'exit 7' || echo $?)"
}

# A target list in the form of Prometheus' HTTP service discovery, from a file.
test_prometheus() {
  local targets package
  package=$("$LAB_SOURCE/payload.sh" | head -n 1)
  lab up --hosts 2 --roots
  cp "$package" "$LAB_SHARED/"
  lab exec host1 dpkg -i "$LAB_SHARED/${package##*/}" >/dev/null 2>&1
  lab spawn host1 exporter prometheus-node-exporter
  targets=$LAB_SHARED/targets
  mkdir "$targets"
  echo '[{"targets": ["198.51.100.65:9100"], "labels": {"host": "host1"}}]' >"$targets/targets.json"
  lab spawn headquarters targets python3 -m http.server --bind 127.0.0.1 --directory "$targets" 8000
  expect "Prometheus starts" http://127.0.0.1:9090 \
    "$(lab prometheus http://127.0.0.1:8000/targets.json 2>/dev/null)"
  poll 60 up_is 0 || true
  expect "a target that is not mapped is down" 0 "$(up_value)"
  map_host 1 10.1.1.1 198.51.100.65
  poll 60 up_is 1 || true
  expect "a mapped one is up" 1 "$(up_value)"
  lab down
}

up_value() { lab prometheus-query 'up{host="host1"}' | json data result 0 value 1 2>/dev/null || true; }
up_is() { [[ $(up_value) == "$1" ]]; }
