//! `branchline join`: become a member of a site with a token.
use std::{net::IpAddr, path::PathBuf, process::ExitCode};

use anyhow::{Result, bail};
use branchline_protocol::charter::{Authority, BeginRequest, JoinToken, Signed};

use crate::{
    config::{Home, Seat},
    door::DoorClient,
    mesh::Documents,
    runtime::{machine_identifier, machine_name, wall_time},
};

/// Join a site with a token that its station made; afterwards `branchline run` does the rest
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The token: the whole line that `branchline token` printed
    token: String,
    /// The node's home directory; made where it is missing
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
    home: PathBuf,
    /// The address on which this host listens inside its site; needed once, kept in the home directory
    #[arg(long)]
    listen: Option<IpAddr>,
    /// The directory that stands for / on this host (tests and the demo)
    #[arg(long)]
    root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The token is damaged, expired or used up, the station cannot be reached, or is not the one that the token names.
pub fn run(args: Args) -> Result<ExitCode> {
    let site = super::block_on(join(&args))??;
    if args.json {
        println!("{:#}", serde_json::json!({ "site": site, "home": args.home }));
    } else {
        println!("joined site {site}; next: branchline run --home {}", args.home.display());
    }
    Ok(ExitCode::SUCCESS)
}

async fn join(args: &Args) -> Result<String> {
    let (_, token) = Signed::<JoinToken>::from_text(&args.token)?;
    if wall_time() >= token.expires_at {
        bail!("the join token has expired; ask the station's operator for a new one (`branchline token`)");
    }
    let home = Home::create(&args.home)?;
    let mut config = home.config_or_default()?;
    config.listen = args.listen.or(config.listen);
    if let Some(root) = &args.root {
        config.root = root.canonicalize()?;
    }
    home.save_config(&config)?;
    let seat = Seat::of(&home, &config)?;
    let key = home.identity()?;
    let machine = machine_identifier(&config.root, &home)?;
    let request = BeginRequest {
        token: args.token.trim().to_owned(),
        node: seat.node,
        machine_identifier: machine.clone(),
        host_name: machine_name(&config.root),
    };
    let door = DoorClient::new(token.door, token.door_fingerprint);
    let answer = door.begin(&Signed::sign(&request, &key)).await?;
    let authority = Authority::establish_by_root_hash(token.root, answer.charter)?;
    if authority.charter().site != token.site {
        bail!("the station gave a charter of site {}, the token is for {}", authority.charter().site, token.site);
    }
    let charter = authority.charter();
    if !charter.is_inside(seat.addresses.control.ip()) {
        let prefixes: Vec<String> = charter.prefixes.iter().map(ToString::to_string).collect();
        bail!(
            "{} lies outside of site {} ({}); join again with the same token and a --listen ADDRESS inside of it (this \
             counts as one use)",
            seat.addresses.control.ip(),
            charter.site,
            prefixes.join(", ")
        );
    }
    authority.check_member(seat.node, Some(&answer.membership), wall_time())?;
    let documents = Documents::load(home, key, seat.addresses, &machine)?;
    documents.add_site(authority, Some(answer.membership))?;
    Ok(token.site.to_string())
}
