//! The book as a new operator reads it: every command and option that it shows is there, with that spelling.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use branchline_tests::binary;

/// The binary's own help, asked for once for each command.
struct Helps {
    program: PathBuf,
    texts: BTreeMap<Vec<String>, String>,
}

impl Helps {
    fn of(&mut self, words: &[String]) -> Result<&str> {
        if !self.texts.contains_key(words) {
            let output = Command::new(&self.program).args(words).arg("--help").output()?;
            ensure!(output.status.success(), "branchline {} has no help", words.join(" "));
            self.texts.insert(words.to_vec(), String::from_utf8(output.stdout)?);
        }
        Ok(&self.texts[words])
    }

    /// What is wrong with a command line as the book shows it.
    fn fault(&mut self, line: &str) -> Result<Option<String>> {
        let mut words = line.split_whitespace().peekable();
        let mut path = Vec::new();
        while let Some(word) = words.peek().copied().filter(|word| subcommands(self.of(&path).unwrap()).contains(word))
        {
            path.push(word.to_owned());
            words.next();
        }
        let help = self.of(&path)?;
        let usage = help.lines().find(|line| line.starts_with("Usage: ")).unwrap_or_default();
        if let Some(word) = words.peek().filter(|word| !word.starts_with('-'))
            && usage.contains("<COMMAND>")
        {
            return Ok(Some(format!("there is no command {word:?}")));
        }
        let options = options(help);
        let unknown = words
            .map(|word| word.trim_matches(['[', ']']))
            .map(|word| word.split('=').next().unwrap_or(word))
            .find(|word| word.starts_with('-') && word.len() > 1 && !options.contains(word));
        Ok(unknown.map(|word| format!("there is no option {word}")))
    }
}

fn subcommands(help: &str) -> Vec<&str> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    list.filter_map(|line| line.split_whitespace().next()).collect()
}

fn options(help: &str) -> Vec<&str> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines
        .flat_map(|line| line.split_whitespace().take_while(|word| word.starts_with('-')))
        .map(|word| word.trim_end_matches(','))
        .collect()
}

/// The command lines of a page, without the program's name: those of its code blocks, and those within the text.
fn shown(page: &str) -> Vec<String> {
    let page = page.replace("\\\n", " ");
    let mut lines = Vec::new();
    for (number, part) in page.split("```").enumerate() {
        if number % 2 == 1 {
            lines.extend(part.lines().filter_map(|line| {
                let line = line.trim_start_matches(['#', '$', ' ']);
                line.strip_prefix("branchline ").or_else(|| line.strip_prefix("cargo run --release -- "))
            }));
        } else {
            lines.extend(part.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("branchline ")));
        }
    }
    let command = |line: &str| {
        let ends = [" #", " | ", " > ", " >", " && ", ";"];
        let end = ends.iter().filter_map(|end| line.find(end)).min().unwrap_or(line.len());
        line[..end].trim().to_owned()
    };
    // `branchline charter 1` is no command but the context of a signature.
    let is_context = |line: &String| line.split_once(' ').is_some_and(|(_, rest)| rest.parse::<u8>().is_ok());
    lines.into_iter().map(command).filter(|line| !is_context(line)).collect()
}

fn pages(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            pages(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

#[test]
fn commands_of_the_book_are_there() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| workspace.join(name)).to_vec();
    pages(&workspace.join("docs/src"), &mut found)?;
    let mut helps = Helps { program: binary::branchline()?, texts: BTreeMap::new() };
    let (mut seen, mut faults) = (0, Vec::new());
    for page in found {
        for line in shown(&std::fs::read_to_string(&page)?) {
            seen += 1;
            if let Some(fault) = helps.fault(&line)? {
                faults.push(format!("{}: branchline {line}: {fault}", page.display()));
            }
        }
    }
    println!("{seen} commands");
    ensure!(seen > 100, "only {seen} commands were found");
    ensure!(faults.is_empty(), "the book shows what is not there:\n{}", faults.join("\n"));
    for wrong in ["frobnicate", "sessions frobnicate till-1", "publish --catalog bundle/catalogue", "run --jsn"] {
        ensure!(helps.fault(wrong)?.is_some(), "{wrong:?} is taken for a command");
    }
    Ok(())
}
