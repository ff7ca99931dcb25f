//! `branchline release`: sign what the public door gives away (R50a).
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use branchline_protocol::{
    charter::{FILE_SIGNATURE_NAMESPACE, FileSignature, PublicKey, Release, ReleasedFile},
    ids::Hash,
};
use ed25519_dalek::SigningKey;

use crate::{
    config::{Bundle, BundleKey},
    door::{sha256, sha256_of_file},
    survey::{assemble, read_signature_directory},
};

/// Sign the install tool and the survey script, which stations give away at their public doors
///
/// The owner's key signs, and no station holds it: who fetches a file with `branchline fetch`, or checks it with
/// `ssh-keygen -Y verify`, knows that the owner wants it, whoever served it. `init` signs the first release.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  branchline release --bundle /media/bundle                                   this binary and its survey script
  branchline release --bundle /media/bundle --tool x86/branchline --tool arm/branchline
  branchline release --bundle /media/bundle --signatures /etc/branchline/signatures
Then, at headquarters: branchline publish --release /media/bundle/release.json")]
pub struct Args {
    /// The offline bundle, whose owner's key signs
    #[arg(long)]
    bundle: PathBuf,
    /// An install tool; may be given again, for each kind of machine and each version in use [default: this binary]
    #[arg(long = "tool")]
    tools: Vec<PathBuf>,
    /// A directory of further survey signatures that stations add: the script with them is signed too; may be given again
    #[arg(long, value_name = "DIR")]
    signatures: Vec<PathBuf>,
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
    let release = sign_release(&bundle, &args.tools, &args.signatures)?;
    let (path, owner) = (bundle.path("release.json"), PublicKey::of(&bundle.key(BundleKey::Owner)?));
    let allowed_signer = format!("owner namespaces=\"{FILE_SIGNATURE_NAMESPACE}\" {}", owner.to_openssh());
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
        println!("  {}  {}", file.sha256, file.name);
    }
    println!("To check a file without Branchline, keep this line in a file `owner`:");
    println!("  {allowed_signer}");
    println!("and say: ssh-keygen -Y verify -f owner -I owner -n {FILE_SIGNATURE_NAMESPACE} -s FILE.sig < FILE");
    println!("Next, at headquarters: branchline publish --home HOME --release {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Signs the next release of a site: `tools` (none: this binary), its survey script, and that script with each directory of
/// further signatures.
///
/// # Errors
/// A file cannot be read, or there are too many.
pub fn sign_release(bundle: &Bundle, tools: &[PathBuf], signatures: &[PathBuf]) -> Result<Release> {
    let key = bundle.key(BundleKey::Owner)?;
    let this = std::env::current_exe().context("finding this program's own file")?;
    let tools = if tools.is_empty() { std::slice::from_ref(&this) } else { tools };
    let mut files: Vec<ReleasedFile> = Vec::new();
    for tool in tools {
        let open = || sha256_of_file(File::open(tool)?);
        let hash = open().with_context(|| format!("reading the install tool {}", tool.display()))?;
        add(&mut files, format!("install tool {}", tool.display()), hash, &key);
    }
    add(&mut files, "survey.sh".to_owned(), script_with(None)?, &key);
    for directory in signatures {
        let name = format!("survey.sh with {}", directory.display());
        add(&mut files, name, script_with(Some(directory))?, &key);
    }
    let charter = bundle.charter()?;
    let version = bundle.release()?.map_or(1, |release| release.version + 1);
    let release = Release { site: charter.site, version, files };
    bundle.sign_release(&release)?;
    Ok(release)
}

fn script_with(signatures: Option<&Path>) -> Result<Hash> {
    let further = signatures.map(read_signature_directory).transpose()?.unwrap_or_default();
    Ok(sha256(assemble(&further)?.text.as_bytes()))
}

fn add(files: &mut Vec<ReleasedFile>, name: String, sha256: Hash, key: &SigningKey) {
    if files.iter().all(|file| file.sha256 != sha256) {
        files.push(ReleasedFile { name, sha256, signature: FileSignature::sign(sha256, key).to_string() });
    }
}
