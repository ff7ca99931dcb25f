//! `branchline transfers`: why bytes crossed the line, and who served whom.
use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use serde_json::Value;

use super::printer::{field, table};
use crate::runtime::{self, NodeCommand};

/// Account for every pack: why its bytes crossed the line, and who served whom
///
/// Headquarters says what it sent to each site, to which inlet and by which lease. The station says what its members
/// received, from headquarters and from each other; any other node says what it received itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node's home directory
    #[arg(long, env = "BRANCHLINE_HOME", default_value = "/var/lib/branchline")]
    home: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// No node runs there.
pub fn run(args: Args) -> Result<ExitCode> {
    let accounts: Value = runtime::call(&args.home, &NodeCommand::Account)?;
    if args.json {
        println!("{accounts:#}");
    } else {
        print!("{}", text(&accounts));
    }
    Ok(ExitCode::SUCCESS)
}

fn list<'a>(account: &'a Value, name: &str) -> &'a [Value] {
    account.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text(accounts: &Value) -> String {
    let accounts = accounts.as_array().map_or(&[][..], Vec::as_slice);
    if accounts.is_empty() {
        return "nothing was transferred yet\n".to_owned();
    }
    accounts.iter().map(pack_text).collect::<Vec<_>>().join("\n")
}

fn pack_text(account: &Value) -> String {
    let package = account.get("package").and_then(Value::as_str).unwrap_or("a package that is not in the catalogue");
    let mut text = format!("{package} in site {}, pack {}\n", field(account, "site"), field(account, "pack"));
    let ratio = account.get("wan_ratio").and_then(Value::as_f64);
    let ratio = ratio.map_or_else(String::new, |ratio| format!(", wan_ratio {ratio:.4}"));
    let (crossed, length) = (field(account, "wan_bytes"), field(account, "length_bytes"));
    text += &format!("  over the line: {crossed} bytes of a pack of {length}{ratio}\n");
    for entry in list(account, "line") {
        let (to, bytes, frames) = (field(entry, "to"), field(entry, "bytes"), field(entry, "frames"));
        text += &format!("    {bytes} bytes in {frames} frames to {to}: {}\n", field(entry, "why"));
    }
    if let Some(remark) = account.get("remark").and_then(Value::as_str) {
        text += &format!("    {remark}\n");
    }
    let inside = list(account, "inside");
    if !inside.is_empty() {
        text += "  inside the site:\n";
        let columns = ["from", "to", "bytes", "frames", "duplicate_bytes"];
        let rows: Vec<Vec<String>> =
            inside.iter().map(|entry| columns.iter().map(|column| field(entry, column)).collect()).collect();
        let shown = table(&["FROM", "TO", "BYTES", "FRAMES", "TWICE"], &rows);
        text += &shown.lines().map(|line| format!("    {line}\n")).collect::<String>();
    }
    let silent: Vec<&str> = list(account, "unanswered").iter().filter_map(Value::as_str).collect();
    if !silent.is_empty() {
        text += &format!("  did not answer: {}\n", silent.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_reads_well() {
        let accounts = json!([{
            "site": "store-17", "pack": "4vJ9", "package": "big-agent 2.0", "length_bytes": 1000, "wan_bytes": 1200,
            "wan_ratio": 1.2, "remark": "200 bytes more than the pack",
            "line": [{"to": "till-1", "bytes": 1200, "frames": 12, "why": "the site's first inlet"}],
            "inside": [{"from": "till-1", "to": "till-2", "bytes": 1000, "frames": 10, "duplicate_bytes": 0}],
            "unanswered": ["till-3"],
        }]);
        insta::assert_snapshot!(text(&accounts), @r"
        big-agent 2.0 in site store-17, pack 4vJ9
          over the line: 1200 bytes of a pack of 1000, wan_ratio 1.2000
            1200 bytes in 12 frames to till-1: the site's first inlet
            200 bytes more than the pack
          inside the site:
            FROM    TO      BYTES  FRAMES  TWICE
            till-1  till-2  1000   10      0
          did not answer: till-3
        ");
        assert_eq!(text(&json!([])), "nothing was transferred yet\n");
    }
}
