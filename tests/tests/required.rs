//! Nothing that has to run is left out in silence: `branchline_tests::required`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use branchline_tests::required;

/// Set in the process that leaves something out.
const CHILD: &str = "BRANCHLINE_TEST_LEAVES_OUT";

#[test]
fn leaves_something_out() {
    if std::env::var_os(CHILD).is_some() {
        required::skip("a cup of coffee", "there is no kettle");
    }
}

fn leaving_out(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "leaves_something_out", "--nocapture"]).env(CHILD, "1");
    command.env_remove("CI").env_remove("BRANCHLINE_REQUIRE_LAB");
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn what_is_missing_is_said_and_fails_where_everything_has_to_run() {
    let (lab, ci) = (("BRANCHLINE_REQUIRE_LAB", "1"), ("CI", "true"));
    for variables in [&[][..], &[("BRANCHLINE_REQUIRE_LAB", "0"), ci], &[("CI", "false")]] {
        let output = leaving_out(variables);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("skipped: a cup of coffee, because there is no kettle"),
            "{said}"
        );
    }
    for variables in [&[lab][..], &[ci], &[lab, ci]] {
        let output = leaving_out(variables);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains("there is no kettle"), "{variables:?}: {said}");
        assert!(said.contains("tests/packages.txt"), "{said}");
    }
}
