# shellcheck shell=sh
# ---- the machine: identifiers, hardware, operating system, software ----------------------------------------------------------

# Gathers what more than one part needs to know.
look_around() {
    detect_system_type
    running_names=$(
        printf '\n'
        for process_directory in "$prefix"/proc/[0-9]*; do
            { IFS= read -r process_name <"$process_directory/comm"; } 2>/dev/null && printf '%s\n' "$process_name"
        done
        printf '.\n'
    )
    listening_numbers=" $(listening_sockets | awk '{ print $1 }' | sort -n -u | tr '\n' ' ')"
    machine=$(uname -m)
    case $machine in
        x86_64 | amd64) architecture=amd64 ;;
        aarch64 | arm64) architecture=arm64 ;;
        armv7* | armv8l) architecture=armhf ;;
        i?86) architecture=i386 ;;
        ppc64le) architecture=ppc64el ;;
        *) architecture=$machine ;;
    esac
    cpu_count=$(count_processors)
    memory_bytes=$(hardware_text /proc/meminfo | awk '$1 == "MemTotal:" { kib = $2 } END { printf "%.0f", kib * 1024 }')
    detect_init
    detect_package_manager
}

# The processing units that this machine may use; of a foreign root with its own /proc, those listed there.
count_processors() {
    processors=''
    if [ -n "$prefix" ] && exists /proc/cpuinfo; then
        processors=$(read_text /proc/cpuinfo 4096 | grep -c '^processor[[:space:]]*:')
    fi
    case $processors in '' | 0) processors=$(nproc 2>/dev/null) ;; esac
    case $processors in '' | 0) processors=$(getconf _NPROCESSORS_ONLN 2>/dev/null) ;; esac
    case $processors in '' | 0 | *[!0-9]*) processors=1 ;; esac
    printf '%s\n' "$processors"
}

detect_init() {
    init=none
    if exists /run/systemd/system; then
        init=systemd
    elif exists /run/openrc; then
        init=openrc
    elif [ -z "$prefix" ] && { IFS= read -r process_name </proc/1/comm; } 2>/dev/null; then
        case $process_name in init | runit | s6-svscan | busybox) init=other ;; esac
    fi
}

detect_package_manager() {
    package_manager=none
    if exists /var/lib/dpkg/status; then
        package_manager=dpkg
    elif exists /lib/apk/db/installed; then
        package_manager=apk
    elif exists /var/lib/pacman/local; then
        package_manager=pacman
    elif exists /var/lib/rpm || exists /usr/lib/sysimage/rpm; then
        package_manager=rpm
    fi
}

facts_identity() {
    if [ -z "$prefix" ]; then
        hostname=$(uname -n)
    else
        hostname=$(first_line /etc/hostname)
    fi
    machine_id=$(first_line /etc/machine-id)
    [ -n "$machine_id" ] || machine_id=$(first_line /var/lib/dbus/machine-id)
    element host '    ' identity hostname "${hostname:-unknown}" machine_id "$machine_id"
}

# The addresses of all interfaces; of a foreign root only those that its own /proc shows.
facts_addresses() {
    {
        if [ -z "$prefix" ] && command -v ip >/dev/null 2>&1; then
            ip -o addr show 2>/dev/null | awk '$3 == "inet" || $3 == "inet6" {
                split($4, parts, "/"); print ($3 == "inet" ? "ipv4" : "ipv6"), parts[1], parts[2], $2 }'
        else
            read_text /proc/net/fib_trie 4096 | awk '
                $1 == "|--" || $1 == "+--" { address = $2 }
                /\/32 host LOCAL/ { print "ipv4", address, "-", "-" }'
            read_text /proc/net/if_inet6 1024 | awk 'length($1) == 32 {
                address = $1; gsub(/..../, "&:", address); sub(/:$/, "", address)
                print "ipv6", address, "-", $6 }'
        fi
    } | sort -u | text_awk '{
        print "1 <address" attribute("interface", $4 == "-" ? "" : $4) " family=\"" $1 "\"" attribute("value", $2) \
            ($3 ~ /^(0|[1-9][0-9]?|1[01][0-9]|12[0-8])$/ ? " prefix_length=\"" $3 "\"" : "") "/>"
    }' | list addresses 256 32768
}

facts_hardware() {
    element host '    ' hardware architecture "$architecture" machine "$machine" cpu_count "$cpu_count" \
        memory_bytes "${memory_bytes:-0}" system_kind "$system_kind" vendor "$system_vendor" model "$system_model"
}

facts_operating_system() {
    release=/etc/os-release
    exists "$release" || release=/usr/lib/os-release
    os_id=$(value_of "$release" ID)
    element host '    ' operating_system id "${os_id:-unknown}" version "$(value_of "$release" VERSION)" \
        version_id "$(value_of "$release" VERSION_ID)" pretty_name "$(value_of "$release" PRETTY_NAME)" \
        kernel "$(uname -r)" init "$init" package_manager "$package_manager"
}

facts_disks() {
    block_directory=$prefix/sys/block
    [ -d "$block_directory" ] || block_directory=/sys/block
    for disk in "$block_directory"/*; do
        case ${disk##*/} in loop* | ram* | zram* | sr* | fd* | dm-* | md* | nbd* | '*') continue ;; esac
        { IFS= read -r sectors <"$disk/size"; } 2>/dev/null || continue
        case $sectors in '' | 0 | *[!0-9]* | ?????????????????*) continue ;; esac
        { IFS= read -r turns <"$disk/queue/rotational"; } 2>/dev/null || turns=0
        if [ "$turns" = 1 ]; then rotational=true; else rotational=false; fi
        element 1 '' disk name "${disk##*/}" size_bytes "$((sectors * 512))" rotational "$rotational"
    done | list disks 256 32768
}

# space_of PATH: "SIZE FREE" in bytes of the file system that holds PATH.
space_of() {
    df -P -k "$1" 2>/dev/null | awk '
        NR > 1 && match($0, / [0-9]+ +[0-9]+ +-?[0-9]+ +[0-9-]+%? /) {
            split(substr($0, RSTART, RLENGTH), numbers, " ")
            if (numbers[3] < 0) numbers[3] = 0
            printf "%.0f %.0f\n", numbers[1] * 1024, numbers[3] * 1024
            exit
        }'
}

# local_mounts: "KIND SOURCE PATH" of mounted file systems that lie on this machine. Others are not asked, as a dead server would
# stop the survey.
local_mounts() {
    if [ -n "$prefix" ]; then
        printf -- '- - /\n'
        return
    fi
    read_text /proc/mounts 1024 | awk '
        $3 ~ /^(ext[234]|xfs|btrfs|zfs|jfs|reiserfs|f2fs|bcachefs|vfat|exfat|ntfs3?|overlay|aufs|erofs)$/ && !seen[$2]++ { print $3, $1, $2 }
        END { if (!seen["/"]) print "- - /" }' | sort -k 3
}

facts_filesystems() {
    local_mounts | head -n 256 | while read -r kind source mount_point; do
        mount_point=$(printf '%s\n' "$mount_point" | text_awk '{ print decode_mount($0) }')
        [ -d "$prefix$mount_point" ] || continue
        space=$(space_of "$prefix$mount_point")
        [ -n "$space" ] || continue
        [ "$kind" != - ] || kind=''
        [ "$source" != - ] || source=''
        element 1 '' filesystem mount_point "$mount_point" source "$source" kind "$kind" \
            size_bytes "${space% *}" free_bytes "${space#* }"
    done | list filesystems 128 65536
}

# installed_packages: "NAME<tab>VERSION" of every installed package.
installed_packages() {
    case $package_manager in
        dpkg)
            read_text /var/lib/dpkg/status 131072 | awk '
                function flush() { if (installed && name != "" && version != "") print name "\t" version; name = version = ""; installed = 0 }
                /^Package: / { flush(); name = $2 }
                /^Status: / { installed = ($NF == "installed") }
                /^Version: / { version = $2 }
                /^$/ { flush() }
                END { flush() }'
            ;;
        apk)
            read_text /lib/apk/db/installed 65536 | awk '
                /^P:/ { name = substr($0, 3) }
                /^V:/ { print name "\t" substr($0, 3) }'
            ;;
        rpm)
            # The RPM database of a foreign root is not opened: that could write to it.
            if [ -z "$prefix" ] && command -v rpm >/dev/null 2>&1; then
                rpm -qa --queryformat '%{NAME}\t%{VERSION}-%{RELEASE}\n' 2>/dev/null
            fi
            ;;
        pacman)
            names_in /var/lib/pacman/local | awk '{
                n = split($0, parts, "-"); if (n < 3) next
                version = parts[n - 1] "-" parts[n]
                print substr($0, 1, length($0) - length(version) - 1) "\t" version }'
            ;;
    esac
}

facts_packages() {
    installed_packages | sort -u | text_awk 'BEGIN { FS = "\t" } $1 != "" && $2 != "" {
        print "1 <package" attribute("name", $1) attribute("version", $2) "/>"
    }' | list packages 4096 393216 total
}

# each_process: "PID PARENT ARGUMENTS", the arguments separated by the byte 1.
each_process() {
    for process_directory in "$prefix"/proc/[0-9]*; do
        [ -r "$process_directory/cmdline" ] || continue
        { IFS= read -r process_stat <"$process_directory/stat"; } 2>/dev/null || process_stat='0 (x) S 0 0'
        process_parent=${process_stat##*') '}
        process_parent=${process_parent#* }
        printf '%s %s ' "${process_directory##*/}" "${process_parent%% *}"
        { tr '\000-\037\177' '\001????????????????????????????????' <"$process_directory/cmdline"; } 2>/dev/null
        printf '\n'
    done
}

# Running software without process numbers: name, how many, and the command line with secrets taken out. This script itself and kernel
# threads are left out.
facts_software() {
    each_process | text_awk 'BEGIN { self = ARGV[1]; ARGC = 1 } {
        parent[$1] = $2
        line = $0
        sub(/^[0-9]+ [0-9]+ /, "", line)
        sub(/\001+$/, "", line)
        if (line != "" && line !~ /^[0-9]+ [0-9]* *$/) text[$1] = line
    }
    END {
        for (pid in text) {
            own = 0
            for (walk = pid; walk in parent && own < 64; walk = parent[walk]) {
                if (walk == self) break
                own++
            }
            if (walk == self) continue
            n = split(text[pid], list, "\001")
            command = redact(list, n)
            name = command
            sub(/ .*/, "", name)
            sub(/:$/, "", name)
            sub(/^.*\//, "", name)
            sub(/^-/, "", name)
            if (name == "") name = "?"
            name = attribute("name", name)
            command = attribute("command", command)
            if (command != "") count[name "\001" command]++
        }
        for (key in count) {
            split(key, parts, "\001")
            if (count[key] > 999999) count[key] = 999999
            print count[key] " <process" parts[1] " count=\"" count[key] "\"" parts[2] "/>"
        }
    }' "$$" | sort -k 3 | list software 1024 262144 total
}

# listening_sockets: "PORT SCOPE" of every TCP socket in the listening state.
listening_sockets() {
    {
        read_text /proc/net/tcp 16384
        read_text /proc/net/tcp6 16384
    } | awk '
        function hexadecimal(s,   i, n) {
            n = 0
            for (i = 1; i <= length(s); i++) n = n * 16 + index("0123456789ABCDEF", substr(s, i, 1)) - 1
            return n
        }
        $4 == "0A" && split($2, parts, ":") == 2 && parts[2] ~ /^[0-9A-F][0-9A-F][0-9A-F][0-9A-F]$/ && parts[2] != "0000" {
            if (parts[1] ~ /^0+$/) scope = "any"
            else if (parts[1] ~ /7F$/ || parts[1] == "00000000000000000000000001000000") scope = "loopback"
            else scope = "address"
            print hexadecimal(parts[2]), scope
        }' | sort -n -u
}

facts_listening_ports() {
    listening_sockets | awk '{ print "1 <port number=\"" $1 "\" scope=\"" $2 "\"/>" }' | list listening_ports 1024 65536
}
