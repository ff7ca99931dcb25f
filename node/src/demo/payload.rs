//! The demo's payloads: tars with the running program itself, and with a file of the user's.
use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result};

use crate::{agent::Failure, config::open_input};

/// The definition of the agent's package.
pub const SAMPLE_AGENT: &str = include_str!("packages/sample-agent.toml");

/// A payload with its package definition, both as files.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The package definition.
    pub definition: PathBuf,
    /// The payload.
    pub payload: PathBuf,
}

/// The agent of one host, told to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingAgent {
    /// The host's name.
    pub host: String,
    /// How its agent fails.
    pub manner: Failure,
}

impl FromStr for FailingAgent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let manner = |name: &str| match name {
            "start" => Some(Failure::Start),
            "health" => Some(Failure::Health),
            _ => None,
        };
        let parts = text.split_once('=').and_then(|(host, name)| Some((host, manner(name)?)));
        let (host, manner) = parts.ok_or("say a host and `start` or `health`, such as till-2=start")?;
        Ok(Self { host: host.to_owned(), manner })
    }
}

impl FailingAgent {
    /// The definition of the sample agent, with a line more in the agent's configuration.
    fn definition(&self) -> Result<String> {
        let place = "thresholds = {{ toml: plan.thresholds }}\n";
        let manner = serde_json::to_value(self.manner)?;
        let manner = manner.as_str().context("a manner of failing has no name")?;
        let line = format!("fail = {{{{ toml: host.hostname == '{}' ? '{manner}' : 'never' }}}}\n", self.host);
        anyhow::ensure!(SAMPLE_AGENT.contains(place), "the sample agent's configuration has no line for thresholds");
        Ok(SAMPLE_AGENT.replace(place, &format!("{place}{line}")))
    }
}

/// The sample agent: a tar with `program`, without its debugging information, as `bin/sample-agent`; one that is told to
/// fail on the host of `failing`.
///
/// # Errors
/// The program cannot be read, or the disk is full.
pub fn sample_agent(directory: &Path, program: &Path, failing: Option<&FailingAgent>) -> Result<Prepared> {
    let definition = failing.map_or_else(|| Ok(SAMPLE_AGENT.to_owned()), FailingAgent::definition)?;
    let content = std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    let content = without_sections(content);
    prepare(
        directory,
        "sample-agent-1.0.0",
        &definition,
        &mut content.as_slice(),
        content.len() as u64,
        "bin/sample-agent",
        0o755,
    )
}

/// Any file: a tar with it, unpacked under `/opt/demo-payload`.
///
/// # Errors
/// There is no such file, or the disk is full.
pub fn of_file(directory: &Path, file: &Path) -> Result<Prepared> {
    let name = file.file_name().and_then(|name| name.to_str()).context("the payload's file name is not UTF-8")?;
    let definition = "name = \"demo-payload\"\nversion = \"1.0.0\"\ndescription = \"The file that was given to the demo\"\n\
                      architectures = [\"all\"]\nformat = \"tar\"\nselect = \"true\"\n\n[[steps]]\naction = { unpack = { \
                      prefix = \"/opt/demo-payload\" } }\n";
    let mut content = open_input("the payload", file)?;
    let length = content.metadata()?.len();
    prepare(directory, "demo-payload-1.0.0", definition, &mut content, length, name, 0o644)
}

fn prepare(
    directory: &Path,
    stem: &str,
    definition: &str,
    content: &mut dyn Read,
    length: u64,
    member: &str,
    mode: u32,
) -> Result<Prepared> {
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let prepared =
        Prepared { definition: directory.join(format!("{stem}.toml")), payload: directory.join(format!("{stem}.tar")) };
    std::fs::write(&prepared.definition, definition)
        .with_context(|| format!("writing {}", prepared.definition.display()))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(mode);
    header.set_mtime(0);
    let write = || -> Result<()> {
        let mut builder = tar::Builder::new(BufWriter::new(File::create(&prepared.payload)?));
        builder.append_data(&mut header, member, content)?;
        Ok(builder.into_inner()?.flush()?)
    };
    write().with_context(|| format!("writing {}", prepared.payload.display()))?;
    Ok(prepared)
}

/// An executable of 64-bit little-endian ELF without its sections: only segments are needed to run it (the format's
/// chapters 4 and 5), and what follows the last of them, debugging information above all, is most of the file. Anything
/// else is left as it is.
fn without_sections(mut program: Vec<u8>) -> Vec<u8> {
    let Some(end) = end_of_segments(&program) else { return program };
    program.truncate(end);
    // e_shoff; e_shnum and e_shstrndx.
    program[0x28..0x30].fill(0);
    program[0x3c..0x40].fill(0);
    program
}

fn end_of_segments(program: &[u8]) -> Option<usize> {
    if program.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(length)?)?;
        let value = bytes.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let (headers, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    let mut end = headers.checked_add(size * count)?;
    for index in 0..count {
        let header = headers.checked_add(index * size)?;
        end = end.max(number(header.checked_add(0x08)?, 8)?.checked_add(number(header.checked_add(0x20)?, 8)?)?);
    }
    (end >= 0x40 && end <= program.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use branchline_protocol::catalogue::PackageDefinition;

    use super::*;

    #[test]
    fn definitions_hold_and_tars_have_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("price list.txt");
        std::fs::write(&file, "1 cup 2.50\n").unwrap();
        let failing: FailingAgent = "till-2=health".parse().unwrap();
        let (well, ill) = (directory.path().join("well"), directory.path().join("ill"));
        for prepared in [
            sample_agent(&well, &file, None).unwrap(),
            sample_agent(&ill, &file, Some(&failing)).unwrap(),
            of_file(&directory.path().join("other"), &file).unwrap(),
        ] {
            let definition = std::fs::read_to_string(&prepared.definition).unwrap();
            PackageDefinition::from_toml(&definition).unwrap();
            let mut archive = tar::Archive::new(File::open(&prepared.payload).unwrap());
            let sizes: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
            assert_eq!(sizes, [11]);
        }
        let error = of_file(directory.path(), &directory.path().join("missing")).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }

    #[test]
    fn one_host_is_told_to_fail_and_every_other_is_not() {
        let failing: FailingAgent = "till-2=start".parse().unwrap();
        assert_eq!(failing, FailingAgent { host: "till-2".to_owned(), manner: Failure::Start });
        let definition = failing.definition().unwrap();
        assert!(
            definition.contains("fail = {{ toml: host.hostname == 'till-2' ? 'start' : 'never' }}\n"),
            "{definition}"
        );
        for wrong in ["till-2", "till-2=", "till-2=slowly", "=never"] {
            assert!(wrong.parse::<FailingAgent>().unwrap_err().contains("till-2=start"), "{wrong}");
        }
    }

    #[test]
    fn a_program_runs_without_its_sections() {
        let directory = tempfile::tempdir().unwrap();
        let program = std::fs::read("/bin/true").unwrap();
        let length = program.len();
        let shorter = without_sections(program);
        assert!(shorter.len() < length);
        let path = directory.path().join("true");
        std::fs::write(&path, shorter).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(std::process::Command::new(&path).status().unwrap().success());
        assert_eq!(without_sections(b"#!/bin/sh\n".to_vec()), b"#!/bin/sh\n");
        assert_eq!(end_of_segments(&[0x7f, b'E', b'L', b'F', 2, 1, 0]), None);
    }
}
