//! Shells, made-up roots and the schema, for the tests of the survey.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use branchline::survey::{Script, assemble};
use branchline_protocol::survey::{Descriptor, XSD};

#[path = "../../../tests/src/required.rs"]
pub mod required;

/// The shells that are here of those that the script promises to run under (R40), each as a command line.
pub fn shells() -> Vec<Vec<String>> {
    let promised = [&["dash"][..], &["bash"], &["ksh"], &["busybox", "sh"]].into_iter().filter(|command| {
        let here = is_here(command[0]);
        if !here {
            required::skip(&format!("the survey under {}", command.join(" ")), "it is not installed");
        }
        here
    });
    promised.map(|command| command.iter().map(|&word| word.to_owned()).collect()).collect()
}

fn is_here(program: &str) -> bool {
    Command::new(program).args(["-c", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// An implementation of awk that stands first in the search path.
pub struct Awk {
    pub name: String,
    directory: Option<tempfile::TempDir>,
}

impl Awk {
    pub fn search_path(&self) -> String {
        let path = std::env::var("PATH").unwrap();
        match &self.directory {
            Some(directory) => format!("{}:{path}", directory.path().display()),
            None => path,
        }
    }
}

/// The system's awk, and every other implementation that is here.
pub fn awks() -> Vec<Awk> {
    let mut awks = vec![Awk { name: "the system's awk".into(), directory: None }];
    for program in ["busybox", "gawk", "mawk", "original-awk"] {
        let Some(place) = find(program) else { continue };
        let directory = tempfile::tempdir().unwrap();
        symlink(place, directory.path().join("awk")).unwrap();
        awks.push(Awk { name: program.into(), directory: Some(directory) });
    }
    awks
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap();
    path.split(':').map(|directory| Path::new(directory).join(program)).find(|place| place.is_file())
}

pub fn script_file(script: &Script) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(script.text.as_bytes()).unwrap();
    file
}

/// Runs the script under a shell, without a terminal.
pub fn survey(shell: &[String], arguments: &[&str]) -> Output {
    let file = script_file(&assemble(&[]).unwrap());
    Command::new(&shell[0]).args(&shell[1..]).arg(file.path()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The descriptor that a run wrote; it must have succeeded, and hold to the schema by both readers.
pub fn descriptor_of(output: &Output) -> Descriptor {
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{messages}");
    assert!(!messages.contains("awk:"), "{messages}");
    if let Some((valid, complaint)) = schema_verdict(&output.stdout) {
        assert!(valid, "{complaint}");
    }
    Descriptor::parse(&output.stdout).unwrap()
}

/// What xmllint says of a document, if xmllint is here.
pub fn schema_verdict(document: &[u8]) -> Option<(bool, String)> {
    let mut schema = tempfile::NamedTempFile::new().unwrap();
    schema.write_all(XSD.as_bytes()).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(document).unwrap();
    let output =
        Command::new("xmllint").args(["--nonet", "--noout", "--schema"]).arg(schema.path()).arg(file.path()).output();
    match output {
        Ok(output) => Some((output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => {
            required::skip("the XSD's verdict", &format!("xmllint cannot be run ({error})"));
            None
        }
    }
}

/// The document without what differs from one moment to the next: the time, and free space.
pub fn same_apart_from_time(document: &[u8]) -> String {
    let text = String::from_utf8(document.to_vec()).unwrap();
    let text = blank(&text, " taken_at=\"");
    blank(&text, " free_bytes=\"")
}

fn blank(text: &str, attribute: &str) -> String {
    let mut parts = text.split(attribute);
    let mut blanked = parts.next().unwrap().to_owned();
    for part in parts {
        blanked += attribute;
        blanked += &part[part.find('"').unwrap()..];
    }
    blanked
}

/// A made-up root directory.
pub struct Root {
    directory: tempfile::TempDir,
}

impl Root {
    pub fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn argument(&self) -> &str {
        self.path().to_str().unwrap()
    }

    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let place = self.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let place = self.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(target, place).unwrap();
    }

    fn debian(hostname: &str) -> Self {
        let root = Self::empty();
        root.file(
            "usr/lib/os-release",
            "ID=debian\nVERSION_ID=\"12\"\nVERSION=\"12 (bookworm)\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
        );
        root.link("etc/os-release", "../usr/lib/os-release");
        root.file("etc/hostname", format!("{hostname}\n"));
        root.file("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        root
    }

    pub fn with_network_storage() -> Self {
        let root = Self::debian("files-1");
        root.file(
            "etc/fstab",
            "# a comment nas:/no /no nfs defaults\n\
             /dev/sda1 / ext4 defaults 0 1\n\
             nas.example.org:/export/data\t/srv/data nfs4 rw,hard 0 0\n\
             //files/share /mnt/with\\040space cifs credentials=/etc/c,password=hunter2 0 0\n",
        );
        root.file("proc/mounts", "nas.example.org:/export/data /srv/data nfs4 rw 0 0\nproc /proc proc rw 0 0\n");
        root.file("etc/multipath.conf", "multipaths {\n  multipath {\n    wwid 3600508b4\n  }\n}\n");
        root.file("etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:abc\n");
        root.file(
            "etc/iscsi/nodes/iqn.2001-04.com.example:disk1/10.0.0.5,3260,1/default",
            "node.session.auth.password = hunter2\n",
        );
        root.file(
            "var/lib/dpkg/status",
            "Package: nfs-common\nStatus: install ok installed\nVersion: 1:2.6.2-4\nDescription: a\n Version: 9\n\n\
             Package: gone\nStatus: deinstall ok config-files\nVersion: 1.0\n\n\
             Package: bash\nStatus: install ok installed\nVersion: 5.2.15-2\n",
        );
        root
    }

    pub fn with_cluster() -> Self {
        let root = Self::debian("db-1");
        root.file(
            "etc/corosync/corosync.conf",
            "totem {\n  version: 2\n  cluster_name: databases\n  interface {\n    name: not-a-member\n  }\n}\n\
             nodelist {\n  node {\n    ring0_addr: 10.0.0.1\n    name: db-1\n    nodeid: 1\n  }\n\
             \x20 node {\n    ring0_addr: 10.0.0.2\n    name: db-2\n  }\n  node {\n    ring0_addr: 10.0.0.3\n  }\n}\n",
        );
        root.file(
            "var/lib/pacemaker/cib/cib.xml",
            "<cib><configuration><nodes><node id=\"1\" uname=\"db-1\"/><node id=\"2\" uname=\"db-2\"/></nodes>\
             <resources><primitive id=\"address\" class=\"ocf\"/></resources></configuration></cib>",
        );
        root.file(
            "etc/keepalived/keepalived.conf",
            "vrrp_instance VI_1 {\n  authentication {\n    auth_pass keepalived-secret\n  }\n  virtual_ipaddress {\n    10.0.0.100/24 dev eth0\n  }\n}\n",
        );
        root.file(
            "etc/drbd.d/r0.res",
            "resource r0 {\n  on db-1 { address 10.0.0.1:7789; }\n  on db-2 {\n    address 10.0.0.2:7789;\n  }\n}\n",
        );
        root.file(
            "etc/slurm/slurm.conf",
            "ClusterName=batch\nSlurmctldHost=ctl\nNodeName=DEFAULT CPUs=2\nNodeName=n[1-4] CPUs=2\n",
        );
        root.file("etc/mysql/conf.d/galera.cnf", "[mysqld]\nwsrep_cluster_name = \"shop\"\nwsrep-cluster-address=gcomm://10.0.0.1,10.0.0.2\nwsrep_sst_auth=root:hunter2\n");
        root
    }

    /// A root whose files hold everything that is awkward.
    pub fn hostile() -> Self {
        let root = Self::empty();
        let outside = "outside-secret";
        root.file("etc/hostname", b"\x1b[31mhost]]>\x07\nsecond\n");
        root.file(
            "etc/os-release",
            [
                b"ID='a&b'\r\nPRETTY_NAME=\"<\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e> \\\" ' ]]> &amp;\"\nVERSION=\"bad\xff\xfe bytes \xc3\x28\"\n".as_slice(),
                b"VERSION_ID=",
                &[b'9'; 3000],
            ]
            .concat(),
        );
        root.file("var/real-machine-id", "inside-the-root\n");
        root.link("etc/machine-id", "/var/real-machine-id");
        let secret = root
            .path()
            .parent()
            .unwrap()
            .join(format!("{}-{outside}", root.path().file_name().unwrap().to_str().unwrap()));
        fs::write(&secret, format!("resource {outside} {{\n}}\n")).unwrap();
        root.link("etc/drbd.conf", &format!("../../{}", secret.file_name().unwrap().to_str().unwrap()));
        root.link("etc/ha.d/ha.cf", "ha.cf");
        let mut fstab =
            b"srv:/a\x01b<&>\"' /mnt/\xff]]> nfs x 0 0\nhttps://joe:s3cr3t@example.org/dav /dav davfs x\n".to_vec();
        fstab.extend(std::iter::repeat_n(b'x', 2 << 20));
        root.file("etc/fstab", fstab);
        root.file("etc/corosync/corosync.conf", b"}}}{{{ node { name: \xf0\x28\n}\x00\x00\nnodelist {");
        root.file(
            "var/lib/dpkg/status",
            b"Package: <x>\nStatus: install ok installed\nVersion: \"&\x02\xff\n\nPackage:\n\n\n",
        );
        root.file("proc/meminfo", "MemTotal:         524288 kB\n");
        root.file("proc/cpuinfo", "processor\t: 0\nprocessor\t: 1\nprocessor\t: 2\n");
        root.file(
            "proc/net/tcp",
            "  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A 0\n   1: 0100007F:238C 00000000:0000 0A 0\n   2: 0100007F:1F90 00000000:0000 01 0\n   3: junk:ZZZZ x 0A\n",
        );
        for (pid, command) in [
            (101, &b"/usr/bin/mysql\0-uroot\0-phunter2\0db"[..]),
            (102, b"/opt/agent\0--password\0two words\0--verbose"),
            (103, b"curl\0-u\0joe:s3cr3t\0-H\0Authorization: Bearer t0ken\0https://joe:s3cr3t@host/path"),
            (104, b"sh\0-c\0DB_PASSWORD=hunter2 exec run\nnext <line> & \"more\" \xff\x1b[0m"),
            (105, b"worker\0--x"),
            (106, b"worker\0--x"),
            (107, b""),
            (108, b"nginx: master process /usr/sbin/nginx"),
            (109, b"zabbix_agentd\0--tls-psk-secret=t0ken"),
        ] {
            root.file(&format!("proc/{pid}/cmdline"), [command, if command.is_empty() { b"" } else { b"\0" }].concat());
            root.file(&format!("proc/{pid}/stat"), format!("{pid} (a) b) S 1 1 0\n"));
        }
        root.file("proc/109/comm", "zabbix_agentd\n");
        root
    }
}
