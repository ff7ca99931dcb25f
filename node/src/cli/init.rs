//! `branchline init`: makes a site, its keys and its charter.
use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use branchline_protocol::{
    catalogue::SitePolicy,
    charter::{Authority, Charter, HeadquartersSeat, Keys, Prefix, PublicKey, SiteLimits, SitePolicies, StationSeat},
    ids::SiteName,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    cli::{
        charter::adopt_into,
        release::{sign_release, this_binary},
    },
    config::{Bundle, BundleKey, Home, Seat},
    runtime::wall_time,
};

/// Make a site: fresh keys in an offline bundle, and the charter that the owner signs
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to make the offline bundle; take it off the network afterwards
    #[arg(long)]
    bundle: PathBuf,
    /// The site's name: 1 to 63 of a-z, 0-9 and inner hyphens
    #[arg(long)]
    site: SiteName,
    /// Who owns the hosts
    #[arg(long, default_value = "owner")]
    owner: String,
    /// Who operates headquarters and station
    #[arg(long, default_value = "operator")]
    operator: String,
    /// A prefix of the site's own addresses, for example 10.1.0.0/24; may be given again
    #[arg(long = "prefix", required = true)]
    prefixes: Vec<Prefix>,
    /// The station's seat: the file that `branchline identity --out` wrote there
    #[arg(long)]
    station: PathBuf,
    /// Headquarters' seat
    #[arg(long)]
    headquarters: PathBuf,
    /// Limits and policies of the charter (TOML with the tables `limits` and `policies`); without it the defaults hold
    #[arg(long)]
    options: Option<PathBuf>,
    /// Home directories on this machine that should take the charter at once; may be given again
    #[arg(long = "adopt")]
    adopt: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The file of `--options`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CharterOptions {
    /// Bounds.
    pub limits: SiteLimits,
    /// Standing rules.
    pub policies: SitePolicies,
}

/// Runs the command.
///
/// # Errors
/// The bundle exists already, a seat cannot be read, or the charter would break a rule.
pub fn run(args: Args) -> Result<ExitCode> {
    let options = match &args.options {
        None => CharterOptions::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("reading the charter's options {}", path.display()))?
        }
    };
    let station = Seat::read(&args.station)?;
    let headquarters = Seat::read(&args.headquarters)?;
    let made = make_site(&args, options, &station, &headquarters)?;
    for home in &args.adopt {
        adopt_into(&Home::create(home)?, made.clone())?;
    }
    let owner = made.root();
    let charter = args.bundle.join("charter.json");
    if args.json {
        let made = json!({
            "site": args.site, "charter_version": 1, "owner": owner.to_string(), "bundle": args.bundle, "charter": charter,
            "adopted": args.adopt,
        });
        println!("{made:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("site {} has a charter, version 1.", args.site);
    println!("The bundle {} holds the keys of owner, catalogue, administrator and approvals.", args.bundle.display());
    println!("No station may hold them: keep the bundle off the network.");
    println!();
    println!("Next, on headquarters and on the station, unless --adopt named them:");
    println!("  branchline charter adopt --home HOME --owner {owner} {}", charter.display());
    println!(
        "Later, on headquarters, after `branchline catalogue add`; policy.json wants nothing special of this \
         site, release.json signs this binary and its survey script:"
    );
    println!(
        "  branchline publish --home HOME --catalogue {} --policy {} --release {}",
        args.bundle.join("catalogue").display(),
        args.bundle.join("policy.json").display(),
        args.bundle.join("release.json").display()
    );
    Ok(ExitCode::SUCCESS)
}

fn make_site(args: &Args, options: CharterOptions, station: &Seat, headquarters: &Seat) -> Result<Authority> {
    let charter = |keys| Charter {
        site: args.site.clone(),
        version: 1,
        issued_at: wall_time(),
        owner: args.owner.clone(),
        operator: args.operator.clone(),
        prefixes: args.prefixes.clone(),
        station: station_seat(station),
        headquarters: HeadquartersSeat { node: headquarters.node, addresses: headquarters.addresses },
        keys,
        electors: Vec::new(),
        former_stations: Vec::new(),
        limits: options.limits,
        policies: options.policies.clone(),
    };
    // The rules are checked before keys are made: a bundle is never overwritten, so none may be left of a failed attempt.
    let any = PublicKey(station.node);
    charter(Keys { catalogue: any, administrator: any, approvers: vec![any] }).check()?;
    let released = this_binary()?;
    let bundle = Bundle::create(&args.bundle)?;
    let charter = charter(bundle.public_keys()?);
    let signed = bundle.sign_charter(&charter)?;
    bundle.sign_policy(&SitePolicy::empty(args.site.clone(), 1))?;
    sign_release(&bundle, released, None)?;
    let owner = PublicKey::of(&bundle.key(BundleKey::Owner)?);
    Ok(Authority::establish(owner, signed)?)
}

/// A seat as the charter's station.
pub fn station_seat(seat: &Seat) -> StationSeat {
    StationSeat { node: seat.node, addresses: seat.addresses, door: seat.door, door_fingerprint: seat.door_fingerprint }
}
