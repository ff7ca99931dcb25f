//! The binary under test, built the way that a user builds it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

/// The path of the `branchline` binary, built with `cargo build --release -p branchline` at the
/// first call in this process, so that a test never meets a stale one. `BRANCHLINE_BINARY` names
/// another that is taken as it is.
///
/// # Errors
/// If cargo cannot build it; the error holds the end of what cargo wrote.
pub fn branchline() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

fn build() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BRANCHLINE_BINARY") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "BRANCHLINE_BINARY: {} is no file", path.display());
        return Ok(path);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Build scripts (ring's is one) ask to run again when these change, and all that depends on them is built anew.
    for (name, _) in std::env::vars_os() {
        let of_this_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_CRATE_")
        });
        if of_this_package {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .args(["build", "--quiet", "--locked", "--release", "-p", "branchline"])
        .current_dir(workspace)
        .output()
        .context("cargo could not be run")?;
    ensure!(output.status.success(), "cargo could not build the binary:\n{}", String::from_utf8_lossy(&output.stderr),);
    // This test runs from target/release/deps.
    let test = std::env::current_exe().context("this process has no path")?;
    let path = test.ancestors().nth(2).map(|release| release.join("branchline")).filter(|path| path.is_file());
    path.with_context(|| format!("no branchline beside {}", test.display()))
}
