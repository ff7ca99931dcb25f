use super::*;
use crate::cli::simulate::sample;

fn sweeps() -> Vec<Sweep> {
    ["sites.0.hosts=20,80,320", "payload.size_bytes=1000,2000"].map(|text| text.parse().unwrap()).into()
}

/// A sweep whose figures have as many digits as figures can have.
fn document(shard: Option<Shard>) -> Document {
    let (_, simulated) = sample::restaurants();
    let asked = BTreeMap::from([("calibration_sites".to_owned(), "16".to_owned())]);
    let mut document = Document::new("rollout.toml", "seed = 1\n", asked, &sweeps(), shard);
    for (index, values) in points_of(&sweeps(), shard) {
        let mut simulated = simulated.clone();
        simulated.outcome.makespan_seconds = 1000.0 / (index as f64 + 3.1);
        simulated.outcome.wan_ratio = 1.0 + 0.1 / (index as f64 + 7.7);
        document.push(index, &values, &simulated).unwrap();
    }
    document
}

fn shards(of: usize) -> Vec<(String, Document)> {
    let shard = |index| (format!("shard-{index}.json"), document(Some(Shard { index, of })));
    (1..=of).map(shard).collect()
}

/// As if written to files and read again.
fn through_files(shards: Vec<(String, Document)>) -> Vec<(String, Document)> {
    let through = |(name, document): (String, Document)| {
        let text = document.to_text().unwrap();
        let read = read(&name, &text).unwrap();
        (name, read)
    };
    shards.into_iter().map(through).collect()
}

fn fault(shards: Vec<(String, Document)>) -> String {
    let error = put_together(shards).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    error.to_string()
}

#[test]
fn shards_make_the_same_bytes_as_the_whole() {
    let whole = document(None).reread().unwrap();
    for of in [1, 2, 4, 6, 9] {
        let mut parts = through_files(shards(of));
        parts.reverse();
        let merged = put_together(parts).unwrap();
        assert_eq!(merged.to_text().unwrap(), whole.to_text().unwrap(), "{of} shards");
        let (merged, whole) = (Shown::new(merged).unwrap(), Shown::new(whole.clone()).unwrap());
        assert_eq!(merged.text(), whole.text());
        assert_eq!(merged.plot().unwrap().file(), whole.plot().unwrap().file());
    }
}

#[test]
fn every_point_is_in_one_shard() {
    let mut points: Vec<_> = (1..=4).flat_map(|index| points_of(&sweeps(), Some(Shard { index, of: 4 }))).collect();
    points.sort();
    assert_eq!(points, points_of(&sweeps(), None));
}

#[test]
fn a_sweep_is_shown_as_a_table_and_a_plot() {
    let shown = Shown::new(document(None)).unwrap();
    insta::assert_snapshot!(shown.text());
    let plot = shown.plot().unwrap();
    assert_eq!(plot.lines.len(), 2, "a line for each value of the second figure");
    assert_eq!(plot.lines[1].name, "payload.size_bytes=2000");
    assert_eq!(plot.lines[1].points[1], (80.0, 1000.0 / 6.1));
    assert!(Shown::new(document(Some(Shard { index: 1, of: 2 }))).unwrap().plot().is_none());
    let columns = shown.table();
    assert_eq!((columns.len(), columns[0].0.as_str()), (17, "sites.0.hosts"));
}

#[test]
fn shards_that_do_not_belong_together_are_named() {
    let mut missing = shards(4);
    missing.remove(2);
    missing.remove(0);
    let mut twice = shards(2);
    twice[1] = ("copy.json".to_owned(), twice[0].1.clone());
    let mut other = shards(2);
    other[1].1.scenario = "seed = 2\n".to_owned();
    let mut division = shards(2);
    division[1] = shards(3).remove(1);
    let mut torn = shards(2);
    torn[0].1.points.pop();
    let faults = [missing, twice, other, division, torn, Vec::new()].map(fault);
    let text = document(None).to_text().unwrap();
    let unread = [&text[..text.len() / 2], "{}", &text.replace("\"branchline_sweep\": 1", "\"branchline_sweep\": 9")];
    let unread = unread.map(|text| read("shard-1.json", text).unwrap_err().to_string());
    insta::assert_snapshot!(faults.into_iter().chain(unread).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_shard_is_written_as_a_fraction() {
    assert_eq!("2/5".parse(), Ok(Shard { index: 2, of: 5 }));
    for wrong in ["0/5", "6/5", "2", "a/b", "1/0"] {
        assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
    }
}
