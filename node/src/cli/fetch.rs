//! `branchline fetch`: what a public door gives away, checked (R50a).
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use branchline_protocol::charter::{DoorFile, JoinToken, PublicKey, Signed};

use crate::{
    config::write_atomically,
    door::{DoorClient, sha256},
};

/// Fetch install tool and survey script from a station's public door, and check that the owner has signed them
///
/// The token names the door, and is not used up. It names the owner too, but a station has made it: --owner is the way to be
/// sure of a station that may be captured. Files are written only where their signature holds; it lies beside them, for
/// `ssh-keygen -Y verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The token: the whole line that `branchline token` printed
    token: String,
    /// The owner's public key, as `branchline init` printed it
    #[arg(long, value_name = "KEY")]
    owner: Option<PublicKey>,
    /// The directory to write `branchline` and `survey.sh` into; made where it is missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Fetch this one only
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What may be fetched alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// The install tool: the binary `branchline`
    Tool,
    /// The survey script `survey.sh`
    Script,
}

impl Only {
    fn is(self, kind: DoorFile) -> bool {
        matches!((self, kind), (Self::Tool, DoorFile::InstallTool) | (Self::Script, DoorFile::SurveyScript))
    }
}

/// Runs the command.
///
/// # Errors
/// The token is damaged or names another owner, the door cannot be reached, a file is not signed by the owner, or cannot be
/// written. What was written before that is whole and signed.
pub fn run(args: Args) -> Result<ExitCode> {
    let (_, token) = Signed::<JoinToken>::from_text(&args.token)?;
    if let Some(owner) = args.owner
        && owner.root_hash() != token.root
    {
        bail!("the token names another owner than {owner}: whoever made it is not a station of that owner");
    }
    super::block_on(fetch(&args, &token))??;
    if args.owner.is_none() && !args.json {
        println!("The station that made the token says who the owner is; --owner KEY would not take its word for it.");
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(args: &Args, token: &JoinToken) -> Result<()> {
    let door = DoorClient::new(token.door, token.door_fingerprint);
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let mut fetched = Vec::new();
    for kind in DoorFile::ALL.into_iter().filter(|kind| args.only.is_none_or(|only| only.is(*kind))) {
        let (bytes, signature) = door.get_signed(kind, token.root).await?;
        let at = args.out.join(match kind {
            DoorFile::InstallTool => "branchline",
            DoorFile::SurveyScript => "survey.sh",
        });
        write_atomically(&with_sig(&at), signature.to_string().as_bytes(), 0o644)?;
        write_atomically(&at, &bytes, 0o755)?;
        let (hash, signer) = (sha256(&bytes), signature.signer());
        if args.json {
            fetched.push(serde_json::json!({ "file": at, "sha256": hash, "signed_by": signer }));
        } else {
            println!("{hash}  {}  signed by {signer}", at.display());
        }
    }
    if args.json {
        println!("{:#}", serde_json::Value::Array(fetched));
    }
    Ok(())
}

fn with_sig(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}
