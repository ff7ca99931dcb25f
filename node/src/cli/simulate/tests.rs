use branchline_simulations::capacity::Resolution;
use clap::{CommandFactory, Parser};

use super::*;

#[derive(Debug, Parser)]
#[command(name = "branchline simulate", max_term_width = 100)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(words: &[&str]) -> Args {
    Line::try_parse_from(["branchline simulate"].iter().chain(words)).unwrap().args
}

fn fault(words: &[&str]) -> (u8, String) {
    let error = answer(args(words)).unwrap_err();
    let code = error.downcast_ref::<CommandError>().unwrap().exit_code();
    (code, error.to_string())
}

/// A scenario that is simulated in a moment.
const SMALL: &str = "
    seed = 3
    resolution = \"flow\"
    [payload]
    size_bytes = 10_000_000
    [headquarters]
    uplink_bits_per_second = 1e9
    [[sites]]
    count = 4
    hosts = 5
    wan_bits_per_second = 20e6
    lan_bits_per_second = 1e8
    install_seconds = { exponential_mean = 30 }
    sessions_limit = 2
";

struct Directory(tempfile::TempDir);

impl Directory {
    fn with_scenario(text: &str) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        std::fs::write(directory.0.path().join("small.toml"), text).unwrap();
        directory
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.path().join(name)).unwrap()
    }
}

#[test]
fn the_help_says_everything() {
    insta::assert_snapshot!(Line::command().render_long_help());
    let mut command = Line::command();
    insta::assert_snapshot!(command.find_subcommand_mut("merge").unwrap().render_long_help());
}

#[test]
fn wrong_command_lines_are_refused() {
    let lines: [&[&str]; 9] = [
        &[],
        &["a.toml", "--preset", "restaurants"],
        &["a.toml", "--shard", "1/2"],
        &["a.toml", "--sweep", "seed=1", "--shard", "3/2"],
        &["a.toml", "--set", "seed"],
        &["a.toml", "--sweep", "seed=1,[2"],
        &["--compare", "a.toml"],
        &["--compare", "a.toml", "b.toml", "--html", "x.html"],
        &["merge"],
    ];
    let refusals = lines.map(|words| {
        let error = Line::try_parse_from(["branchline simulate"].iter().chain(words)).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{words:?}");
        error.to_string().lines().next().unwrap().to_owned()
    });
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn each_kind_of_fault_has_its_words_and_its_exit_code() {
    let directory = Directory::with_scenario(SMALL);
    let small = directory.path("small.toml");
    std::fs::write(directory.path("odd.toml"), "seed = 3\nsede = 4\n").unwrap();
    std::fs::write(directory.path("part.json"), "{").unwrap();
    let cases: [(u8, Vec<String>); 9] = [
        (1, vec![directory.path("none.toml")]),
        (1, vec![small.clone(), "--html".to_owned(), directory.path("no/page.html")]),
        (2, vec!["--preset".to_owned(), "retail".to_owned()]),
        (2, vec!["--compare".to_owned(), small.clone(), "nothing".to_owned()]),
        (3, vec![directory.path("odd.toml")]),
        (3, vec![small.clone(), "--set".to_owned(), "sites.0.loss=2".to_owned()]),
        (3, vec![small.clone(), "--set".to_owned(), "sites.7.loss=0".to_owned()]),
        (3, vec![small, "--sweep".to_owned(), "sites.0.hosts=5,0".to_owned()]),
        (4, vec!["merge".to_owned(), directory.path("part.json")]),
    ];
    let root = directory.0.path().display().to_string();
    let said = cases.map(|(expected, words)| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (code, fault) = fault(&words);
        assert_eq!(code, expected, "{fault}");
        format!("{code}: {}", fault.replace(&root, "DIRECTORY"))
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn every_file_that_is_asked_for_is_written() {
    let directory = Directory::with_scenario(SMALL);
    let [scenario, html, csv, parquet, plots] =
        ["small.toml", "page.html", "hosts.csv", "hosts.parquet", "plots"].map(|name| directory.path(name));
    answer(args(&[&scenario, "--html", &html, "--csv", &csv, "--parquet", &parquet, "--plots", &plots])).unwrap();
    assert!(directory.read("page.html").contains("<svg"));
    assert_eq!(directory.read("hosts.csv").lines().count(), 21, "twenty hosts and the header");
    let names = ["complete", "use", "queue", "waits", "sites", "lifts"];
    assert!(names.iter().all(|name| directory.read(&format!("plots/{name}.svg")).starts_with("<svg xmlns")));
    assert!(std::fs::metadata(parquet).unwrap().len() > 500);
}

#[test]
fn the_answer_does_not_depend_on_the_threads() {
    let scenario = Scenario::from_toml(SMALL).unwrap();
    let figures = [1, 2, 5].map(|threads| {
        let threads = Threads::new(NonZeroUsize::new(threads));
        let simulated = simulate("small", &scenario, &Options::default(), threads).unwrap();
        assert!(simulated.outcome.run.wall_seconds > 0.0 && simulated.outcome.run.peak_memory_bytes > 1 << 20);
        let mut simulated = simulated;
        simulated.outcome.run = Default::default();
        serde_json::to_string(&simulated).unwrap()
    });
    assert!(figures.iter().all(|one| *one == figures[0]));
}

#[test]
fn the_json_is_one_object_with_the_promised_keys() {
    let scenario = Scenario::from_toml(SMALL).unwrap();
    let simulated = simulate("small", &scenario, &Options::default(), Threads::new(None)).unwrap();
    let text = serde_json::to_string_pretty(&simulated.outcome).unwrap();
    let keys: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("  \"")?.split_once('"')).map(|(key, _)| key).collect();
    let promised = [
        "makespan_seconds",
        "completed_hosts",
        "completion_seconds",
        "bytes",
        "wan_ratio",
        "queue",
        "sites",
        "addresses",
        "binding_term",
        "resolution",
        "inputs",
        "run",
    ];
    assert_eq!(keys, promised);
}

#[test]
fn a_sharded_sweep_is_merged_to_the_whole() {
    let scenario = Scenario::from_toml(SMALL).unwrap();
    let directory = Directory::with_scenario(SMALL);
    let asked = Asked::file(Path::new(&directory.path("small.toml"))).unwrap();
    let sweeps: Vec<Sweep> = ["sites.0.hosts=2,5,9", "seed=1,2"].map(|text| text.parse().unwrap()).into();
    let threads = Threads::new(NonZeroUsize::new(2));
    let run = |shard| run_sweep(&asked, &sweeps, shard, &Options::default(), threads).unwrap();
    let files: Vec<PathBuf> = (1..=4)
        .map(|index| {
            let path = directory.0.path().join(format!("shard-{index}.json"));
            std::fs::write(&path, run(Some(Shard { index, of: 4 })).to_text().unwrap()).unwrap();
            path
        })
        .collect();
    let merged = sweep::merge(&files).unwrap();
    let whole = run(None);
    assert_eq!(merged.to_text().unwrap(), whole.to_text().unwrap());
    let [merged, whole] = [merged, whole].map(|document| page::of_sweep(&Shown::new(document).unwrap()).unwrap());
    assert_eq!(merged, whole);
    assert_eq!(scenario.seed, 3);
}

#[test]
fn every_preset_runs() {
    for preset in PRESETS {
        let mut scenario = Scenario::from_toml(preset.text).unwrap();
        // The shape is kept and the number of sites is not: this shows that presets run, not how long they take.
        scenario.sites.iter_mut().for_each(|site| site.count = site.count.min(4));
        scenario.headquarters.concurrent_sites = scenario.headquarters.concurrent_sites.map(|sites| sites.min(4));
        scenario.resolution = Some(Resolution::Flow);
        let options = Options { lifts: false, calibration_sites: 0, hosts: false, ..Options::default() };
        let simulated = simulate(preset.name, &scenario, &options, Threads::new(None)).unwrap();
        assert!(simulated.outcome.completed_hosts as f64 > scenario.hosts_about() * 0.9, "{}", preset.name);
        let words = words::summary(preset.name, &scenario, &simulated);
        assert!(words.contains("complete after"), "{}: {words}", preset.name);
    }
}
