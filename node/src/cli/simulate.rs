//! `branchline simulate`: how long a rollout takes, what it costs the lines, what binds, and what if (R125).
use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use branchline_simulations::capacity::{Options, PRESETS, Scenario, Simulated};

use super::printer::table as printed;

mod axis;
#[cfg(test)]
mod book_tests;
mod compare;
mod engine;
mod error;
mod figures;
mod page;
mod plot;
#[cfg(test)]
mod sample;
mod settings;
mod source;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod words;

use engine::Threads;
use error::CommandError;
use plot::Plot;
use settings::{Setting, Sweep};
use source::Asked;
use sweep::{Document, Shard, Shown};

/// Say how long a rollout takes, what it costs the lines, and what binds
///
/// The scenario says what is rolled out, over which lines, to which sites. Sites are simulated by the product's own
/// machines under virtual time; the same scenario gives the same answer on every machine and any number of threads.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 there is an answer; 1 a file cannot be read or written; 2 the command line is wrong; \
                  3 the scenario is refused; 4 shards do not belong together."
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// The scenario, a TOML file
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["preset", "list_presets", "compare"])]
    scenario: Option<PathBuf>,
    /// Take a scenario that comes with the product
    #[arg(long, value_name = "NAME", conflicts_with = "scenario")]
    preset: Option<String>,
    /// Show the presets' names
    #[arg(long)]
    list_presets: bool,
    /// Show the scenario with every change and every default, and simulate nothing
    #[arg(long)]
    print_scenario: bool,
    /// Take another seed than the scenario's
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Change a figure, such as sites.0.hosts=200; lists count from 0, `*` is every entry
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Setting>,
    /// Simulate every value, such as sites.0.hosts=20,80,320; several sweeps make the cross product
    #[arg(long, value_name = "KEY=A,B,...", conflicts_with = "print_scenario")]
    sweep: Vec<Sweep>,
    /// Simulate one part of the sweep only, such as 3/20, for `simulate merge`
    #[arg(long, value_name = "I/N", requires = "sweep")]
    shard: Option<Shard>,
    /// Simulate two scenarios, each a file or a preset's name, and show what differs
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["scenario", "preset", "sweep", "html", "csv", "parquet", "plots", "print_scenario"])]
    compare: Vec<String>,
    #[command(flatten)]
    outputs: Outputs,
    /// How many threads simulate; as many as the machine has unless said otherwise
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,
    /// Sites that the flow resolution is fitted to and measured by; 0 leaves it as theory has it
    #[arg(long, value_name = "NUMBER", default_value_t = Options::default().calibration_sites)]
    calibration_sites: u32,
    /// Do not simulate what lifting each limit would gain, which takes about six more runs
    #[arg(long)]
    no_lifts: bool,
}

/// Where answers go beside the words.
#[derive(Debug, Default, clap::Args)]
struct Outputs {
    /// Print one JSON object instead of words
    #[arg(long)]
    json: bool,
    /// Write one page with plots and tables, which fetches nothing
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write one row for each host as CSV; of a sweep, one for each combination
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// The same as Parquet
    #[arg(long, value_name = "FILE")]
    parquet: Option<PathBuf>,
    /// Write every plot as an SVG file into this directory
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Put the shards of a sweep together; the answer is that of the whole sweep, byte for byte
    Merge {
        /// What `simulate --sweep ... --shard i/n --json` printed, a file for each shard
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        outputs: Outputs,
    },
}

/// Runs the command.
///
/// # Errors
/// Faults of the files, the scenario and the shards are printed here and have exit codes of their own; only what
/// cannot be put into words is left.
pub fn run(args: Args) -> Result<ExitCode> {
    match answer(args) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => match error.downcast_ref::<CommandError>() {
            Some(fault) => {
                let code = ExitCode::from(fault.exit_code());
                super::print_error(&error);
                Ok(code)
            }
            None => Err(error),
        },
    }
}

fn answer(args: Args) -> Result<()> {
    if args.list_presets {
        let rows = PRESETS.map(|preset| vec![preset.name.to_owned(), preset.about.to_owned()]);
        println!("{}", printed(&["PRESET", "WHAT IT IS"], &rows));
        return Ok(());
    }
    if let Some(Action::Merge { files, outputs }) = args.action {
        return show_sweep(&outputs, sweep::merge(&files)?);
    }
    let threads = Threads::new(args.threads);
    let hosts = args.sweep.is_empty() && (args.outputs.csv.is_some() || args.outputs.parquet.is_some());
    let options =
        Options { calibration_sites: args.calibration_sites, lifts: !args.no_lifts, hosts, ..Options::default() };
    let seed = args.seed.map(|seed| Setting::new("seed", &seed.to_string())).transpose()?;
    let settings: Vec<Setting> = args.set.iter().cloned().chain(seed).collect();
    if let [a, b] = args.compare.as_slice() {
        let side = |name: &String| compare_side(name, &settings, &options, threads);
        return show_comparison(args.outputs.json, &[side(a)?, side(b)?]);
    }
    let asked = match (&args.preset, &args.scenario) {
        (Some(name), _) => Asked::preset(name)?,
        (None, path) => Asked::file(path.as_deref().unwrap_or(Path::new("")))?,
    };
    let asked = asked.with(settings);
    if args.print_scenario {
        print!("{}", toml::to_string(&asked.scenario()?)?);
    } else if args.sweep.is_empty() {
        let scenario = asked.scenario()?;
        let simulated = simulate(&asked.origin, &scenario, &options, threads)?;
        show(&args.outputs, &asked.origin, &scenario, &simulated)?;
    } else {
        let document = run_sweep(&asked, &args.sweep, args.shard, &options, threads)?;
        show_sweep(&args.outputs, document)?;
    }
    Ok(())
}

fn simulate(origin: &str, scenario: &Scenario, options: &Options, threads: Threads) -> Result<Simulated, CommandError> {
    let fault = |fault| CommandError::Simulate { origin: origin.to_owned(), fault };
    engine::run(scenario, options, threads).map_err(fault)
}

fn compare_side(name: &str, settings: &[Setting], options: &Options, threads: Threads) -> Result<compare::Side> {
    let asked = Asked::file_or_preset(name)?.with(settings.iter().cloned());
    let scenario = asked.scenario()?;
    let outcome = simulate(&asked.origin, &scenario, options, threads)?.outcome;
    Ok(compare::Side { origin: asked.origin, scenario, outcome })
}

fn run_sweep(
    asked: &Asked,
    sweeps: &[Sweep],
    shard: Option<Shard>,
    options: &Options,
    threads: Threads,
) -> Result<Document> {
    let points = sweep::points_of(sweeps, shard);
    // Every combination is read before the first is simulated: a wrong value at the end would cost the whole run.
    let read = points.iter().map(|(_, values)| asked.at(sweeps, values)).collect::<Result<Vec<_>, _>>()?;
    let questions = BTreeMap::from([
        ("calibration_sites".to_owned(), options.calibration_sites.to_string()),
        ("lifts".to_owned(), options.lifts.to_string()),
    ]);
    let written = asked.scenario().map_or_else(|_| Ok(String::new()), |scenario| toml::to_string(&scenario))?;
    let mut document = Document::new(&asked.origin, &written, questions, sweeps, shard);
    for ((index, values), scenario) in points.iter().zip(&read) {
        let simulated = simulate(&asked.origin, scenario, options, threads)?;
        document.push(*index, values, &simulated)?;
    }
    Ok(document.reread()?)
}

fn show(outputs: &Outputs, origin: &str, scenario: &Scenario, simulated: &Simulated) -> Result<()> {
    if outputs.json {
        println!("{}", serde_json::to_string_pretty(&simulated.outcome)?);
    } else {
        print!("{}", words::summary(origin, scenario, simulated));
    }
    if let Some(path) = &outputs.html {
        write(path, &page::of_outcome(origin, scenario, &toml::to_string(scenario)?, simulated)?)?;
    }
    if let Some(path) = &outputs.csv {
        table::write_csv(path, table::hosts_in_parts(&simulated.hosts))?;
    }
    if let Some(path) = &outputs.parquet {
        table::write_parquet(path, table::hosts_in_parts(&simulated.hosts))?;
    }
    write_plots(outputs, &figures::plots(scenario, simulated))
}

fn show_sweep(outputs: &Outputs, document: Document) -> Result<()> {
    let text = document.to_text()?;
    let shown = Shown::new(document)?;
    if outputs.json {
        print!("{text}");
    } else {
        print!("{}", shown.text());
    }
    if let Some(path) = &outputs.html {
        write(path, &page::of_sweep(&shown)?)?;
    }
    if let Some(path) = &outputs.csv {
        table::write_csv(path, std::iter::once(shown.table()))?;
    }
    if let Some(path) = &outputs.parquet {
        table::write_parquet(path, std::iter::once(shown.table()))?;
    }
    write_plots(outputs, shown.plot().as_slice())
}

fn show_comparison(json: bool, sides: &[compare::Side; 2]) -> Result<()> {
    if json {
        println!("{:#}", compare::json(sides));
    } else {
        print!("{}", compare::text(sides));
    }
    Ok(())
}

fn write_plots(outputs: &Outputs, plots: &[Plot]) -> Result<()> {
    let Some(directory) = &outputs.plots else { return Ok(()) };
    let fault = |source| CommandError::Write { path: directory.clone(), source };
    fs::create_dir_all(directory).map_err(fault)?;
    for plot in plots {
        write(&directory.join(format!("{}.svg", plot.name)), &plot.file())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    fs::write(path, text).map_err(|source| CommandError::Write { path: path.to_owned(), source })
}
