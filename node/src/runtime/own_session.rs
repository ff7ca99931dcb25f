//! What a host's own operator sees of its session, on the host itself (R83).
use anyhow::{Context, Result, bail};
use branchline_protocol::session::HostMachine;
use serde_json::{Value, json};

use super::{commands::is_meant, machine::machine_name, node::Node};

/// Where this host's own session stands, by the host's word and by the station's; `None` where this node is no host.
///
/// # Errors
/// The node is ending.
pub async fn view(node: &Node) -> Result<Option<Value>> {
    let Some(host) = node.host() else { return Ok(None) };
    let name = machine_name(&node.config.root);
    Ok(Some(host.query(move |machine| shown(machine, &name)).await?))
}

/// The same with the newest events, as the station lists all of them; `host` is this host's name or identity.
///
/// # Errors
/// Another host is meant, this node is no host, or it is ending.
pub async fn with_events(node: &Node, host: &str) -> Result<Value> {
    let handle =
        node.host().context("sessions are shown at the station and at the host itself; this node is neither")?;
    let name = machine_name(&node.config.root);
    if !is_meant(host, &name, node.documents.node()) {
        bail!("this node knows the session of its own host only ({name}); ask the station for {host:?}");
    }
    let answer = handle.query(move |machine| {
        let mut value = shown(machine, &name);
        value["events"] = machine.session().events.newest().map(|event| json!(event)).collect();
        value
    });
    answer.await
}

fn shown(machine: &HostMachine, name: &str) -> Value {
    let session = machine.session();
    json!({
        "session": machine.session_id().to_string(),
        "host_name": name,
        "state": session.state,
        "stage": session.standing.as_ref().map(|standing| standing.stage),
        "inside": machine.report().inside,
        "installed": session.installed.as_ref().map(|installed| installed.plan),
        "reason": machine.shown(),
    })
}
