//! `branchline survey` as a program calls it: what it writes, and how it fails.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod survey_support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use branchline::cli::survey::{Args, run};
use branchline::survey::{SignatureFile, SurveyError, SurveyRequest, assemble, read_signature_directory, take};
use branchline_protocol::survey::Descriptor;
use survey_support::{Root, schema_verdict};

fn arguments(root: &Root) -> Args {
    Args {
        out: None,
        root: root.path().to_owned(),
        print_script: false,
        signatures: None,
        against: None,
        validate: None,
        json: false,
    }
}

fn extra(file_name: &str, text: &str) -> SignatureFile {
    SignatureFile { file_name: file_name.into(), text: text.into() }
}

#[test]
fn the_file_written_is_valid_and_can_be_compared() {
    let root = Root::with_network_storage();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("host.xml");
    run(&Args { out: Some(out.clone()), ..arguments(&root) }).unwrap();
    let bytes = fs::read(&out).unwrap();
    let descriptor = Descriptor::parse(&bytes).unwrap();
    assert_eq!(descriptor.print().as_bytes(), bytes, "the file is the canonical print");
    if let Some((valid, complaint)) = schema_verdict(&bytes) {
        assert!(valid, "{complaint}");
    }
    run(&Args { validate: Some(out.clone()), json: true, ..arguments(&root) }).unwrap();
    run(&Args { against: Some(out.clone()), ..arguments(&root) }).unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "an unfinished file was left behind");
}

#[test]
fn errors_say_what_happened_and_what_to_do() {
    let root = Root::empty();
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.xml");
    fs::write(&broken, "<descriptor><host/></descriptor>").unwrap();
    let file = |path: &str| Some(PathBuf::from(path));
    for (arguments, expected) in [
        (Args { root: "/no/such/root".into(), ..arguments(&root) }, "there is no directory /no/such/root to survey"),
        (Args { out: file("/no/such/directory/a.xml"), ..arguments(&root) }, "cannot write /no/such/directory/a.xml"),
        (Args { out: Some(directory.path().to_owned()), ..arguments(&root) }, "it is a directory"),
        (Args { out: file("/dev/full/x"), ..arguments(&root) }, "cannot write /dev/full/x"),
        (Args { validate: Some(broken), ..arguments(&root) }, "expected urn:branchline:descriptor:1"),
        (Args { validate: file("/no/such/file"), ..arguments(&root) }, "cannot read the descriptor /no/such/file"),
        (Args { signatures: file("/no/such/directory"), ..arguments(&root) }, "cannot read /no/such/directory"),
    ] {
        let error = run(&arguments).unwrap_err();
        let message = format!("{error:#}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn signatures_come_from_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("50-coffee.sh"), "signature_coffee() {\n    found machine model x\n}\n").unwrap();
    fs::write(directory.path().join("README"), "not a signature").unwrap();
    let script = assemble(&read_signature_directory(directory.path()).unwrap()).unwrap();
    let root = Root::empty();
    let survey = take(&script.text, &SurveyRequest::of_root(root.path())).unwrap();
    assert!(survey.descriptor.signature("coffee").unwrap().detected);
    assert_eq!(survey.descriptor.script_hash, script.hash.to_string());
}

#[test]
fn a_signature_that_breaks_the_document_is_refused() {
    let root = Root::empty();
    let script =
        assemble(&[extra("50-bad.sh", "signature_bad() {\n    echo 'module <module name=bad>'\n}\n")]).unwrap();
    let error = take(&script.text, &SurveyRequest::of_root(root.path())).unwrap_err();
    assert!(matches!(error, SurveyError::Invalid { .. }), "{error}");
}

#[test]
fn a_signature_that_hangs_is_ended_with_its_children() {
    let root = Root::empty();
    let script = assemble(&[extra("50-slow.sh", "signature_slow() {\n    sleep 600\n}\n")]).unwrap();
    let started = Instant::now();
    let request = SurveyRequest { root: root.path().to_owned(), time_limit: Duration::from_secs(3) };
    let error = take(&script.text, &request).unwrap_err();
    assert!(matches!(error, SurveyError::TooSlow { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(60));
}
