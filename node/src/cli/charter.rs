//! `branchline charter`: adopt one, take a newer one, show one, move the station role.
use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use branchline_protocol::{
    charter::{Authority, Charter, PublicKey, Signed},
    limits::FORMER_STATIONS_MAX,
};
use serde_json::{Value, json};

use super::init::station_seat;
use crate::{
    config::{Bundle, Home, Seat, read_document},
    mesh::Documents,
    runtime::{self, DocumentKindName, NodeCommand, wall_time},
};

/// Adopt, take, show or re-sign a charter
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a home directory part of a site, by its charter (headquarters and station; hosts join with a token)
    Adopt {
        /// The node's home directory
        #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
        home: PathBuf,
        /// The owner's public key, as `branchline init` printed it; the charter must be signed by it
        #[arg(long)]
        owner: PublicKey,
        /// The charter
        charter: PathBuf,
    },
    /// Give a newer charter to the running node; it spreads from there
    Take {
        /// The node's home directory
        #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
        home: PathBuf,
        /// The charter
        charter: PathBuf,
    },
    /// Show a charter file
    Show {
        /// The charter
        charter: PathBuf,
    },
    /// Re-sign the charter so that another node is station: a planned move
    Move {
        /// The offline bundle
        #[arg(long)]
        bundle: PathBuf,
        /// The new station's seat
        #[arg(long)]
        station: PathBuf,
    },
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read or written, a signature does not hold, or the node refuses.
pub fn run(args: Args) -> Result<ExitCode> {
    let (said, text) = carry_out(args.command)?;
    if args.json {
        println!("{said:#}")
    } else {
        println!("{text}")
    }
    Ok(ExitCode::SUCCESS)
}

/// What was done, for programs and for people.
fn carry_out(command: Command) -> Result<(Value, String)> {
    Ok(match command {
        Command::Adopt { home, owner, charter } => {
            let authority = Authority::establish(owner, read_document(&charter)?)
                .with_context(|| format!("adopting {}", charter.display()))?;
            let (site, version) = (authority.charter().site.clone(), authority.charter().version);
            adopt_into(&Home::create(&home)?, authority)?;
            let text = format!("{} holds the charter of site {site}, version {version}", home.display());
            (json!({ "site": site, "version": version, "home": home }), text)
        }
        Command::Take { home, charter } => {
            let json = std::fs::read_to_string(&charter).with_context(|| format!("reading {}", charter.display()))?;
            let command = NodeCommand::Document { kind: DocumentKindName::Charter, json };
            let taken: Value =
                runtime::call(&home, &command).with_context(|| format!("giving {}", charter.display()))?;
            let text = if taken == Value::Bool(true) { "taken; it spreads from here" } else { "known already" };
            (json!({ "is_new": taken }), text.to_owned())
        }
        Command::Show { charter } => {
            let signed: Signed<Charter> = read_document(&charter)?;
            let document = signed.verify(signed.signer())?;
            let text = format!("signed by {}\n{}", signed.signer(), serde_json::to_string_pretty(&document)?);
            (json!({ "signed_by": signed.signer(), "charter": document }), text)
        }
        Command::Move { bundle, station } => {
            let charter = move_station(&Bundle::open(&bundle)?, &Seat::read(&station)?)?;
            let path = bundle.join("charter.json");
            let text = format!(
                "charter version {} designates {}\nNext, at headquarters or at either station: branchline charter take \
                 --home HOME {}",
                charter.version,
                charter.station.node,
                path.display()
            );
            (json!({ "version": charter.version, "station": charter.station.node, "charter": path }), text)
        }
    })
}

/// Writes a site into a home directory.
///
/// # Errors
/// An older charter than the one held, or the disk fails.
pub fn adopt_into(home: &Home, authority: Authority) -> Result<()> {
    let config = home.config_or_default()?;
    let addresses = Seat::of(home, &config)?.addresses;
    Documents::load(home.clone(), home.identity()?, addresses, "")?.add_site(authority, None)
}

/// Signs the charter's next version with another station (R4).
///
/// # Errors
/// The new station is the present one, or the bundle cannot be used.
pub fn move_station(bundle: &Bundle, seat: &Seat) -> Result<Charter> {
    let mut charter = bundle.charter()?;
    if charter.station.node == seat.node {
        bail!("{} is the station already", seat.node);
    }
    charter.former_stations.push((charter.station.node, charter.epoch()));
    if charter.former_stations.len() > FORMER_STATIONS_MAX {
        charter.former_stations.remove(0);
    }
    charter.version += 1;
    charter.issued_at = wall_time();
    charter.station = station_seat(seat);
    bundle.sign_charter(&charter)?;
    Ok(charter)
}
