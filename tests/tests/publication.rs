//! `branchline publish` of a catalogue that is none of the owner's making, or not the newest: the command fails and says
//! why, and headquarters, station and hosts go on with the catalogue that they have (R122, bad input of issue 2).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use branchline::config::{Bundle, BundleKey, read_document};
use branchline_protocol::catalogue::{Catalogue, Package};
use branchline_protocol::charter::{PublicKey, Signed};
use branchline_protocol::ids::{Hash, PackId};
use branchline_tests::kept_demo::{KeptDemo, tree};
use ed25519_dalek::SigningKey;
use serde_json::Value;

const HOMES: [&str; 3] = ["headquarters", "station", "hosts/till-1/home"];

/// A running site, its catalogue with the key that signs it, and a directory for bad ones.
struct Desk {
    demo: KeptDemo,
    signed: Signed<Catalogue>,
    catalogue: Catalogue,
    key: SigningKey,
}

impl Desk {
    fn new() -> Result<Self> {
        let demo = KeptDemo::start(1)?;
        let key = Bundle::open(&demo.path("bundle"))?.key(BundleKey::Catalogue)?;
        let signed: Signed<Catalogue> = read_document(&demo.path("bundle/catalogue/catalogue.json"))?;
        let catalogue = signed.verify(PublicKey::of(&key))?;
        Ok(Self { demo, signed, catalogue, key })
    }

    /// The catalogue with a change, signed by `key`, in a directory of its own beside links to all packs.
    fn changed(&self, name: &str, key: &SigningKey, change: impl FnOnce(&mut Catalogue)) -> Result<PathBuf> {
        let mut catalogue = self.catalogue.clone();
        change(&mut catalogue);
        self.directory(name, &serde_json::to_string(&Signed::sign(&catalogue, key))?)
    }

    fn directory(&self, name: &str, json: &str) -> Result<PathBuf> {
        let directory = self.demo.path(name);
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("catalogue.json"), json)?;
        std::os::unix::fs::symlink(self.demo.path("bundle/catalogue/packs"), directory.join("packs"))?;
        Ok(directory)
    }

    /// What the nodes say of the catalogue that they hold, and the host of what is installed.
    fn held(&self) -> Result<Vec<Value>> {
        let mut held = Vec::new();
        for home in HOMES {
            let status: Value = self.demo.json(home, &["status"])?;
            let version = &status["sites"][0]["catalogue_version"];
            ensure!(version.is_u64(), "{home} has no catalogue: {status:#}");
            held.push(version.clone());
        }
        let plans: Value = self.demo.json("station", &["plan", "--all"])?;
        held.push(plans["hosts"][0]["hash"].clone());
        ensure!(held[3].is_string(), "{plans:#}");
        Ok(held)
    }

    /// The command fails with code 1 and one error that says `words`; no node has another catalogue or another pack.
    fn is_refused(&self, what: &str, catalogue: &Path, words: &[&str]) -> Result<()> {
        let before = (self.held()?, tree(&self.demo.path("headquarters/packs"))?);
        let output = Command::new(self.demo.program())
            .args(["publish", "--json", "--catalogue"])
            .arg(catalogue)
            .arg("--home")
            .arg(self.demo.path("headquarters"))
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        println!("{what}: {said}");
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{what}: {output:?}");
        ensure!(said.starts_with("error: ") && !said.contains("panicked"), "{what}: {said}");
        for word in words.iter().copied().chain([catalogue.display().to_string().as_str()]) {
            ensure!(said.contains(word), "{what} does not say {word:?}: {said}");
        }
        // Documents spread within a second or two: a bad one would have.
        std::thread::sleep(std::time::Duration::from_secs(2));
        ensure!((self.held()?, tree(&self.demo.path("headquarters/packs"))?) == before, "{what} changed something");
        Ok(())
    }
}

#[test]
fn demo_site_keeps_its_catalogue_when_a_bad_one_is_published() -> Result<()> {
    let desk = Desk::new()?;
    let name = desk.catalogue.packages[0].definition.name.clone();
    let version = desk.catalogue.version;

    let text = serde_json::to_string(&desk.signed)?;
    ensure!(text.contains("1.0.0"), "{text}");
    let damaged = desk.directory("damaged", &text.replacen("1.0.0", "1.0.1", 1))?;
    desk.is_refused("a changed catalogue", &damaged, &["the signature of the catalogue does not hold"])?;

    let stranger = SigningKey::from_bytes(&[7; 32]);
    let foreign = desk.changed("foreign", &stranger, |catalogue| catalogue.version += 1)?;
    let wanted = PublicKey::of(&desk.key).to_string();
    desk.is_refused("an unknown key", &foreign, &["the catalogue is signed by", &wanted])?;

    let twin = desk
        .changed("twin", &desk.key, |catalogue| catalogue.packages[0].definition.description = "another".to_owned())?;
    let words = format!("version {version} of the catalogue was seen with another content");
    desk.is_refused("two contents under one version", &twin, &[&words])?;

    let half = desk.directory("half", &text[..text.len() / 2])?;
    desk.is_refused("half a file", &half, &["catalogue"])?;

    let expired = desk.changed("expired", &desk.key, |catalogue| {
        catalogue.version += 1;
        catalogue.expires_at = Some(branchline_protocol::time::UnixSeconds(1_000_000_000));
    })?;
    desk.is_refused("an expired catalogue", &expired, &["has expired; publish a new one"])?;

    let doubled = desk.changed("doubled", &desk.key, |catalogue| {
        catalogue.version += 1;
        let again = catalogue.packages[0].clone();
        catalogue.packages.push(again);
    })?;
    desk.is_refused("one package twice", &doubled, &["is signed, but not usable", &name])?;

    let missing = desk.changed("missing", &desk.key, |catalogue| {
        catalogue.version += 1;
        let payload = &mut catalogue.packages[0].payload;
        payload.pack = PackId(Hash::of(b"no such pack"));
    })?;
    desk.is_refused("a pack that nobody has", &missing, &["the pack of", &name, "nothing is published"])?;

    let mixed = Mixed::of(&desk)?;
    mixed.sign(&desk, |packages| packages[0].payload.pack = PackId(Hash::of(b"no such pack either")))?;
    desk.is_refused(
        "a new pack beside a missing one",
        &mixed.directory,
        &["the pack of", &name, "nothing is published"],
    )?;
    ensure!(!mixed.is_at_headquarters(&desk)?, "the pack that is there was copied all the same");

    let nothing = desk.demo.path("nothing");
    desk.is_refused("no directory", &nothing, &["No such file or directory"])?;

    // A good one is taken after all that, and makes the one before it an old one.
    let newer = desk.changed("newer", &desk.key, |catalogue| catalogue.version += 1)?;
    desk.demo.run("headquarters", &["publish", "--catalogue", &newer.display().to_string()])?;
    for home in HOMES {
        desk.demo.wait_for_catalogue(home, version + 1)?;
    }
    let old = desk.demo.path("bundle/catalogue");
    let words = format!("version {version} of the catalogue is older than version {}", version + 1);
    desk.is_refused("an old catalogue", &old, &[&words])?;
    let listed: Value = serde_json::from_slice(
        &Command::new(desk.demo.program())
            .args(["catalogue", "list", "--json", "--catalogue"])
            .arg(&newer)
            .output()?
            .stdout,
    )?;
    ensure!(listed["version"] == desk.held()?[0], "{listed:#}");

    // With nothing missing the new pack is copied: that it was not before was the refusal's doing.
    mixed.sign(&desk, |_| {})?;
    desk.demo.run("headquarters", &["publish", "--catalogue", &mixed.directory.display().to_string()])?;
    ensure!(mixed.is_at_headquarters(&desk)?, "the new pack is not copied");
    desk.demo.kill_node("hosts/till-1/home").context("the host's node still ran")
}

/// A catalogue directory with a package more than the site's, and its pack.
struct Mixed {
    directory: PathBuf,
    catalogue: Catalogue,
    pack: PackId,
}

impl Mixed {
    fn of(desk: &Desk) -> Result<Self> {
        let bundle = desk.demo.path("another-bundle");
        runs(Command::new("cp").arg("-a").arg(desk.demo.path("bundle")).arg(&bundle))?;
        let (definition, payload) = (desk.demo.path("addition.toml"), desk.demo.path("addition.tar"));
        let text = "name = \"addition\"\nversion = \"1.0.0\"\ndescription = \"for no host\"\n\
                    architectures = [\"amd64\", \"arm64\"]\nformat = \"tar\"\nselect = \"false\"\n\
                    [[steps]]\naction = { unpack = { prefix = \"/opt/addition\" } }\n";
        std::fs::write(&definition, text)?;
        runs(Command::new("tar").arg("-cf").arg(&payload).arg("-C").arg(desk.demo.path("")).arg("addition.toml"))?;
        let mut add = Command::new(desk.demo.program());
        add.args(["catalogue", "add", "--bundle"]).arg(&bundle).arg("--package").arg(definition);
        runs(add.arg("--payload").arg(payload))?;
        let directory = bundle.join("catalogue");
        let signed: Signed<Catalogue> = read_document(&directory.join("catalogue.json"))?;
        let mut catalogue = signed.verify(PublicKey::of(&desk.key))?;
        catalogue.version += 10;
        let [_, addition] = &catalogue.packages[..] else { anyhow::bail!("{:?}", catalogue.packages) };
        let pack = addition.payload.pack;
        ensure!(directory.join(format!("packs/{pack}.manifest")).is_file(), "the new pack is not in the directory");
        Ok(Self { directory, catalogue, pack })
    }

    /// Writes the catalogue with a change of its packages.
    fn sign(&self, desk: &Desk, change: impl FnOnce(&mut [Package])) -> Result<()> {
        let mut catalogue = self.catalogue.clone();
        change(&mut catalogue.packages);
        let json = serde_json::to_string(&Signed::sign(&catalogue, &desk.key))?;
        Ok(std::fs::write(self.directory.join("catalogue.json"), json)?)
    }

    fn is_at_headquarters(&self, desk: &Desk) -> Result<bool> {
        let files = tree(&desk.demo.path("headquarters/packs"))?;
        Ok(files.iter().any(|(path, _)| path.to_string_lossy().contains(&self.pack.to_string())))
    }
}

fn runs(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
