# shellcheck shell=sh
# ---- signature network-storage: file systems and disks that lie on other machines --------------------------------------------

# network_mounts: findings from /etc/fstab ("configured") and the mounted file systems ("mounted"), each pair of source and place once.
network_mounts() {
    {
        read_text /etc/fstab | awk '$1 !~ /^#/ && NF >= 3 { print "configured", $1, $2, $3 }'
        read_text /proc/mounts | awk 'NF >= 3 { print "mounted", $1, $2, $3 }'
    } | text_awk '
        $4 ~ /^nfs4?$/ { kind = "nfs" }
        $4 ~ /^(cifs|smb3|smbfs)$/ { kind = "cifs" }
        $4 ~ /^(fuse\.)?ceph$/ { kind = "ceph" }
        $4 ~ /^(fuse\.)?glusterfs$/ { kind = "glusterfs" }
        $4 ~ /^(fuse\.)?sshfs$/ { kind = "sshfs" }
        $4 ~ /^(fuse\.)?davfs2?$/ { kind = "davfs" }
        $4 ~ /^(lustre|beegfs|afs|9p|gfs2|ocfs2)$/ { kind = $4 }
        kind == "9p" { kind = "plan9" }
        kind != "" {
            key = $2 " " $3
            if (!(key in kinds) && n < 128) { order[++n] = key; kinds[key] = kind; types[key] = $4 }
            if (!(key in states)) states[key] = $1
            else if (states[key] != $1) states[key] = "configured and mounted"
            kind = ""
        }
        END {
            for (i = 1; i <= n; i++) {
                key = order[i]
                at = index(key, " ")
                item(kinds[key], "source", decode_mount(substr(key, 1, at - 1)), "mount_point", decode_mount(substr(key, at + 1)),
                    "type", types[key], "state", states[key])
            }
        }'
}

# iSCSI: the name of this initiator, and every target that it was told of.
network_iscsi() {
    initiator=$(value_of /etc/iscsi/initiatorname.iscsi InitiatorName)
    for nodes in /etc/iscsi/nodes /var/lib/iscsi/nodes; do
        names_in "$nodes" | while IFS= read -r target; do
            names_in "$nodes/$target" | while IFS= read -r portal; do
                found iscsi source "$target" portal "$portal" initiator "$initiator" state "$(state_of iscsid)"
            done
        done
    done
    if [ -n "$initiator" ] && [ -z "$(names_in /etc/iscsi/nodes)$(names_in /var/lib/iscsi/nodes)" ]; then
        found iscsi initiator "$initiator" state "$(state_of iscsid)"
    fi
}

network_others() {
    if exists /etc/multipath.conf; then
        found multipath named_paths "$(read_text /etc/multipath.conf | grep -c '^[[:space:]]*wwid')" state "$(state_of multipathd)"
    fi
    read_text /etc/nbdtab 64 | text_awk '$1 !~ /^#/ && NF >= 2 { item("nbd", "source", $2, "device", $1, "export", $3, "state", "configured") }'
    if exists /etc/ceph/ceph.conf; then
        monitors=$(read_text /etc/ceph/ceph.conf 64 | awk -F= '$1 ~ /^[ \t]*mon[ _]host[ \t]*$/ { sub(/^[ \t]+/, "", $2); print $2; exit }')
        found ceph source "$monitors" state configured
    fi
    read_text /etc/nvme/discovery.conf 64 | text_awk '$1 !~ /^#/ && NF { item("nvme-of", "source", $0, "state", "configured") }'
}

signature_network_storage() {
    [ "$1" = discovery ] || say "network-storage knows no mode $1, and looks as in discovery"
    storage_findings=$({ network_mounts; network_iscsi; network_others; } | head -n 900)
    [ -n "$storage_findings" ] || return 0
    printf '%s\n' "$storage_findings"

    for kind in $(printf '%s\n' "$storage_findings" | awk -F'"' '/<item kind=/ { print $2 }' | sort -u); do
        case $kind in
            nfs | cifs | ceph | glusterfs | lustre | beegfs | gfs2 | ocfs2 | plan9 | sshfs | davfs | afs)
                module "$kind" required network-storage "file systems of kind $kind lie on other machines"
                threshold "$kind" stale_after 30 seconds network-storage 'a network file system that hangs stops what uses it'
                ;;
            *) module "$kind" required network-storage "disks are reached over the network ($kind)" ;;
        esac
    done
}
