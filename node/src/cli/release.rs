//! `branchline release`: sign what the public door gives away (R50a).
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use branchline_protocol::{
    charter::{DoorFile, FileSignature, PublicKey, Release, ReleasedFile},
    ids::Hash,
};

use crate::{
    config::{Bundle, BundleKey},
    door::{sha256, sha256_of_file},
    survey::{assemble, read_signature_directory},
};

/// Sign the install tool and the survey script, which stations give away at their public doors
///
/// The owner's key signs, and no station holds it: who fetches a file with `branchline fetch --owner KEY`, or checks it with
/// `ssh-keygen -Y verify`, knows that the owner wants it, whoever served it. `init` signs the first release. A release
/// replaces the one before it: name the tools and scripts of every version that stations still run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  branchline release --bundle /media/bundle                                   this binary and its survey script
  branchline release --bundle /media/bundle --tool x86/branchline --tool arm/branchline
  branchline release --bundle /media/bundle --tool new/branchline --tool old/branchline --script old/survey.sh
  branchline release --bundle /media/bundle --signatures /etc/branchline/signatures
Then, at headquarters: branchline publish --release /media/bundle/release.json")]
pub struct Args {
    /// The offline bundle, whose owner's key signs
    #[arg(long)]
    bundle: PathBuf,
    /// An install tool; may be given again, for each kind of machine and each version in use [default: this binary]
    #[arg(long = "tool")]
    tools: Vec<PathBuf>,
    /// A survey script as it is, for example of another version of Branchline (`survey --print-script`); may be given again.
    /// This binary's own is always signed
    #[arg(long = "script", value_name = "FILE")]
    scripts: Vec<PathBuf>,
    /// A directory of further survey signatures that stations add: the script with them is signed too; may be given again
    #[arg(long, value_name = "DIR")]
    signatures: Vec<PathBuf>,
    /// The release's version [default: one more than the bundle's newest]
    #[arg(long)]
    version: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// There is no bundle, or a file cannot be read.
pub fn run(args: Args) -> Result<ExitCode> {
    let bundle = Bundle::open(&args.bundle)?;
    let release = sign_release(&bundle, args.files()?, args.version)?;
    let (path, owner) = (bundle.path("release.json"), PublicKey::of(&bundle.key(BundleKey::Owner)?));
    let [tool, script] = DoorFile::ALL.map(DoorFile::namespace);
    let allowed_signer = format!("owner namespaces=\"{tool},{script}\" {}", owner.to_openssh());
    if args.json {
        let said = serde_json::json!({
            "site": release.site, "version": release.version, "release": path, "allowed_signer": allowed_signer,
            "files": release.files,
        });
        println!("{said:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("release version {} for site {}:", release.version, release.site);
    for file in &release.files {
        println!("  {}  {}  {}", file.sha256, file.kind, file.name);
    }
    println!("To check a file without Branchline, keep this line in a file `owner`:");
    println!("  {allowed_signer}");
    println!("and say: ssh-keygen -Y verify -f owner -I owner -n {tool} -s install-tool.sig < install-tool");
    println!("    or: ssh-keygen -Y verify -f owner -I owner -n {script} -s survey.sh.sig < survey.sh");
    println!("Next, at headquarters: branchline publish --home HOME --release {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// A file to be released: what it is, its name for people, and its SHA-256.
pub struct Released(DoorFile, String, Hash);

/// This binary and its survey script.
///
/// # Errors
/// The binary cannot be read.
pub fn this_binary() -> Result<Vec<Released>> {
    let this = std::env::current_exe().context("finding this program's own file")?;
    Ok(vec![tool(&this)?, script_with(None)?])
}

/// Signs the next release of a site.
///
/// # Errors
/// There are too many files, `version` is not higher than the bundle's newest, or the bundle cannot be written.
pub fn sign_release(bundle: &Bundle, files: Vec<Released>, version: Option<u64>) -> Result<Release> {
    let key = bundle.key(BundleKey::Owner)?;
    let newest = bundle.release()?.map_or(0, |release| release.version);
    let version = version.unwrap_or(newest + 1);
    ensure!(version > newest, "the bundle holds release version {newest}; --version must be higher");
    let mut signed: Vec<ReleasedFile> = Vec::new();
    for Released(kind, name, sha256) in files {
        if signed.iter().all(|file| (file.kind, file.sha256) != (kind, sha256)) {
            let signature = FileSignature::sign(kind, sha256, &key).to_string();
            signed.push(ReleasedFile { kind, name, sha256, signature });
        }
    }
    let release = Release { site: bundle.charter()?.site, version, files: signed };
    bundle.sign_release(&release)?;
    Ok(release)
}

impl Args {
    /// The files to sign.
    fn files(&self) -> Result<Vec<Released>> {
        let mut files = if self.tools.is_empty() { this_binary()? } else { vec![script_with(None)?] };
        for path in &self.tools {
            files.push(tool(path)?);
        }
        for path in &self.scripts {
            files.push(Released(DoorFile::SurveyScript, path.display().to_string(), hash_of(path)?));
        }
        for directory in &self.signatures {
            files.push(script_with(Some(directory))?);
        }
        Ok(files)
    }
}

fn tool(path: &Path) -> Result<Released> {
    Ok(Released(DoorFile::InstallTool, path.display().to_string(), hash_of(path)?))
}

fn hash_of(path: &Path) -> Result<Hash> {
    File::open(path).and_then(sha256_of_file).with_context(|| format!("reading {}", path.display()))
}

fn script_with(signatures: Option<&Path>) -> Result<Released> {
    let further = signatures.map(read_signature_directory).transpose()?.unwrap_or_default();
    let name = signatures.map_or("survey.sh".to_owned(), |path| format!("survey.sh with {}", path.display()));
    Ok(Released(DoorFile::SurveyScript, name, sha256(assemble(&further)?.text.as_bytes())))
}
