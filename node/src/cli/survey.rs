//! `branchline survey`: look at this machine and describe it (R40-R47).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use branchline_protocol::limits;
use branchline_protocol::survey::{Descriptor, Difference};
use serde_json::json;

use crate::survey::{Script, SurveyRequest, assemble, read_signature_directory, take};

/// Look at this machine and describe it in one XML document.
///
/// The survey is a plain shell script that you can read first (`--print-script`), run by hand, or let this command run. It needs no
/// root, changes nothing and sends nothing; passwords and tokens on command lines are taken out. Without `--out` the descriptor goes to
/// standard output.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  branchline survey --print-script | less          read what it will do
  branchline survey --out host.xml                 survey this machine
  branchline survey --root /mnt --out disk.xml     survey the system on a mounted disk
  branchline survey --against host.xml             what changed since that survey
  branchline survey --validate host.xml            is this file a descriptor?")]
pub struct Args {
    /// Write the result to FILE, all or nothing, instead of standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Survey the system whose root directory is DIR
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Print the survey script and run nothing
    #[arg(long, conflicts_with_all = ["root", "against", "validate", "json"])]
    pub print_script: bool,
    /// Add every signature (NN-name.sh) that lies in DIR
    #[arg(long, value_name = "DIR")]
    pub signatures: Option<PathBuf>,
    /// Show the difference between the earlier descriptor OLD and the machine as it is now
    #[arg(long, value_name = "OLD")]
    pub against: Option<PathBuf>,
    /// Check FILE against the schema instead of surveying
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root", "against", "signatures", "out"])]
    pub validate: Option<PathBuf>,
    /// Print one JSON object: the content hash, the facts that rules see, and the difference if one was asked for
    #[arg(long)]
    pub json: bool,
}

/// Runs the subcommand. Exit code 0 when done; errors are for the caller to print.
///
/// # Errors
/// A root that is not there, a survey that failed, an invalid descriptor, or output that cannot be written.
pub fn run(arguments: &Args) -> Result<ExitCode> {
    if let Some(file) = &arguments.validate {
        return validate(file, arguments.json);
    }
    let further = match &arguments.signatures {
        Some(directory) => read_signature_directory(directory)?,
        None => Vec::new(),
    };
    let script = assemble(&further)?;
    if arguments.print_script {
        write_result(arguments.out.as_deref(), script.text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    // The old descriptor is read first: if it is unreadable, nobody has to wait for a survey to hear so.
    let before = arguments.against.as_deref().map(read_descriptor).transpose()?;
    survey(arguments, &script, before.as_ref())
}

fn survey(arguments: &Args, script: &Script, before: Option<&Descriptor>) -> Result<ExitCode> {
    let survey = take(&script.text, &SurveyRequest::of_root(&arguments.root))?;
    if !survey.messages.is_empty() {
        eprintln!("{}", survey.messages);
    }
    let descriptor = survey.descriptor;
    let difference = before.map(|before| Difference::between(before, &descriptor));
    if let Some(file) = &arguments.out {
        write_file(file, descriptor.print().as_bytes())?;
    }
    let text = if arguments.json {
        let mut object = json!({
            "content_hash": descriptor.content_hash().to_string(),
            "script_hash": script.hash.to_string(),
            "out": arguments.out,
            "facts": descriptor.facts(),
        });
        if let Some(difference) = difference {
            object["difference"] = serde_json::to_value(&difference.changes)?;
        }
        format!("{object:#}\n")
    } else if let Some(difference) = difference {
        if difference.is_empty() { "nothing changed\n".to_owned() } else { difference.to_string() }
    } else if let Some(file) = &arguments.out {
        eprintln!("surveyed {}: {}", descriptor.host.identity.hostname, file.display());
        String::new()
    } else {
        descriptor.print()
    };
    write_result(None, text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn validate(file: &Path, as_json: bool) -> Result<ExitCode> {
    let descriptor = read_descriptor(file)?;
    let hash = descriptor.content_hash().to_string();
    let hostname = &descriptor.host.identity.hostname;
    let text = if as_json {
        format!("{:#}\n", json!({ "valid": true, "hostname": hostname, "content_hash": hash }))
    } else {
        format!("{} is a valid descriptor of {hostname}, taken at {}\n", file.display(), descriptor.taken_at)
    };
    write_result(None, text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a descriptor from a file without reading more of it than a descriptor may have.
///
/// # Errors
/// A file that cannot be read, and one that is no descriptor, with the place of the fault.
pub fn read_descriptor(file: &Path) -> Result<Descriptor> {
    let bytes = read_bounded(file).with_context(|| format!("cannot read the descriptor {}", file.display()))?;
    Descriptor::parse(&bytes)
        .with_context(|| format!("{} is not a valid descriptor; survey the host again", file.display()))
}

fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(limits::DESCRIPTOR_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_result(file: Option<&Path>, bytes: &[u8]) -> Result<()> {
    if let Some(file) = file {
        return write_file(file, bytes);
    }
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        // Whoever reads may stop early, as `head` and `less` do.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes a file all or nothing: beside it first, synced, then renamed to its place.
fn write_file(file: &Path, bytes: &[u8]) -> Result<()> {
    if file.is_dir() {
        bail!("cannot write {}: it is a directory; name a file with --out", file.display());
    }
    let directory = match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => bail!("cannot write {}: it is not a file name", file.display()),
    };
    let cannot_write = || {
        format!(
            "cannot write {}: is its directory there, writable and not full? Nothing was left behind",
            file.display()
        )
    };
    let mut unfinished =
        tempfile::Builder::new().prefix(".branchline-").tempfile_in(directory).with_context(cannot_write)?;
    unfinished.write_all(bytes).and_then(|()| unfinished.as_file().sync_all()).with_context(cannot_write)?;
    unfinished.persist(file).map_err(|error| error.error).with_context(cannot_write)?;
    fs::File::open(directory).and_then(|directory| directory.sync_all()).with_context(cannot_write)
}
