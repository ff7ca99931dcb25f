//! The hosts' root directories: what a survey finds on them, so that selections differ.
use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::{Context, Result};

use crate::config::random_bytes;

/// What kind of machine a root shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing in particular.
    Plain,
    /// A network file system in its fstab.
    NetworkStorage,
    /// A member of a cluster of two, by corosync and pacemaker.
    Cluster,
}

impl Kind {
    /// The kind of the host with this number, from 0: the second has network storage, the third is in a cluster.
    pub fn of(number: u8) -> Self {
        match number {
            1 => Self::NetworkStorage,
            2 => Self::Cluster,
            _ => Self::Plain,
        }
    }
}

/// Writes the root directory of a host.
///
/// Processors and memory are the real ones of this machine; addresses are what the root's own `/proc` shows, so that each
/// host knows its own.
///
/// # Errors
/// The disk cannot be written.
pub fn write(root: &Path, kind: Kind, name: &str, address: Ipv4Addr) -> Result<()> {
    let machine: String = random_bytes()?[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut files = vec![
        ("etc/hostname", format!("{name}\n")),
        ("etc/machine-id", format!("{machine}\n")),
        ("etc/os-release", OS_RELEASE.to_owned()),
        ("proc/net/fib_trie", format!("Local:\n  |-- {address}\n     /32 host LOCAL\n")),
        ("etc/fstab", "LABEL=root / ext4 defaults 0 1\n".to_owned()),
    ];
    match kind {
        Kind::Plain => {}
        Kind::NetworkStorage => {
            files[4].1.push_str("fileserver.example:/export/articles /srv/articles nfs4 ro,hard 0 0\n");
        }
        Kind::Cluster => {
            files.push(("etc/corosync/corosync.conf", corosync(name)));
            files.push(("var/lib/pacemaker/cib/cib.xml", pacemaker(name)));
        }
    }
    for (path, text) in files {
        put(&root.join(path), &text)?;
    }
    fs::create_dir_all(root.join("opt")).with_context(|| format!("making {}", root.join("opt").display()))
}

fn put(path: &Path, text: &str) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

const OS_RELEASE: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\n\
                          VERSION=\"12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";

fn corosync(name: &str) -> String {
    format!(
        "totem {{\n    version: 2\n    cluster_name: checkout\n}}\nnodelist {{\n    node {{\n        ring0_addr: {name}\n        \
         name: {name}\n        nodeid: 1\n    }}\n    node {{\n        ring0_addr: {name}-standby\n        name: \
         {name}-standby\n        nodeid: 2\n    }}\n}}\nquorum {{\n    provider: corosync_votequorum\n    two_node: 1\n}}\n"
    )
}

fn pacemaker(name: &str) -> String {
    format!(
        "<cib><configuration><nodes><node id=\"1\" uname=\"{name}\"/><node id=\"2\" uname=\"{name}-standby\"/></nodes>\
         <resources><primitive id=\"checkout-database\" class=\"ocf\" provider=\"heartbeat\" type=\"pgsql\"/></resources>\
         </configuration></cib>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::{SurveyRequest, assemble, take};

    #[test]
    fn the_survey_finds_what_each_root_shows() {
        let directory = tempfile::tempdir().unwrap();
        let script = assemble(&[]).unwrap();
        for number in 0..3 {
            let root = directory.path().join(number.to_string());
            write(&root, Kind::of(number), "till-1", Ipv4Addr::new(127, 77, 1, 11)).unwrap();
            let descriptor = take(&script.text, &SurveyRequest::of_root(&root)).unwrap().descriptor;
            let facts = descriptor.facts();
            assert_eq!(facts["host"]["addresses"], serde_json::json!(["127.77.1.11"]));
            assert_eq!(facts["os"]["id"], "debian");
            assert_eq!(facts["storage"]["network"].as_array().map_or(0, Vec::len), usize::from(number == 1));
            assert_eq!(facts["cluster"]["detected"], number == 2);
            assert_eq!(facts["high_availability"]["detected"], number == 2);
        }
    }
}
