//! `branchline catalogue`: what may be installed, signed on a machine that is no station.
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use branchline_protocol::catalogue::{Catalogue, Package, PackageDefinition};
use serde_json::json;

use crate::{
    catalogue::{Added, CatalogueDirectory, PATCH_BASES_DEFAULT},
    config::read_key,
    runtime::wall_time,
};

/// Add packages to a signed catalogue, and look at it
///
/// The catalogue key signs everything that hosts install: keep it offline, in the bundle that `branchline init` made.
/// After an addition, hand the catalogue to headquarters with `branchline publish`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Pack a payload, add it under a package definition and sign the next version of the catalogue
    Add(Add),
    /// List the packages
    List(Look),
    /// Show everything about one package
    Show {
        /// Name of the package
        name: String,
        /// One version only
        #[arg(long)]
        version: Option<String>,
        #[command(flatten)]
        look: Look,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The bundle that `branchline init` made; its catalogue lies in the directory `catalogue`
    #[arg(long)]
    bundle: Option<PathBuf>,
    /// The catalogue directory, where it is not the bundle's
    #[arg(long)]
    catalogue: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    place: Place,
    /// The catalogue key, where it is not the bundle's
    #[arg(long)]
    key: Option<PathBuf>,
    /// The package definition (TOML)
    #[arg(long, value_name = "FILE")]
    package: PathBuf,
    /// The payload: a .deb, an .rpm, or a tar archive, plain or compressed by gzip, xz or zstd
    #[arg(long, value_name = "FILE")]
    payload: PathBuf,
    /// Make patches from so many of the newest versions that the catalogue holds; 0: none
    #[arg(long, value_name = "NUMBER", default_value_t = PATCH_BASES_DEFAULT)]
    patches_from: usize,
    /// Let the catalogue expire after so many days
    #[arg(long, value_name = "DAYS")]
    expires_in_days: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Look {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Place {
    fn directory(&self) -> Result<CatalogueDirectory> {
        match (&self.catalogue, &self.bundle) {
            (Some(directory), _) => Ok(CatalogueDirectory::new(directory)),
            (None, Some(bundle)) => Ok(CatalogueDirectory::new(bundle.join("catalogue"))),
            (None, None) => bail!("say where the catalogue is: --bundle DIR, or --catalogue DIR"),
        }
    }

    /// The catalogue, checked with the bundle's key, or else with the key that it names itself.
    fn catalogue(&self) -> Result<Catalogue> {
        let directory = self.directory()?;
        let signed = directory.signed()?.with_context(|| {
            format!("there is no catalogue {}; `branchline catalogue add` makes one", directory.file().display())
        })?;
        match self.bundle.as_ref().map(|bundle| bundle.join("catalogue.key")).filter(|key| key.exists()) {
            Some(key) => directory.verified(branchline_protocol::charter::PublicKey::of(&read_key(&key)?)),
            None => directory.verified(signed.signer()),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// A file is missing or malformed, a signature does not hold, or a version is there already.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Add(add) => run_add(&add),
        Command::List(look) => list(&look),
        Command::Show { name, version, look } => show(&name, version.as_deref(), &look),
    }
}

/// Reads a definition; its errors name line and key.
fn read_definition(path: &Path) -> Result<PackageDefinition> {
    let text =
        fs::read_to_string(path).with_context(|| format!("reading the package definition {}", path.display()))?;
    PackageDefinition::from_toml(&text).with_context(|| format!("reading the package definition {}", path.display()))
}

fn run_add(add: &Add) -> Result<ExitCode> {
    let key = match (&add.key, &add.place.bundle) {
        (Some(key), _) => key.clone(),
        (None, Some(bundle)) => bundle.join("catalogue.key"),
        (None, None) => bail!("say which key signs: --bundle DIR, or --key FILE"),
    };
    let key = read_key(&key)?;
    let definition = read_definition(&add.package)?;
    let expires_at = add.expires_in_days.map(|days| wall_time().after(u64::from(days) * 86_400));
    let directory = add.place.directory()?;
    let Added { version, package, patches } =
        directory.add(&key, definition, &add.payload, expires_at, add.patches_from)?;
    if add.json {
        println!("{:#}", json!({ "catalogue_version": version, "package": package, "patches": patches }));
    } else {
        print!("{}", describe(&package));
        for patch in &patches {
            println!("  patch     {}  ({} bytes, from image {})", patch.pack, patch.pack_bytes, patch.base);
        }
        println!(
            "catalogue {} has version {version} now; publish it with `branchline publish`",
            directory.file().display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn list(look: &Look) -> Result<ExitCode> {
    let catalogue = look.place.catalogue()?;
    if look.json {
        println!("{:#}", serde_json::to_value(&catalogue)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("catalogue version {}, packages: {}", catalogue.version, catalogue.packages.len());
    for Package { definition, payload } in &catalogue.packages {
        println!(
            "{:<28} {:<16} {:<12} {:>12} bytes  {}",
            definition.name,
            definition.version,
            definition.architectures.join(","),
            payload.pack_bytes,
            definition.description
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn show(name: &str, version: Option<&str>, look: &Look) -> Result<ExitCode> {
    let catalogue = look.place.catalogue()?;
    let wanted = |package: &&Package| {
        package.definition.name == name && version.is_none_or(|version| package.definition.version == version)
    };
    let found: Vec<&Package> = catalogue.packages.iter().filter(wanted).collect();
    if found.is_empty() {
        bail!("the catalogue has no {name} {}; `branchline catalogue list` shows what it has", version.unwrap_or(""));
    }
    if look.json {
        println!("{:#}", serde_json::to_value(&found)?);
        return Ok(ExitCode::SUCCESS);
    }
    for package in found {
        print!("{}", describe(package));
        println!("\n{}", toml::to_string_pretty(&package.definition)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(Package { definition, payload }: &Package) -> String {
    format!(
        "{} {}\n  file      {}\n  SHA-256   {}\n  image     {}  ({} bytes)\n  pack      {}  ({} bytes)\n",
        definition.name,
        definition.version,
        payload.file_name,
        payload.sha256,
        payload.image,
        payload.raw_bytes,
        payload.pack,
        payload.pack_bytes
    )
}
