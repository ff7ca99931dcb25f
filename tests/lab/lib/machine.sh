# shellcheck shell=bash
# A machine of the lab: a network, mount, process, host name and IPC namespace, held by an init of
# its own. When the init ends the kernel ends everything in it and takes its mounts away: that is
# how a power cut works, and why `lab down` needs no list of processes.

machine_directory() { echo "$LAB_RUN/machines/$1"; }

# Field 22 of /proc/PID/stat: when the process started, so that a number used again is not mistaken.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # shellcheck disable=SC2086  # the fields after the command's name are to be split
  set -- ${stat##*) }
  echo "${20}"
}

# The process number of a machine's init, or failure if it is not running.
init_of() {
  local directory init
  directory=$(machine_directory "$1")
  init=$(cat "$directory/init.pid" 2>/dev/null) || return 1
  [[ -n $init && $(start_time "$init") == "$(cat "$directory/init.start" 2>/dev/null)" ]] || return 1
  echo "$init"
}

# Where this computer keeps the second version of control groups, which systemd needs.
cgroup_top() { awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts; }

cgroup_of() { echo "$(cgroup_top)/branchline-lab-$LAB_ID-$1"; }

runs_systemd() { [[ " ${SYSTEMD:-} " == *" $1 "* ]]; }

# Starts a machine's init; its namespaces are ready when boot_finished succeeds.
boot() {
  local name=$1 directory root="" base=${BASE:-} init="" cgroup="" namespaces=()
  directory=$(machine_directory "$name")
  mkdir -p "$directory/processes"
  rm -f "$directory"/init.* "$directory"/processes/*.{pid,outer,status}
  if [[ $ROOTS == yes && $name != headquarters && $name != router ]]; then
    root=$LAB_RUN/roots/$name
  fi
  if runs_systemd "$name"; then
    # Its control groups hang below one of its own, so that it never meets those of this computer.
    init=systemd base=$BASE_SYSTEMD cgroup=$(cgroup_of "$name") namespaces=(--cgroup)
    mkdir -p "$cgroup"
  fi
  : >"$directory/init.pid"
  # shellcheck disable=SC2016  # for the shell that is started
  setsid bash -c 'if [[ -n $1 ]]; then echo $$ >"$1/cgroup.procs"; fi; shift; exec "$@"' boot "$cgroup" \
    nsenter --net="/run/netns/$(namespace "$name")" -- \
    unshare --mount --uts --ipc --pid "${namespaces[@]}" --fork --kill-child --propagation private -- \
    bash "$LAB_SOURCE/machine-init.sh" "$name" "$root" "$base" "$LAB_SHARED" \
    "$directory/init.pid" "$LAB_RUN/binds" "$init" </dev/null >"$directory/init.log" 2>&1 &
}

# Removes the control groups of machines that are off.
remove_cgroups() {
  local top group
  top=$(cgroup_top)
  for group in "$top"/branchline-lab-"$LAB_ID"-*; do
    [[ -d $group ]] || continue
    poll 10 cgroup_is_empty "$group" || die "processes in $group do not end"
    find "$group" -depth -type d -exec rmdir {} +
  done
}

cgroup_is_empty() { grep -qx 'populated 0' "$1/cgroup.events"; }

booted() { [[ -s $(machine_directory "$1")/init.pid ]]; }

boot_finished() {
  local name=$1 directory
  directory=$(machine_directory "$name")
  poll 20 booted "$name" || die "$name did not start: $(cat "$directory/init.log")"
  start_time "$(cat "$directory/init.pid")" >"$directory/init.start" ||
    die "$name stopped at once: $(cat "$directory/init.log")"
}

# Fills ENTER with the command that runs another inside a machine.
enter() {
  local init
  init=$(init_of "$1") || die "$1 is not running (lab power $1 on starts it)"
  ENTER=(nsenter --target "$init" --mount --uts --ipc --net --pid --
    env -i PATH="$LAB_PATH" HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}")
}

machine_exec() {
  enter "$1"
  shift
  exec "${ENTER[@]}" "$@"
}

process_file() { echo "$(machine_directory "$1")/processes/$2"; }

process_runs() {
  local file
  file=$(process_file "$1" "$2")
  [[ -s $file.pid && ! -e $file.status ]] && init_of "$1" >/dev/null
}

# machine_spawn MACHINE NAME COMMAND...: starts a daemon with its output in NAME.log.
machine_spawn() {
  local machine=$1 name=$2 file
  shift 2
  [[ $name =~ ^[a-z0-9-]+$ ]] || die "a process is named with a-z, 0-9 and -, not $name"
  if process_runs "$machine" "$name"; then die "$machine already runs $name"; fi
  enter "$machine"
  file=$(process_file "$machine" "$name")
  rm -f "$file".{pid,outer,status}
  # shellcheck disable=SC2016  # for the shells that are started
  setsid bash -c '
    file=$1; shift
    "$@" </dev/null >>"$file.log" 2>&1 3>"$file.pid" &
    echo $! >"$file.outer"
    wait $!
    echo $? >"$file.status.new"; mv "$file.status.new" "$file.status"
  ' launcher "$file" "${ENTER[@]}" sh -c 'echo $$ >&3; exec 3>&-; exec "$@"' sh "$@" \
    </dev/null >/dev/null 2>&1 &
  poll 30 test -s "$file.pid" || die "$machine could not start $name: $(tail -n 3 "$file.log")"
}

# machine_kill MACHINE NAME SIGNAL: signals that one process, as an operator's kill would.
machine_kill() {
  local machine=$1 name=$2 signal=${3:-TERM} file
  file=$(process_file "$machine" "$name")
  process_runs "$machine" "$name" || die "$machine runs no $name"
  enter "$machine"
  # shellcheck disable=SC2016  # for the shell that is started
  "${ENTER[@]}" sh -c 'kill -s "$1" "$2"' sh "${signal#SIG}" "$(cat "$file.pid")"
  case ${signal#SIG} in
    # nsenter stops itself with its child and would never see it end.
    CONT) kill -CONT "$(cat "$file.outer")" ;;
    KILL | TERM | QUIT) poll 10 test -e "$file.status" || say "$machine: $name did not end within 10 s" ;;
  esac
}

machine_wait() {
  local file
  file=$(process_file "$1" "$2")
  poll "${3:-60}" test -e "$file.status" || die "$1: $2 did not end within ${3:-60} s"
  cat "$file.status"
}

machine_off() {
  local init
  init=$(init_of "$1") || return 0
  kill -KILL "$init"
  poll 10 test ! -e "/proc/$init" || die "the init of $1 (process $init) does not end"
}

machine_on() {
  if init_of "$1" >/dev/null; then return; fi
  boot "$1"
  boot_finished "$1"
}
