//! `branchline patch`: patches between payload files, without a catalogue.
use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Result;
use serde_json::json;

use crate::catalogue::{apply_patch, make_patch};

/// Make and apply patches between payload files, to see what an update would move
///
/// `branchline catalogue add` makes the patches that hosts use; this command makes the same ones without a catalogue.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the patch from one payload (.deb, tar, tar.gz, tar.xz, tar.zst) to another
    Make {
        /// The payload that the patch needs
        base: PathBuf,
        /// The payload that it makes
        target: PathBuf,
        /// Where the patch is written
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Apply a patch to the payload that it needs; what comes is the target's normal form, decompressed
    Apply {
        /// The payload that the patch needs
        base: PathBuf,
        /// The patch
        patch: PathBuf,
        /// Where the target is written
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// A file is missing, damaged or not the patch's base.
pub fn run(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    match args.command {
        Command::Make { base, target, output, json } => {
            let made = make_patch(&base, &target, &output)?;
            let seconds = started.elapsed().as_secs_f64();
            if json {
                println!("{:#}", json!({ "patch": made, "seconds": seconds }));
                return Ok(ExitCode::SUCCESS);
            }
            let [copied, differences, dictionary] = made.files;
            println!("base      {}  ({} bytes)", made.base, made.base_bytes);
            println!("target    {}  ({} bytes)", made.target, made.target_bytes);
            println!(
                "files     {copied} copied, {differences} as differences, {dictionary} with the base as dictionary"
            );
            println!("whole     {} bytes as a pack, {} as the file was", made.whole_pack_bytes, made.file_bytes);
            println!("patch     {} bytes as a pack, made in {seconds:.1} s: {}", made.pack_bytes, output.display());
        }
        Command::Apply { base, patch, output, json } => {
            let applied = apply_patch(&base, &patch, &output)?;
            let seconds = started.elapsed().as_secs_f64();
            if json {
                println!("{:#}", json!({ "target": applied, "seconds": seconds }));
                return Ok(ExitCode::SUCCESS);
            }
            println!("target    {}  ({} bytes)", applied.target, applied.target_bytes);
            println!("written   {} in {seconds:.1} s, every byte proved", output.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
