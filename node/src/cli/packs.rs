//! `branchline packs`: what is where, and bringing payloads to a site ahead of its sessions.
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use branchline_protocol::{
    content::{Pack, assemble},
    ids::PackId,
    wire::control::Staging,
};
use serde_json::Value;

use super::printer;
use crate::runtime::{self, NodeCommand, PackSelector, PacksCommand};

/// List, show, stage and export packs
///
/// PACK is a pack's identity, a package's name, or NAME@VERSION. At the station `prepare` and `stage` speak for all
/// members of its site, elsewhere for this node alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's home directory
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline", global = true)]
    home: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every pack of the catalogue and of this node, and how far it is here
    List,
    /// One pack, and who served whom as this node saw it
    Show {
        /// The pack
        pack: PackSelector,
    },
    /// Make ready: manifest, room on the disk, neighbours; a member whose disk is too small says so now
    Prepare {
        /// The pack
        pack: PackSelector,
        /// On this node only, also where it is the station
        #[arg(long)]
        here: bool,
    },
    /// Bring the pack now, ahead of the sessions that need it
    Stage {
        /// The pack
        pack: PackSelector,
        /// To this node only, also where it is the station
        #[arg(long)]
        here: bool,
    },
    /// Tell members that come later nothing of the pack any more; what is fetched stays
    Unstage {
        /// The pack
        pack: PackSelector,
    },
    /// Wait until the pack is complete on this node
    Wait {
        /// The pack
        pack: PackSelector,
    },
    /// Write a complete pack's image, every chunk verified, into a file; works without a running node
    Export {
        /// The pack's identity
        pack: PackId,
        /// The file
        #[arg(long)]
        out: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// No node runs there, it knows no such pack, or the disk fails.
pub fn run(args: &Args) -> Result<ExitCode> {
    let command = match &args.command {
        Command::List => PacksCommand::List,
        Command::Show { pack } => PacksCommand::Show(pack.clone()),
        Command::Prepare { pack, here } => {
            PacksCommand::Stage { pack: pack.clone(), staging: Staging::Prepared, here: *here }
        }
        Command::Stage { pack, here } => {
            PacksCommand::Stage { pack: pack.clone(), staging: Staging::Fetched, here: *here }
        }
        Command::Unstage { pack } => PacksCommand::Unstage(pack.clone()),
        Command::Wait { pack } => PacksCommand::Wait(pack.clone()),
        Command::Export { pack, out } => return export(&args.home, *pack, out).map(|()| ExitCode::SUCCESS),
    };
    let answer: Value = match args.command {
        Command::Wait { .. } => runtime::call_patiently(&args.home, &NodeCommand::Packs(command))?,
        _ => runtime::call(&args.home, &NodeCommand::Packs(command))?,
    };
    Ok(print(&args.command, &answer, args.json))
}

fn print(command: &Command, answer: &Value, json: bool) -> ExitCode {
    let refusals: Vec<&Value> =
        answer["members"].as_array().into_iter().flatten().filter(|member| !member["refusal"].is_null()).collect();
    if json {
        println!("{answer:#}");
    } else if matches!(command, Command::List) {
        let columns = [
            ("PACK", "pack"),
            ("PACKAGE", "package"),
            ("VERSION", "version"),
            ("BYTES", "bytes"),
            ("HERE", "bytes_here"),
            ("STATE", "state"),
            ("STAGED", "staged"),
        ];
        printer::print_list(answer, false, &columns, "the catalogue is empty, and so is the store");
    } else if let Some(members) = answer["members"].as_array() {
        println!("asked {} members", members.len());
        for member in &refusals {
            println!("  {}: {}", printer::field(member, "node"), printer::field(member, "refusal"));
        }
    } else if matches!(command, Command::Show { .. }) {
        let columns = [
            ("PEER", "peer"),
            ("DIRECTION", "direction"),
            ("PLACE", "place"),
            ("FRAMES", "frames"),
            ("BYTES", "bytes"),
            ("TWICE", "duplicate_bytes"),
        ];
        for name in ["pack", "package", "version", "bytes", "state", "staged", "progress"] {
            println!("{name:<10} {}", printer::field(answer, name));
        }
        printer::print_list(&answer["transfers"], false, &columns, "nothing of it was transferred by this node");
    } else {
        println!("{}", printer::text(answer));
    }
    if refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Beside the file first, so that a pack that is not whole leaves nothing behind.
fn export(home: &Path, pack: PackId, out: &Path) -> Result<()> {
    let manifest = home.join(format!("packs/{pack}.manifest"));
    let bytes = std::fs::read(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let pack = Pack::decode_as(pack, &bytes).with_context(|| format!("{} is damaged", manifest.display()))?;
    let path = home.join(format!("packs/{}.pack", pack.id()));
    let frames = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let frame = |index| -> io::Result<Vec<u8>> {
        let mut frame = vec![0; usize::try_from(pack.frame_length(index)).unwrap_or(0)];
        frames.read_exact_at(&mut frame, pack.frame_offset(index).unwrap_or(0))?;
        Ok(frame)
    };
    let directory = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let part =
        tempfile::NamedTempFile::new_in(directory).with_context(|| format!("writing in {}", directory.display()))?;
    let mut sink = BufWriter::new(part);
    assemble(&pack, frame, &mut sink)
        .with_context(|| format!("pack {} is not complete in {}", pack.id(), path.display()))?;
    sink.flush()?;
    let part = sink.into_inner().map_err(io::IntoInnerError::into_error)?;
    part.persist(out).with_context(|| format!("writing {}", out.display()))?;
    Ok(())
}
