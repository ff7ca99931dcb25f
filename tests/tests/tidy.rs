//! Small rules about files that no compiler checks. Each failure names the file and the line.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file that is longer has more than one subject.
const LINES_AT_MOST: usize = 500;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every file that git knows or would add, relative to the workspace, with its text. Binary files
/// are left out.
fn files() -> Vec<(String, String)> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "git ls-files failed: {output:?}");
    let names = String::from_utf8(output.stdout).unwrap();
    let files: Vec<_> = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let text = std::fs::read_to_string(workspace().join(name)).ok()?;
            Some((name.to_owned(), text))
        })
        .collect();
    assert!(files.len() > 10, "git lists only {} files", files.len());
    files
}

fn is_source(name: &str) -> bool {
    [".rs", ".py", ".sh"].iter().any(|ending| name.ends_with(ending))
}

fn fail_if_any(faults: &[String], rule: &str) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

/// Places where `wanted` says that a line is at fault, as `file:line: text`.
fn places(files: &[(String, String)], select: impl Fn(&str) -> bool, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    files
        .iter()
        .filter(|(name, _)| select(name))
        .flat_map(|(name, text)| {
            text.lines()
                .enumerate()
                .filter(|(_, line)| wanted(line))
                .map(|(index, line)| format!("{name}:{}: {}", index + 1, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn source_files_stay_under_their_limit() {
    let faults: Vec<_> = files()
        .iter()
        .filter(|(name, _)| is_source(name))
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines >= LINES_AT_MOST)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    fail_if_any(&faults, "split these files by subject");
}

#[test]
fn no_path_of_one_machine() {
    // Written in parts, so that this file does not name them either.
    let forbidden = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/home", "/"].concat()];
    let faults =
        places(&files(), |name| name != "Cargo.lock", |line| forbidden.iter().any(|path| mentions(line, path)));
    fail_if_any(&faults, "a path of one machine says nothing on another");
}

/// Whether `line` has `path` at the start of a path, not inside a longer one such as `sys/root/`.
fn mentions(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || "_-}$.)".contains(before))
    })
}

#[test]
fn mentions_sees_whole_paths_only() {
    assert!(mentions("see /srv/x", "/srv/"));
    assert!(mentions("\"/srv/x\"", "/srv/"));
    assert!(!mentions("$RUN/srv/x", "/srv/"));
}

#[test]
fn no_unfinished_code() {
    let macros = ["todo", "unimplemented"].map(|name| format!("{name}!("));
    let faults = places(
        &files(),
        |name| name.ends_with(".rs"),
        |line| macros.iter().any(|unfinished| line.contains(unfinished)),
    );
    fail_if_any(&faults, "unfinished code must not land");
}

#[test]
fn nothing_is_left_out_in_silence() {
    // In parts, for this file. `branchline_tests::required` fails where everything has to run.
    let printed = ["println!(\"skip", "print!(\"skip"].map(|start| start.to_owned() + "ped");
    let faults = places(
        &files(),
        |name| name.ends_with(".rs") && name != "tests/src/required.rs",
        |line| printed.iter().any(|skipped| line.contains(skipped)),
    );
    fail_if_any(&faults, "leave a part of a test out by required::skip");
}

#[test]
fn every_crate_forbids_unsafe_code() {
    let files = files();
    let roots: Vec<_> = files
        .iter()
        .filter(|(name, _)| {
            let parts: Vec<_> = name.split('/').collect();
            matches!(parts.as_slice(), [_, "src", "lib.rs" | "main.rs"])
                || matches!(parts.as_slice(), [_, "tests", file] if file.ends_with(".rs"))
        })
        .collect();
    assert!(roots.len() >= 6, "only {} crate roots found", roots.len());
    let faults: Vec<_> = roots
        .iter()
        .filter(|(_, text)| !text.contains("#![forbid(unsafe_code)]"))
        .map(|(name, _)| name.clone())
        .collect();
    fail_if_any(&faults, "these crate roots lack #![forbid(unsafe_code)]");
}

/// The one file that may hold unsafe code; `docs/src/decisions/resident-code.md` says why.
const UNSAFE: &str = "node/resident/src/lib.rs";

/// Whether a line of code, not of comment, has the word.
fn has_word(line: &str, wanted: &str) -> bool {
    let code = !line.trim_start().starts_with("//");
    code && line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == wanted)
}

#[test]
fn unsafe_code_stands_in_one_file() {
    assert!(has_word("#[unsafe(no_mangle)]", "unsafe") && !has_word("#![forbid(unsafe_code)]", "unsafe"));
    let files = files();
    let here = |word: &str| places(&files, |name| name == UNSAFE, |line| has_word(line, word)).len();
    let elsewhere = |name: &str| name.ends_with(".rs") && name != UNSAFE && name != "tests/tests/tidy.rs";
    let elsewhere = places(&files, elsewhere, |line| has_word(line, "unsafe"));
    fail_if_any(&elsewhere, "unsafe code outside of the file that may hold it");
    assert_eq!((here("unsafe"), here("unsafe_code")), (2, 2), "each block needs a decision");
    for call in ["madvise(range", "malloc_trim(0)"] {
        let calls = places(&files, |name| name == UNSAFE, |line| line.contains(call));
        assert_eq!(calls.len(), 1, "each call needs a decision: {calls:?}");
    }
    let lints = files.iter().find(|(name, _)| name == "node/resident/Cargo.toml").map_or("", |(_, text)| text);
    for lint in ["unsafe_code = \"deny\"", "undocumented_unsafe_blocks = \"deny\""] {
        assert!(lints.contains(lint), "node/resident/Cargo.toml lacks {lint}");
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let faults: Vec<_> = files()
        .iter()
        .filter(|(name, _)| name.ends_with("/Cargo.toml"))
        // The fuzz targets are a workspace of their own, with the fuzzer's flags.
        .filter(|(name, _)| name != "tests/fuzz/Cargo.toml")
        // It has lints of its own, since what the workspace forbids cannot be allowed again.
        .filter(|(name, _)| name != "node/resident/Cargo.toml")
        .filter(|(_, text)| !text.contains("[lints]\nworkspace = true"))
        .map(|(name, _)| name.clone())
        .collect();
    fail_if_any(&faults, "these crates do not take the workspace's lints");
}

#[test]
fn the_book_names_pages_that_exist() {
    let book = workspace().join("docs/src");
    let summary = std::fs::read_to_string(book.join("SUMMARY.md")).unwrap();
    let pages: BTreeSet<_> =
        summary.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|page| !page.is_empty()).collect();
    assert!(!pages.is_empty(), "SUMMARY.md names no page");
    let faults: Vec<_> = pages.into_iter().filter(|page| !book.join(page).is_file()).map(str::to_owned).collect();
    fail_if_any(&faults, "SUMMARY.md names pages that do not exist");
}

/// The names of all tests: functions that follow a test's attribute.
fn tests_of(files: &[(String, String)]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for (_, text) in files.iter().filter(|(name, _)| name.ends_with(".rs")) {
        let mut is_test = false;
        for line in text.lines().map(str::trim_start) {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            if let Some((_, rest)) = line.split_once("fn ").filter(|(before, _)| is_test && !before.contains("//")) {
                names.insert(rest.split('(').next().unwrap_or(rest));
                is_test = false;
            }
        }
    }
    names
}

#[test]
fn the_requirements_are_shown_by_tests_that_exist() {
    let files = files();
    let tests = tests_of(&files);
    let (_, page) = files.iter().find(|(name, _)| name == "docs/src/requirements.md").unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| R")).collect();
    assert!(rows.len() > 20, "the page has lost its table");
    let named = rows.iter().flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|name| !name.contains('/'));
    let faults: Vec<_> = named.filter(|name| !tests.contains(name)).map(str::to_owned).collect();
    fail_if_any(&faults, "docs/src/requirements.md names tests that do not exist");
}
