//! Whatever is given as a file and is none: each command says which, what is wrong with it and what to give instead, and
//! leaves nothing behind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use branchline_tests::binary;
use tempfile::TempDir;

/// A user without privileges: `nobody` of Debian.
const NOBODY: u32 = 65_534;
const PACKAGE: &str = "name = \"agent\"\nversion = \"1.0\"\ndescription = \"an agent\"\narchitectures = [\"all\"]\nformat = \
                       \"FORMAT\"\nselect = \"true\"\n";

const UNPACK: &str = "[[steps]]\naction = { unpack = { prefix = \"/opt/agent\" } }\n";

/// A directory with a bundle, and with things that are no files.
struct Desk {
    directory: TempDir,
    program: PathBuf,
}

impl Desk {
    fn new() -> Result<Self> {
        let desk = Self { directory: tempfile::tempdir()?, program: binary::branchline()? };
        desk.succeeds(&["identity", "--home", "home", "--listen", "127.0.0.1", "--out", "seat.json"])?;
        let site = ["--site", "shop", "--owner", "o", "--operator", "p", "--prefix", "127.0.0.0/24"];
        let seats = ["--station", "seat.json", "--headquarters", "seat.json"];
        desk.succeeds(&[&["init", "--bundle", "bundle"][..], &site, &seats].concat())?;
        for format in ["tar", "deb", "rpm"] {
            let steps = if format == "tar" { UNPACK } else { "" };
            let text = PACKAGE.replace("FORMAT", format) + steps;
            std::fs::write(desk.path(&format!("{format}.toml")), text)?;
        }
        std::fs::create_dir(desk.path("directory"))?;
        std::fs::write(desk.path("empty"), "")?;
        std::fs::write(desk.path("text"), "hello\n".repeat(200))?;
        Ok(desk)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.directory.path()).env("TMPDIR", self.directory.path());
        command
    }

    fn succeeds(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// The command fails with code 1 and says all of `words` on standard error.
    fn says(&self, arguments: &[&str], words: &[&str]) -> Result<()> {
        refuses(self.command(arguments), arguments, words)
    }

    /// Everything that lies here.
    fn listing(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.directory.path().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path.clone());
                }
                found.push(path);
            }
        }
        found.sort();
        found
    }
}

fn refuses(mut command: Command, arguments: &[&str], words: &[&str]) -> Result<()> {
    let output = command.output().with_context(|| format!("{arguments:?} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{arguments:?} ended with {}: {said}", output.status);
    ensure!(said.starts_with("error: ") && output.stdout.is_empty(), "{arguments:?}: {said}");
    for word in words {
        ensure!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
    }
    Ok(())
}

#[test]
fn a_payload_that_is_none_is_refused_before_anything_is_begun() -> Result<()> {
    let desk = Desk::new()?;
    let cases = [
        ("directory", "is a directory; name one file"),
        ("missing", "is not there; check the path"),
        ("empty", "is empty: there is nothing to install"),
        ("/dev/zero", "name a regular file"),
    ];
    let before = desk.listing();
    for (payload, words) in cases {
        desk.says(&["demo", "--payload", payload], &["the payload", payload, words])?;
    }
    assert_eq!(desk.listing(), before, "the demo left something behind");
    for (payload, words) in cases {
        let add = ["catalogue", "add", "--bundle", "bundle", "--package", "tar.toml", "--payload", payload];
        desk.says(&add, &["the payload", payload, words])?;
        desk.says(&["patch", "make", payload, "text", "--output", "patch"], &["the payload", payload, words])?;
    }
    for (format, words) in [
        ("tar", "it is not a tar archive, plain or compressed by gzip, xz or zstd"),
        ("deb", "is not a Debian package (.deb)"),
        ("rpm", "is not an RPM package"),
    ] {
        let package = format!("{format}.toml");
        let add = ["catalogue", "add", "--bundle", "bundle", "--package", &package, "--payload", "text"];
        desk.says(&add, &["the payload text", words, "which the definition's `format` says"])?;
    }
    let catalogue = std::fs::read_to_string(desk.path("bundle/catalogue/catalogue.json")).unwrap_or_default();
    ensure!(!catalogue.contains("agent"), "a package was added: {catalogue}");
    ensure!(!desk.path("patch").exists(), "a patch was written");
    Ok(())
}

#[test]
fn a_directory_in_the_place_of_a_file_is_named_with_what_to_give() -> Result<()> {
    let desk = Desk::new()?;
    let site = ["--site", "shop", "--owner", "o", "--operator", "p", "--prefix", "127.0.0.0/24"];
    let owner = std::fs::read_to_string(desk.path("seat.json"))?;
    let owner: serde_json::Value = serde_json::from_str(&owner)?;
    let owner = owner["node"].as_str().context("no node")?.to_owned();
    let init = |bundle, last: &[&'static str]| [&["init", "--bundle", bundle][..], &site, last].concat();
    let commands: Vec<Vec<&str>> = vec![
        vec!["catalogue", "add", "--bundle", "bundle", "--package", "directory", "--payload", "text"],
        vec![
            "catalogue",
            "add",
            "--bundle",
            "bundle",
            "--key",
            "directory",
            "--package",
            "tar.toml",
            "--payload",
            "text",
        ],
        vec!["charter", "show", "directory"],
        vec!["charter", "adopt", "--owner", &owner, "--home", "home", "directory"],
        vec!["charter", "take", "--home", "home", "directory"],
        vec!["charter", "move", "--bundle", "bundle", "--station", "directory"],
        init("bundle-2", &["--station", "directory", "--headquarters", "seat.json"]),
        init("bundle-3", &["--station", "seat.json", "--headquarters", "directory"]),
        init("bundle-4", &["--station", "seat.json", "--headquarters", "seat.json", "--options", "directory"]),
        vec!["identity", "--home", "home", "--out", "directory"],
        vec!["plan", "--descriptor", "directory", "--catalogue", "text", "--policy", "text", "--charter", "text"],
        vec!["publish", "--home", "home", "--bundle", "bundle", "--policy", "directory"],
        vec!["publish", "--home", "home", "--bundle", "bundle", "--bandwidth", "directory"],
        vec!["patch", "make", "directory", "text", "--output", "out"],
        vec!["survey", "--validate", "directory"],
        vec!["survey", "--against", "directory"],
        vec!["survey", "--out", "directory"],
        vec!["simulate", "directory"],
        vec!["replay", "directory"],
        vec!["sample-agent", "--config", "directory"],
    ];
    for arguments in &commands {
        desk.says(arguments, &["directory"]).and_then(|()| {
            let said = desk.command(arguments).output()?.stderr;
            let said = String::from_utf8_lossy(&said);
            ensure!(said.to_lowercase().contains("is a directory"), "{arguments:?}: {said}");
            ensure!(
                said.contains("name the file") || said.contains("name a file") || said.contains("name one file"),
                "{arguments:?}: {said}"
            );
            Ok(())
        })?;
    }
    // The other way round.
    desk.says(&["survey", "--signatures", "text"], &["text", "a directory is wanted there"])?;
    desk.says(&["status", "--home", "text"], &["text", "a directory is wanted there"])?;
    desk.says(&["run", "--home", "text"], &["there is no home directory text"])?;
    for bundle in ["bundle-2", "bundle-3"] {
        ensure!(!desk.path(bundle).join("charter.json").exists(), "{bundle} has a charter");
    }
    Ok(())
}

/// Root may read everything, so that the command is given as somebody else.
#[test]
fn a_file_that_may_not_be_read_is_named_with_what_to_do() -> Result<()> {
    let desk = Desk::new()?;
    let program = desk.path("branchline");
    // By another process: a file that this one has written cannot be run while one of its children is being started.
    let copied = Command::new("cp").arg(&desk.program).arg(&program).status()?;
    ensure!(copied.success(), "the program cannot be copied");
    for (path, mode) in [(desk.path("text"), 0o000), (desk.path(""), 0o755), (program.clone(), 0o755)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    let words = ["text", "Permission denied", "give the command as a user who may do that"];
    for arguments in
        [&["demo", "--payload", "text"][..], &["charter", "show", "text"], &["survey", "--validate", "text"]]
    {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(desk.directory.path()).env("TMPDIR", desk.directory.path());
        if is_root(&desk.path("empty"))? {
            command.uid(NOBODY).gid(NOBODY);
        }
        refuses(command, arguments, &words)?;
    }
    Ok(())
}

fn is_root(own_file: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(own_file) {
        Ok(metadata) => Ok(metadata.uid() == 0),
        Err(error) => bail!("{}: {error}", own_file.display()),
    }
}
