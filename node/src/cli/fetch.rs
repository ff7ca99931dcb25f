//! `branchline fetch`: what a public door gives away, checked (R50a).
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use branchline_protocol::charter::{JoinToken, Signed};

use crate::{
    config::write_atomically,
    door::{DoorClient, sha256},
};

/// Fetch install tool and survey script from a station's public door, and check that the owner has signed them
///
/// The token names door and owner, and is not used up. Files are written only where their signature holds; it lies beside
/// them, for `ssh-keygen -Y verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The token: the whole line that `branchline token` printed
    token: String,
    /// The directory to write `branchline` and `survey.sh` into; made where it is missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Fetch this one only
    #[arg(long, value_enum)]
    only: Option<DoorFile>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a door gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DoorFile {
    /// The install tool: the binary `branchline`
    Tool,
    /// The survey script `survey.sh`
    Script,
}

impl DoorFile {
    const ALL: [Self; 2] = [Self::Tool, Self::Script];

    /// Where it is at the door, and its name on the disk.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Tool => ("/install-tool", "branchline"),
            Self::Script => ("/survey.sh", "survey.sh"),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The token is damaged, the door cannot be reached, a file is not signed by the owner, or cannot be written.
pub fn run(args: Args) -> Result<ExitCode> {
    let files = super::block_on(fetch(&args))??;
    if args.json {
        println!("{:#}", serde_json::Value::Array(files));
        return Ok(ExitCode::SUCCESS);
    }
    for file in files {
        println!(
            "{}  {}  signed by the owner",
            super::printer::text(&file["sha256"]),
            super::printer::text(&file["file"])
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(args: &Args) -> Result<Vec<serde_json::Value>> {
    let (_, token) = Signed::<JoinToken>::from_text(&args.token)?;
    let door = DoorClient::new(token.door, token.door_fingerprint);
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let mut fetched = Vec::new();
    for file in DoorFile::ALL.into_iter().filter(|file| args.only.is_none_or(|only| only == *file)) {
        let (path, name) = file.names();
        let (bytes, signature) = door.get_signed(path, token.root).await?;
        let at = args.out.join(name);
        write_atomically(&with_sig(&at), signature.to_string().as_bytes(), 0o644)?;
        write_atomically(&at, &bytes, 0o755)?;
        fetched.push(serde_json::json!({ "file": at, "sha256": sha256(&bytes), "signed_by": signature.signer() }));
    }
    Ok(fetched)
}

fn with_sig(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}
