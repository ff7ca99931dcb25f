# shellcheck shell=sh
# ---- signature cluster: several machines that act as one ---------------------------------------------------------------------

cluster_corosync() {
    exists /etc/corosync/corosync.conf || return 0
    read_text /etc/corosync/corosync.conf | text_awk '
        BEGIN { state = ARGV[1]; ARGC = 1 }
        { sub(/#.*/, "") }
        /\{/ { name = $1; sub(/\{.*/, "", name); depth++; if (name == "node") { member = address = "" } }
        $1 == "cluster_name:" { cluster = $2 }
        $1 == "ring0_addr:" { address = $2 }
        $1 == "name:" && name == "node" { member = $2 }
        /\}/ {
            if (name == "node" && (member != "" || address != "")) members[++n] = member != "" ? member : address
            name = ""; depth--
        }
        END {
            item_begin("corosync")
            fact("name", cluster); fact("state", state)
            for (i = 1; i <= n && i <= 56; i++) fact("member", members[i])
            item_end()
            if (n > 2) print "members " n
        }' "$(state_of corosync)"
}

cluster_slurm() {
    for slurm in /etc/slurm/slurm.conf /etc/slurm-llnl/slurm.conf; do
        exists "$slurm" || continue
        read_text "$slurm" | text_awk '
            BEGIN { state = ARGV[1]; ARGC = 1 }
            { sub(/#.*/, "") }
            match(tolower($0), /^[ \t]*clustername=/) { name = substr($0, RLENGTH + 1); sub(/[ \t].*/, "", name) }
            match(tolower($0), /^[ \t]*(slurmctldhost|nodename)=/) {
                member = substr($0, RLENGTH + 1); sub(/[ \t].*/, "", member)
                if (tolower(member) != "default" && !seen[member]++) members[++n] = member
            }
            END {
                item_begin("slurm")
                fact("name", name); fact("state", state)
                for (i = 1; i <= n && i <= 56; i++) fact("member", members[i])
                item_end()
            }' "$(state_of slurmd slurmctld)"
        return 0
    done
}

cluster_kubernetes() {
    kubernetes=''
    for place in /etc/kubernetes/kubelet.conf /etc/kubernetes/manifests /var/lib/kubelet/config.yaml /etc/rancher/k3s /etc/rancher/rke2; do
        exists "$place" && kubernetes=$place && break
    done
    [ -n "$kubernetes" ] || return 0
    server=$(read_text /etc/kubernetes/kubelet.conf 256 | awk '$1 == "server:" { print $2; exit }')
    found kubernetes evidence "$kubernetes" server "$server" state "$(state_of kubelet k3s-server k3s-agent k3s rke2)"
}

cluster_galera() {
    for directory in /etc/mysql /etc/mysql/conf.d /etc/mysql/mariadb.conf.d /etc/mysql/mysql.conf.d /etc /etc/my.cnf.d; do
        names_in "$directory" | grep '\.cnf$' | while IFS= read -r file; do read_text "$directory/$file" 64; printf '\n'; done
    done | text_awk '
        BEGIN { state = ARGV[1]; ARGC = 1 }
        { sub(/^[ \t]*#.*/, ""); at = index($0, "=") }
        at {
            key = substr($0, 1, at - 1); value = substr($0, at + 1)
            gsub(/[ \t]/, "", key); gsub(/-/, "_", key); gsub(/^[ \t"\047]+|[ \t"\047]+$/, "", value)
        }
        at && key == "wsrep_cluster_address" && value ~ /^gcomm:\/\// { sub(/^gcomm:\/\//, "", value); sub(/\?.*/, "", value); members = value; galera = 1 }
        at && key == "wsrep_cluster_name" { name = value }
        END {
            if (!galera) exit
            item_begin("galera")
            fact("name", name); fact("state", state)
            n = split(members, list, ",")
            for (i = 1; i <= n && i <= 56; i++) fact("member", list[i])
            item_end()
        }' "$(state_of mariadbd mysqld)"
}

cluster_others() {
    if exists /etc/default/etcd || exists /etc/etcd/etcd.conf; then
        for etcd in /etc/default/etcd /etc/etcd/etcd.conf; do value_of "$etcd" ETCD_INITIAL_CLUSTER; done | text_awk '
            BEGIN { state = ARGV[1]; ARGC = 1 }
            NF && !done {
                n = split($0, list, ","); done = 1
                item_begin("etcd")
                fact("state", state)
                for (i = 1; i <= n && i <= 56; i++) { sub(/=.*/, "", list[i]); fact("member", list[i]) }
                item_end()
            }' "$(state_of etcd)"
    fi
    if exists /etc/cluster/cluster.conf; then
        read_text /etc/cluster/cluster.conf | tr '<' '\n' | text_awk '
            function value(key,   s) { if (!match($0, key "=\"[^\"]*\"")) return ""; s = substr($0, RSTART, RLENGTH); sub(/^[^"]*"/, "", s); sub(/"$/, "", s); return s }
            /^cluster / { name = value("name") }
            /^clusternode / { members[++n] = value("name") }
            END {
                item_begin("cman")
                fact("name", name); fact("state", "configured")
                for (i = 1; i <= n && i <= 56; i++) fact("member", members[i])
                item_end()
            }'
    fi
}

signature_cluster() {
    [ "$1" = discovery ] || say "cluster knows no mode $1, and looks as in discovery"
    cluster_findings=$({ cluster_corosync; cluster_slurm; cluster_kubernetes; cluster_galera; cluster_others; } | head -n 900)
    [ -n "$cluster_findings" ] || return 0
    printf '%s\n' "$cluster_findings" | grep -v '^members '

    for kind in $(printf '%s\n' "$cluster_findings" | awk -F'"' '/<item kind=/ { print $2 }' | sort -u); do
        module "$kind" required cluster "the host is a member of a cluster ($kind)"
    done
    quorum=$(printf '%s\n' "$cluster_findings" | awk '$1 == "members" { print int($2 / 2) + 1; exit }')
    if [ -n "$quorum" ]; then
        threshold corosync members_low "$quorum" count cluster 'below this number the cluster loses its quorum'
    fi
}
