# shellcheck shell=bash
# A root of its own for the station and every host: an overlay over one cached Debian. The hosts
# differ as machines of a site do, so that what is selected for them differs.

make_root() {
  local name=$1 top=$LAB_RUN/roots/$1
  mkdir -p "$top/upper/etc" "$top/work" "$top/merged"
  echo "$name" >"$top/upper/etc/hostname"
  # Two machines with one identity are a fault that a test makes on purpose, not by accident.
  printf '%s' "$LAB_ID-$name" | sha256sum | cut -c 1-32 >"$top/upper/etc/machine-id"
  {
    printf '127.0.0.1\tlocalhost\n'
    local other
    for other in $(machine_names); do printf '%s\t%s\n' "$(address_of "$other")" "$other"; done
  } >"$top/upper/etc/hosts"
  : >"$top/upper/etc/resolv.conf"
  case $name in
    host2) add_nfs_mount "$top/upper" ;;
    host3) add_cluster "$top/upper" ;;
  esac
}

add_nfs_mount() {
  cat >"$1/etc/fstab" <<'FSTAB'
# <file system>              <mount point>  <type>  <options>                     <dump>  <pass>
UUID=3f0c1e52-0000-0000-0000-000000000002  /  ext4  errors=remount-ro  0  1
files.branch.example:/exports/home  /srv/home  nfs4  rw,hard,noatime,vers=4.2,_netdev  0  0
FSTAB
}

add_cluster() {
  mkdir -p "$1/etc/corosync" "$1/etc/default" "$1/var/lib/pacemaker/cib"
  cat >"$1/etc/corosync/corosync.conf" <<'COROSYNC'
totem {
    version: 2
    cluster_name: branch
    transport: knet
    crypto_cipher: aes256
    crypto_hash: sha256
}
nodelist {
    node {
        ring0_addr: host3
        name: host3
        nodeid: 1
    }
    node {
        ring0_addr: host4
        name: host4
        nodeid: 2
    }
}
quorum {
    provider: corosync_votequorum
    two_node: 1
}
logging {
    to_syslog: yes
}
COROSYNC
  cat >"$1/etc/default/pacemaker" <<'PACEMAKER'
PCMK_logfile=/var/log/pacemaker/pacemaker.log
PACEMAKER
  cat >"$1/var/lib/pacemaker/cib/cib.xml" <<'CIB'
<cib crm_feature_set="3.16.2" validate-with="pacemaker-3.9" epoch="4" num_updates="0" admin_epoch="0">
  <configuration>
    <crm_config>
      <cluster_property_set id="cib-bootstrap-options">
        <nvpair id="opt-cluster-name" name="cluster-name" value="branch"/>
      </cluster_property_set>
    </crm_config>
    <nodes>
      <node id="1" uname="host3"/>
      <node id="2" uname="host4"/>
    </nodes>
    <resources>
      <primitive id="till-database" class="ocf" provider="heartbeat" type="pgsql"/>
    </resources>
    <constraints/>
  </configuration>
</cib>
CIB
}
