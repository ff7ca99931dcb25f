//! `branchline replay`: go through a run of the fault simulation, event by event.
use std::{
    io::{BufRead, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use branchline_simulations::{
    faults::{Sabotage, record},
    recording::{Filter, Recording, Step, Stepper},
};
use serde_json::json;

use super::without_panic_messages;
use crate::recordings;

/// Go through a run of the fault simulation, event by event
///
/// WHAT is a recording that `branchline faults` left, or a seed, which is then run and recorded. Each event is shown with
/// its time in the world, to whom it happened and what followed; the state of every machine is known at every event.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  branchline replay faults-17.jsonl --step                 event by event; a question mark shows the commands
  branchline replay 17 --until dies --host till-2          up to a crash, and how till-2 stood then
  branchline replay 17 --host station                      what concerned the station
  branchline replay 17 --json | jq .event | sort | uniq -c  how often what happened")]
pub struct Args {
    /// A recording, or a seed
    #[arg(value_name = "WHAT")]
    what: String,
    /// Wait for a command after each event
    #[arg(long, conflicts_with = "json")]
    step: bool,
    /// Stop at the first event with this number, or whose text contains this
    #[arg(long, value_name = "EVENT")]
    until: Option<String>,
    /// Only what concerns this machine (till-0, station, headquarters, router), and its state at the end
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Run the seed with one thing broken on purpose
    #[arg(long, value_name = "WHAT")]
    sabotage: Option<Sabotage>,
    /// Print JSON: an object for each event, then one with the state that was asked for and how the run ended
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// There is no such recording, machine or event.
pub fn run(args: &Args) -> Result<ExitCode> {
    let recording = open(args)?;
    let known = Stepper::new(&recording, Filter::default()).machines();
    if let Some(name) = args.host.as_deref().filter(|name| !known.contains(name)) {
        bail!("this run knows of no machine {name:?}; it has {}", known.join(", "));
    }
    let stepper = Stepper::new(&recording, Filter { machine: args.host.clone() });
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let shown = if args.step {
        step_through(args, stepper, &recording, &mut input, &mut output)
    } else {
        show(args, stepper, &recording, &mut output)
    };
    match shown {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<std::io::Error>() => Err(error.context("writing to standard output")),
        shown => shown.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn open(args: &Args) -> Result<Recording> {
    let path = Path::new(&args.what);
    match args.what.parse() {
        Ok(seed) if !path.exists() => Ok(without_panic_messages(|| record(seed, args.sabotage))),
        _ if args.sabotage.is_some() => {
            bail!("--sabotage goes with a seed; {} would be a recording, which shows what was", path.display())
        }
        _ => recordings::read(path)
            .with_context(|| format!("{:?} is no seed (a number) and no recording that can be read", args.what)),
    }
}

fn show(args: &Args, mut stepper: Stepper<'_>, recording: &Recording, output: &mut impl Write) -> Result<()> {
    let last = args.until.as_ref().map(|until| {
        let mut ahead = stepper.clone();
        ahead.until(until).map(|step| step.number)
    });
    if last == Some(None) {
        bail!("no event has or contains {:?}", args.until.as_deref().unwrap_or_default());
    }
    let last = last.flatten().unwrap_or(u64::MAX);
    while stepper.step().is_none_or(|step| step.number < last) {
        let Some(step) = stepper.forward() else { break };
        if args.json {
            writeln!(output, "{}", serde_json::to_string(step)?)?;
        } else {
            writeln!(output, "{}", step.text())?;
        }
    }
    let machine = args.host.as_deref().or(stepper.step().map(|step| step.who.as_str()).filter(|who| !who.is_empty()));
    if args.json {
        let state = machine.map(|machine| stepper.state_of(machine));
        let end = json!({ "machine": machine, "state": state, "failure": recording.header.failure });
        writeln!(output, "{end}")?;
        return Ok(());
    }
    if let Some(machine) = machine.filter(|_| args.until.is_some() || args.host.is_some()) {
        write_state(&stepper, machine, output)?;
    }
    if args.until.is_none() {
        write_end(recording, output)?;
    }
    Ok(())
}

fn write_state(stepper: &Stepper<'_>, machine: &str, output: &mut impl Write) -> Result<()> {
    let place = stepper.step().map_or(0, |step| step.number);
    writeln!(output, "{machine} after event {place}:")?;
    for (name, value) in stepper.state_of(machine) {
        writeln!(output, "  {name}: {value}")?;
    }
    Ok(())
}

fn write_end(recording: &Recording, output: &mut impl Write) -> Result<()> {
    match &recording.header.failure {
        Some(failure) => {
            writeln!(output, "failed: {}: {}: {}", failure.kind.word(), failure.property, failure.what)?;
        }
        None => writeln!(output, "everything held, and everybody in the core is done")?,
    }
    Ok(())
}

const COMMANDS: &str = "  Enter     the next event
  b         the event before
  u TEXT    on to the first event that contains TEXT, or has this number
  s [NAME]  the state of a machine here; without a name, of the one that the event concerns
  m         the machines
  o         what the seed turned on
  q         end";

/// Commands come from the input, a line each, so that a script can step as well as a person.
fn step_through(
    args: &Args,
    mut stepper: Stepper<'_>,
    recording: &Recording,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> Result<()> {
    if let Some(until) = &args.until {
        write_step(stepper.until(until), "no such event", output)?;
    }
    writeln!(output, "{} events; Enter for the next, ? for the commands", recording.steps.len())?;
    loop {
        write!(output, "> ")?;
        output.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (command, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        match command {
            "" | "n" => {
                let step = stepper.forward();
                write_step(step, "that was the last event", output)?;
                if step.is_none() {
                    write_end(recording, output)?;
                }
            }
            "b" => write_step(stepper.back(), "that was the first event", output)?,
            "u" => write_step(stepper.until(rest.trim()), "no later event contains that", output)?,
            "s" => {
                let named = Some(rest.trim()).filter(|name| !name.is_empty()).or(args.host.as_deref());
                let machine = named.or(stepper.step().map(|step| step.who.as_str()));
                match machine.filter(|machine| !machine.is_empty()) {
                    Some(machine) => write_state(&stepper, machine, output)?,
                    None => writeln!(output, "of which machine? {}", stepper.machines().join(", "))?,
                }
            }
            "m" => writeln!(output, "{}", stepper.machines().join(", "))?,
            "o" => writeln!(output, "{}", recording.header.options)?,
            "q" => return Ok(()),
            _ => writeln!(output, "{COMMANDS}")?,
        }
    }
}

fn write_step(step: Option<&Step>, otherwise: &str, output: &mut impl Write) -> Result<()> {
    match step {
        Some(step) => writeln!(output, "{}", step.text())?,
        None => writeln!(output, "{otherwise}")?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use branchline_simulations::recording::{Failure, Header, RECORDING_FORMAT};

    fn recording() -> Recording {
        let step = |number: u64, event: &str, who: &str, note: &str, changes: &[(&str, &str)]| Step {
            number,
            at_microseconds: number * 1_500_000,
            event: event.to_owned(),
            who: who.to_owned(),
            detail: String::new(),
            notes: Some(note.to_owned()).filter(|note| !note.is_empty()).into_iter().collect(),
            changes: [(
                who.to_owned(),
                changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            )]
            .into(),
        };
        let steps = vec![
            step(1, "Restart", "till-0", "till-0 starts", &[("process", "up, life 1")]),
            step(2, "Report", "station", "", &[("slots held", "0 of 1"), ("session of till-0", "Open")]),
            step(3, "Crash", "till-0", "till-0 dies", &[("process", "down, life 1")]),
        ];
        let failure = Failure {
            kind: branchline_simulations::checkers::Kind::Liveness,
            property: "everybody in the core is done in the end".to_owned(),
            what: "till-0 is dead".to_owned(),
        };
        let header = Header {
            format: RECORDING_FORMAT,
            seed: 17,
            sabotage: None,
            options: "hosts: 1".to_owned(),
            failure: Some(failure),
            steps: 3,
        };
        Recording { header, steps }
    }

    fn args(until: Option<&str>, host: Option<&str>) -> Args {
        let (until, host) = (until.map(str::to_owned), host.map(str::to_owned));
        Args { what: "17".to_owned(), step: false, until, host, sabotage: None, json: false }
    }

    fn shown(args: &Args) -> String {
        let recording = recording();
        let stepper = Stepper::new(&recording, Filter { machine: args.host.clone() });
        let mut output = Vec::new();
        show(args, stepper, &recording, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn the_whole_run_is_shown() {
        insta::assert_snapshot!(shown(&args(None, None)));
    }

    #[test]
    fn one_machine_is_shown_up_to_an_event_with_its_state() {
        insta::assert_snapshot!(shown(&args(Some("dies"), Some("till-0"))));
    }

    #[test]
    fn a_script_steps_through() {
        let recording = recording();
        let (mut input, mut output) = ("\nn\nb\nu dies\ns\ns station\nm\no\n?\nn\nq\n".as_bytes(), Vec::new());
        let stepper = Stepper::new(&recording, Filter::default());
        step_through(&args(None, None), stepper, &recording, &mut input, &mut output).unwrap();
        insta::assert_snapshot!(String::from_utf8(output).unwrap());
    }
}
