//! The command line: one file per subcommand.
use std::{
    io::{ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

mod approvals;
mod catalogue;
mod charter;
mod demo;
mod demo_router;
mod faults;
mod fetch;
mod identity;
mod init;
mod installer;
mod join;
mod nat;
mod node_arguments;
mod packs;
mod patch;
mod plan;
mod printer;
mod publish;
mod release;
mod replay;
mod report;
mod run;
mod sample_agent;
mod sessions;
mod simulate;
mod status;
pub mod survey;
mod token;
mod transfers;

pub use printer::table;

/// Gets software onto every machine of a site behind a thin line, and knows that it works there.
///
/// A site needs a charter (`branchline init`), a running headquarters and station (`branchline run`), and hosts that
/// join with a token (`branchline join`). `branchline demo` shows the whole of it on this machine.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Charter(charter::Args),
    Catalogue(catalogue::Args),
    Plan(plan::Args),
    /// Show or make this machine's identity, and the seat that a charter names it by
    Identity(identity::Args),
    Token(token::Args),
    Join(join::Args),
    Fetch(fetch::Args),
    Run(run::Args),
    /// Look at this machine and describe it in one XML document
    Survey(survey::Args),
    Installer(installer::Args),
    Demo(demo::Args),
    #[command(hide = true)]
    DemoRouter(demo_router::Args),
    Release(release::Args),
    Publish(publish::Args),
    Sessions(sessions::Args),
    Approvals(approvals::Args),
    Nat(nat::Args),
    Packs(packs::Args),
    Patch(patch::Args),
    Report(report::Args),
    Status(status::Args),
    Simulate(simulate::Args),
    Transfers(transfers::Args),
    SampleAgent(sample_agent::Args),
    Faults(faults::Args),
    Replay(replay::Args),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Parses the command line, runs the command, and gives the exit code: 0 done, 1 failed (the reason is on standard
/// error), 2 a wrong command line; `faults` has a code of its own for each kind of failure.
pub fn main() -> ExitCode {
    crate::demo::end_with_parent();
    end_where_output_is_lost();
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// `print!` panics where nobody reads standard output any more, or its disk is full. That is no defect of the command: it
/// ends with an error, and silently where a reader such as `head` had enough.
fn end_where_output_is_lost() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match panic.payload_as_str() {
        Some(text) if text.starts_with("failed printing to stdout") => {
            if !text.contains("Broken pipe") {
                // Standard error may be lost as well.
                let _ = writeln!(std::io::stderr(), "error: {text}; what was printed is not complete");
            }
            std::process::exit(1);
        }
        _ => usual(panic),
    }));
}

/// Runs something whose panics are findings that it reports itself.
fn without_panic_messages<T>(run: impl FnOnce() -> T) -> T {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = run();
    std::panic::set_hook(usual);
    result
}

/// Says on standard error what went wrong, and why.
fn print_error(error: &anyhow::Error) {
    let colour = std::io::stderr().is_terminal();
    let (start, end) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    eprintln!("{start}error{end}: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    if let Some(advice) = advice(error) {
        eprintln!("  {advice}");
    }
}

/// What to do where the system's own words say only what it does not do.
fn advice(error: &anyhow::Error) -> Option<&'static str> {
    let fault = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>())?;
    match fault.kind() {
        ErrorKind::IsADirectory => Some("a file is wanted there: name the file instead of its directory"),
        ErrorKind::NotADirectory => Some("a directory is wanted there, or in the middle of that path"),
        ErrorKind::PermissionDenied => Some("give the command as a user who may do that, or change the file's mode"),
        _ => None,
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Init(args) => init::run(args),
        Command::Charter(args) => charter::run(args),
        Command::Catalogue(args) => catalogue::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Identity(args) => identity::run(args),
        Command::Token(args) => token::run(args),
        Command::Join(args) => join::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Run(args) => run::run(args),
        Command::Survey(args) => survey::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::DemoRouter(args) => block_on(demo_router::run(args))?,
        Command::Release(args) => release::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Sessions(args) => sessions::run(args),
        Command::Approvals(args) => approvals::run(args),
        Command::Nat(args) => nat::run(args),
        Command::Packs(args) => packs::run(&args),
        Command::Patch(args) => patch::run(args),
        Command::Report(args) => report::run(args),
        Command::Status(args) => status::run(args),
        Command::Transfers(args) => transfers::run(args),
        Command::Installer(args) => installer::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::SampleAgent(args) => sample_agent::run(args),
        Command::Faults(args) => faults::run(args),
        Command::Replay(args) => replay::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "branchline", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The runtime for commands that talk or serve.
fn block_on<F: Future>(future: F) -> Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(future))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
