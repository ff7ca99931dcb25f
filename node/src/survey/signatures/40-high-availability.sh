# shellcheck shell=sh
# ---- signature high-availability: services that move to another machine when this one fails ----------------------------------

availability_pacemaker() {
    if exists /var/lib/pacemaker || exists /etc/pacemaker; then
        read_text /var/lib/pacemaker/cib/cib.xml | tr '<' '\n' | text_awk '
            BEGIN { state = ARGV[1]; ARGC = 1 }
            function value(key,   s) { if (!match($0, key "=\"[^\"]*\"")) return ""; s = substr($0, RSTART, RLENGTH); sub(/^[^"]*"/, "", s); sub(/"$/, "", s); return s }
            /^node / { nodes[++n] = value("uname") }
            /^primitive / { resources[++m] = value("id") }
            END {
                item_begin("pacemaker")
                fact("state", state)
                for (i = 1; i <= n && i <= 28; i++) fact("member", nodes[i])
                for (i = 1; i <= m && i <= 28; i++) fact("resource", resources[i])
                item_end()
            }' "$(state_of pacemakerd)"
    fi
}

# keepalived: names of the instances and their shared addresses; the passwords in the same file are not read out.
availability_keepalived() {
    exists /etc/keepalived/keepalived.conf || return 0
    read_text /etc/keepalived/keepalived.conf | text_awk '
        BEGIN { state = ARGV[1]; ARGC = 1 }
        { sub(/[#!].*/, "") }
        $1 == "vrrp_instance" { name = $2; sub(/\{.*/, "", name); names[++n] = name }
        $1 ~ /^virtual_ipaddress/ { within = 1; next }
        /\}/ { within = 0 }
        within && $1 ~ /^[0-9a-fA-F.:]+(\/[0-9]+)?$/ { addresses[++m] = $1 }
        END {
            item_begin("keepalived")
            fact("state", state)
            for (i = 1; i <= n && i <= 28; i++) fact("name", names[i])
            for (i = 1; i <= m && i <= 28; i++) fact("shared_address", addresses[i])
            item_end()
        }' "$(state_of keepalived)"
}

availability_drbd() {
    {
        read_text /etc/drbd.conf 64
        printf '\n'
        names_in /etc/drbd.d | grep '\.res$' | while IFS= read -r file; do read_text "/etc/drbd.d/$file" 64; printf '\n'; done
    } | text_awk '
        BEGIN { state = ARGV[1]; ARGC = 1 }
        function flush(   i) {
            if (resource == "") return
            item_begin("drbd")
            fact("name", resource); fact("state", state)
            for (i = 1; i <= n && i <= 32; i++) fact("member", members[i])
            item_end()
            resource = ""; n = 0
        }
        { sub(/#.*/, ""); gsub(/["{]/, " ") }
        $1 == "resource" && items < 64 { flush(); items++; resource = $2 }
        $1 == "on" { members[++n] = $2 }
        END { flush() }' "$(if exists /proc/drbd; then printf running; else printf configured; fi)"
}

availability_heartbeat() {
    exists /etc/ha.d/ha.cf || return 0
    read_text /etc/ha.d/ha.cf 64 | text_awk '
        BEGIN { state = ARGV[1]; ARGC = 1 }
        { sub(/#.*/, "") }
        $1 == "node" { for (i = 2; i <= NF; i++) members[++n] = $i }
        END {
            item_begin("heartbeat")
            fact("state", state)
            for (i = 1; i <= n && i <= 56; i++) fact("member", members[i])
            item_end()
        }' "$(state_of heartbeat)"
}

signature_high_availability() {
    [ "$1" = discovery ] || say "high-availability knows no mode $1, and looks as in discovery"
    availability_findings=$({ availability_pacemaker; availability_keepalived; availability_drbd; availability_heartbeat; } | head -n 900)
    [ -n "$availability_findings" ] || return 0
    printf '%s\n' "$availability_findings"

    for kind in $(printf '%s\n' "$availability_findings" | awk -F'"' '/<item kind=/ { print $2 }' | sort -u); do
        case $kind in
            drbd) module drbd required high-availability 'disks are mirrored to another machine' ;;
            *)
                module "$kind" required high-availability "services move between machines ($kind)"
                threshold "$kind" failover_high 1 count high-availability 'every move of a service is worth knowing'
                ;;
        esac
    done
}
