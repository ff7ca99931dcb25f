#!/usr/bin/env bash
# Process 1 of a machine of the lab: mounts its root and waits. Called by lib/machine.sh in new
# namespaces; what it mounts goes with them.
#
# usage: machine-init.sh NAME ROOT BASE SHARED READY BINDS [systemd]
#   ROOT   directory with upper, work and merged, or empty: the root of this computer
#   READY  file that gets this process's number, as seen from outside, when all is mounted
#   BINDS  directory of files, each with a line "source target mode"
set -euo pipefail

name=$1 root=$2 base=$3 shared=$4 ready=$5 binds=$6 init=${7:-}

# The old /proc still belongs to the outer process namespace.
read -r outer _ </proc/self/stat
exec 9>"$ready"
hostname "$name"

devices() {
  local dev=$1 device
  mount -t tmpfs -o mode=755,nosuid dev "$dev"
  for device in null zero full random urandom tty; do
    : >"$dev/$device"
    mount --bind "/dev/$device" "$dev/$device"
  done
  mkdir "$dev/pts" "$dev/shm"
  mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$dev/pts"
  mount -t tmpfs -o mode=1777 shm "$dev/shm"
  ln -s pts/ptmx "$dev/ptmx"
  ln -s /proc/self/fd "$dev/fd"
  ln -s /proc/self/fd/0 "$dev/stdin"
  ln -s /proc/self/fd/1 "$dev/stdout"
  ln -s /proc/self/fd/2 "$dev/stderr"
}

bind_all() {
  local top=$1 file source target mode
  for file in "$binds"/*; do
    [[ -f $file ]] || continue
    read -r source target mode <"$file"
    if [[ -d $source ]]; then
      mkdir -p "$top$target"
    else
      mkdir -p "$(dirname "$top$target")"
      : >>"$top$target"
    fi
    mount --bind "$source" "$top$target"
    if [[ $mode == ro ]]; then mount -o remount,bind,ro "$top$target"; fi
  done
}

# Ends every orphan and lives until it is killed.
idle='trap : TERM INT HUP; while :; do sleep 3600 & wait; done'

if [[ -z $root ]]; then
  mount -t proc proc /proc
  mount -t sysfs -o ro sysfs /sys
  echo "$outer" >&9
  exec 9>&-
  exec sh -c "$idle"
fi

merged=$root/merged
mount -t overlay overlay -o "lowerdir=$base,upperdir=$root/upper,workdir=$root/work" "$merged"
mount -t proc proc "$merged/proc"
mount -t sysfs -o ro sysfs "$merged/sys"
devices "$merged/dev"
mount -t tmpfs -o mode=755,nosuid,nodev run "$merged/run"
mkdir -p "$merged/run/lock" "$merged$shared"
mount --bind "$shared" "$merged$shared"
bind_all "$merged"

# The machine's own systemd, as in a container: it leaves the kernel's settings and devices to this computer.
prepare_systemd() {
  local unit
  mount -t cgroup2 cgroup2 "$merged/sys/fs/cgroup"
  mkdir -p "$merged/etc/systemd/system"
  for unit in systemd-sysctl.service systemd-modules-load.service systemd-udevd.service \
    systemd-udev-trigger.service sys-kernel-debug.mount sys-kernel-tracing.mount getty.target; do
    ln -sf /dev/null "$merged/etc/systemd/system/$unit"
  done
}
if [[ $init == systemd ]]; then prepare_systemd; fi

cd "$merged"
pivot_root . .
umount -l .
echo "$outer" >&9
exec 9>&-
if [[ $init == systemd ]]; then
  exec chroot . /usr/bin/env -i container=lab /lib/systemd/systemd --log-target=console --log-level=notice
fi
exec chroot . /bin/sh -c "$idle"
