//! Recordings of the fault simulation as files: one JSON object a line, the head first.
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use branchline_simulations::recording::{Header, RECORDING_FORMAT, Recording, Step};

/// Writes a recording.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, recording: &Recording) -> Result<()> {
    let file = File::create(path).with_context(|| format!("making the recording {}", path.display()))?;
    let mut file = BufWriter::new(file);
    let mut line = |text: String| writeln!(file, "{text}").with_context(|| format!("writing {}", path.display()));
    line(serde_json::to_string(&recording.header)?)?;
    for step in &recording.steps {
        line(serde_json::to_string(step)?)?;
    }
    file.flush().with_context(|| format!("writing {}", path.display()))
}

/// Reads a recording.
///
/// # Errors
/// The file cannot be read, is none, is of a later format, or is cut.
pub fn read(path: &Path) -> Result<Recording> {
    let file = File::open(path).with_context(|| format!("opening the recording {}", path.display()))?;
    let mut lines = BufReader::new(file).lines();
    let first = lines.next().with_context(|| format!("{} is empty", path.display()))?;
    let first = first.with_context(|| format!("reading {}", path.display()))?;
    let header: Header = serde_json::from_str(&first).with_context(|| format!("{} is no recording", path.display()))?;
    if header.format > RECORDING_FORMAT {
        bail!(
            "{} has format {}, this program reads up to {RECORDING_FORMAT}; use the program that wrote it",
            path.display(),
            header.format
        );
    }
    let mut steps: Vec<Step> = Vec::new();
    for (number, line) in lines.enumerate() {
        let place = || format!("{}, line {}", path.display(), number + 2);
        steps.push(serde_json::from_str(&line.with_context(place)?).with_context(place)?);
    }
    if steps.len() as u64 != header.steps {
        bail!("{} is cut: {} of {} steps are there; record the seed again", path.display(), steps.len(), header.steps);
    }
    Ok(Recording { header, steps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use branchline_simulations::faults::{Sabotage, record};

    #[test]
    fn a_recording_comes_back_from_its_file_and_a_cut_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.jsonl");
        let recording = record(1, Some(Sabotage::DoubledMapping));
        write(&path, &recording).unwrap();
        assert_eq!(read(&path).unwrap(), recording);
        let text = std::fs::read_to_string(&path).unwrap();
        let cut = text.lines().take(10).collect::<Vec<_>>().join("\n");
        std::fs::write(&path, cut).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is cut: 9 of"));
        std::fs::write(&path, "{\"format\":1}").unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("is no recording"));
        let later = text.replacen("\"format\":1", "\"format\":2", 1);
        std::fs::write(&path, later).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("has format 2"));
    }
}
