# shellcheck shell=sh
# ---- signature system-type: hardware of its own, a guest of a hypervisor, or a container -------------------------------------

# Sets system_kind, system_vendor, system_model and system_evidence.
detect_system_type() {
    system_vendor=$(hardware_text /sys/class/dmi/id/sys_vendor | head -n 1)
    system_model=$(hardware_text /sys/class/dmi/id/product_name | head -n 1)
    [ -n "$system_model" ] || system_model=$(hardware_text /proc/device-tree/model | tr -d '?' | head -n 1)
    system_kind=unknown
    system_evidence=''
    if exists /.dockerenv; then
        system_kind=container system_evidence=/.dockerenv
    elif exists /run/.containerenv; then
        system_kind=container system_evidence=/run/.containerenv
    elif exists /run/systemd/container; then
        system_kind=container system_evidence="$(first_line /run/systemd/container)"
    elif read_text /proc/1/cgroup 64 | grep -q -E 'docker|lxc|kubepods|containerd|libpod'; then
        system_kind=container system_evidence=/proc/1/cgroup
    elif [ -n "$(hardware_text /sys/hypervisor/type)" ]; then
        system_kind=virtual system_evidence=/sys/hypervisor/type
    elif hardware_text /proc/cpuinfo | grep -q -E '^flags.* hypervisor( |$)'; then
        system_kind=virtual system_evidence='the processor flag "hypervisor"'
    else
        case "$system_vendor $system_model" in
            *QEMU* | *KVM* | *VMware* | *VirtualBox* | *Xen* | *'Virtual Machine'* | *Bochs* | *'Amazon EC2'* | *'Google Compute'* | *bhyve* | *Parallels*)
                system_kind=virtual system_evidence=/sys/class/dmi/id
                ;;
            ' ') ;;
            *) system_kind=physical system_evidence=/sys/class/dmi/id ;;
        esac
    fi
}

signature_system_type() {
    [ "$1" = discovery ] || say "system-type knows no mode $1, and looks as in discovery"
    if [ "$system_kind" != unknown ]; then
        found "$system_kind" evidence "$system_evidence" vendor "$system_vendor" model "$system_model"
    fi

    module cpu required system-type 'every machine has processors'
    module memory required system-type 'every machine has memory'
    module filesystem required system-type 'every machine has file systems that fill up'
    module network useful system-type 'traffic and errors of the interfaces'
    [ "$init" != systemd ] || module systemd useful system-type 'services are units of systemd: failed ones show'
    if [ "$system_kind" = physical ]; then
        module disk required system-type 'the machine has disks of its own'
        module thermal useful system-type 'the machine has sensors of its own'
    fi
    if hardware_text /proc/mdstat | grep -q '^md'; then
        module mdraid required system-type 'disks are joined by the kernel (md)'
    fi

    if [ "$cpu_count" -gt 8 ]; then
        threshold cpu load_high "$((cpu_count * 2))" processes system-type "$cpu_count processing units carry more than the default allows for"
    fi
    case $memory_bytes in
        '' | 0 | *[!0-9]* | ????????????????*) ;;
        *) [ "$memory_bytes" -ge 1073741824 ] ||
            threshold memory available_low "$((memory_bytes / 16))" bytes system-type 'the machine has less than 1 GiB of memory' ;;
    esac
    root_space=$(space_of "$root")
    if [ -n "$root_space" ] && [ "$((${root_space% *} / 1073741824))" -ge 1024 ]; then
        threshold filesystem free_low 5 percent system-type 'ten percent of a file system beyond 1 TiB is more than needs to stay free'
    fi
}
