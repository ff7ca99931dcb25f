//! Payloads of the lab's tests: Debian's own package, and packages made for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A module for the hosts of a cluster that needs no systemd, which few machines of the lab have.
const CLUSTER_MODULE: &str = r#"
[[modules]]
name = "cluster"
when = "cluster.detected || high_availability.detected"
reason = "a cluster's resources are processes that move between hosts"
on = { arguments = ["--collector.processes"] }
"#;

/// Debian's node exporter: the definition of `tests/lab/packages` with a module more, written into `directory`, and the
/// file of Debian's archive, fetched once into the lab's cache.
///
/// # Errors
/// The archive cannot be reached, or the definition cannot be written.
pub fn node_exporter(directory: &Path) -> Result<(PathBuf, PathBuf)> {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    let definition = directory.join("prometheus-node-exporter.toml");
    let text = std::fs::read_to_string(lab.join("packages/prometheus-node-exporter.toml"))?;
    std::fs::write(&definition, text + CLUSTER_MODULE)?;
    if let Some(file) = cached("prometheus-node-exporter_") {
        return Ok((definition, file));
    }
    let output = Command::new(lab.join("payload.sh")).output().context("payload.sh cannot be run")?;
    ensure!(output.status.success(), "payload.sh: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let file = said.lines().next().context("payload.sh names no file")?;
    Ok((definition, PathBuf::from(file)))
}

/// A package that an earlier run fetched; asking the archive again would make every test wait for the network.
fn cached(start: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(cache.join("branchline/packages"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    files.sort();
    files.pop()
}

/// A Debian package with `megabytes` of bytes that do not compress (so that a thin line needs seconds for it),
/// and a maintainer script. `select` is its rule over the survey.
///
/// # Errors
/// `dpkg-deb` fails.
pub fn generated(
    directory: &Path,
    name: &str,
    megabytes: u32,
    after: &str,
    select: &str,
) -> Result<(PathBuf, PathBuf)> {
    let tree = directory.join(format!("{name}-tree"));
    std::fs::create_dir_all(tree.join("DEBIAN"))?;
    std::fs::create_dir_all(tree.join("opt").join(name))?;
    let control = format!(
        "Package: {name}\nVersion: 1.0\nArchitecture: amd64\nMaintainer: Branchline <lab@branch.example>\n\
         Description: made by a test of the site lab\n"
    );
    std::fs::write(tree.join("DEBIAN/control"), control)?;
    let script = tree.join("DEBIAN/postinst");
    std::fs::write(&script, format!("#!/bin/sh\nset -e\n{after}\n"))?;
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    std::fs::write(tree.join("opt").join(name).join("data"), noise(u64::from(megabytes) << 20))?;
    let file = directory.join(format!("{name}_1.0_amd64.deb"));
    let output =
        Command::new("dpkg-deb").args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&file).output()?;
    ensure!(output.status.success(), "dpkg-deb: {}", String::from_utf8_lossy(&output.stderr));
    let definition = format!(
        "name = \"{name}\"\nversion = \"1.0\"\ndescription = \"made by a test of the site lab\"\n\
         architectures = [\"amd64\"]\nformat = \"deb\"\nselect = \"{select}\"\n"
    );
    let path = directory.join(format!("{name}.toml"));
    std::fs::write(&path, definition)?;
    Ok((path, file))
}

/// A package of one file of one byte, as a tar archive that its name alone makes different from others of its kind. No
/// survey selects it: it is staged.
///
/// # Errors
/// `tar` fails.
pub fn one_byte(directory: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    std::fs::write(directory.join(name), "1")?;
    let file = directory.join(format!("{name}.tar"));
    let output = Command::new("tar").arg("-cf").arg(&file).arg("-C").arg(directory).arg(name).output()?;
    ensure!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    let definition = format!(
        "name = \"{name}\"\nversion = \"1.0\"\ndescription = \"made by a test of the site lab\"\n\
         architectures = [\"all\"]\nformat = \"tar\"\nselect = \"false\"\n\n\
         [[steps]]\naction = {{ unpack = {{ prefix = \"/opt/{name}\" }} }}\n"
    );
    let path = directory.join(format!("{name}.toml"));
    std::fs::write(&path, definition)?;
    Ok((path, file))
}

/// Bytes of a xorshift generator: the same at every run, and no compressor finds anything in them.
fn noise(bytes: u64) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = Vec::with_capacity(bytes as usize);
    while (noise.len() as u64) < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes as usize);
    noise
}
