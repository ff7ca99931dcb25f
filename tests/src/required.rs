//! What tests need of the computer beside the build: root, tools of Debian, a site lab.
//!
//! The tests of the node include this file by its path, so that there is one rule for the whole workspace and no dependency
//! from the node on its own tests.

/// Leaves a part of a test out, because this computer has not what it needs, and says so. Where everything has to run, that
/// is a failure: `tests/packages.txt` names what to install.
///
/// # Panics
/// `BRANCHLINE_REQUIRE_LAB` is `1`, or `CI` is `true` and the other is not set, as in `.ci/run`.
#[track_caller]
pub fn skip(part: &str, missing: &str) {
    let requires = std::env::var("BRANCHLINE_REQUIRE_LAB");
    let is_required = requires
        .as_deref()
        .map_or_else(|_| std::env::var("CI").is_ok_and(|ci| ci == "true"), |requires| requires == "1");
    assert!(
        !is_required,
        "{part} cannot be left out here (CI=true or BRANCHLINE_REQUIRE_LAB=1), but: {missing}; tests/packages.txt names \
         what to install"
    );
    eprintln!("skipped: {part}, because {missing}");
}
