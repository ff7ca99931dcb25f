//! What headquarters' probe of a mapped address means for its host (R94). Pure.
use std::{collections::BTreeSet, net::Ipv4Addr};

use branchline_protocol::{catalogue::UndeclaredRule, charter::ProbeResult};

use super::words::PlanSummary;

/// Ports that one sentence names.
const PORTS_NAMED_MAX: usize = 8;

/// The faults of a probe, for which the host is unmapped, and what people should know of it besides.
pub(super) fn judge(
    plan: &PlanSummary,
    inside: Ipv4Addr,
    probe: &ProbeResult,
    rule: UndeclaredRule,
) -> (Vec<String>, Vec<String>) {
    let seen: BTreeSet<u16> = probe.ports.iter().map(|(port, _)| *port).collect();
    let missing = plan
        .probes
        .iter()
        .filter(|(port, _)| !seen.contains(port))
        .map(|(port, _)| format!("port {port} was not probed"));
    let faults = probe
        .ports
        .iter()
        .filter_map(|(port, fault)| fault.as_ref().map(|fault| format!("port {port} at {}: {fault}", probe.mapped)));
    let mut faults: Vec<String> = faults.chain(missing).collect();
    let undeclared = about_undeclared(plan, inside, probe, rule);
    let mut findings = Vec::new();
    match rule {
        UndeclaredRule::Refuse => faults.extend(undeclared),
        UndeclaredRule::Report => findings.extend(undeclared),
    }
    if plan.undeclared.left_out > 0 {
        let (tried, more) = (plan.undeclared.ports.len(), plan.undeclared.left_out);
        findings.push(format!(
            "{inside} listens on {more} undeclared ports more than the {tried} that headquarters tries; whether they \
             answer through the mapping is not known"
        ));
    }
    (faults, findings)
}

/// What undeclared ports answered, and which were not tried.
fn about_undeclared(
    plan: &PlanSummary,
    inside: Ipv4Addr,
    probe: &ProbeResult,
    rule: UndeclaredRule,
) -> impl Iterator<Item = String> {
    let declared: BTreeSet<u16> = plan.probes.iter().map(|(port, _)| *port).collect();
    let tried: BTreeSet<u16> = probe.undeclared.iter().map(|tried| tried.port).collect();
    let answer = probe.undeclared.iter().filter(|tried| tried.answers && !declared.contains(&tried.port));
    let answer: Vec<u16> = answer.map(|tried| tried.port).collect();
    let untried: Vec<u16> = plan.undeclared.ports.iter().filter(|port| !tried.contains(port)).copied().collect();
    let open = (!answer.is_empty()).then(|| {
        let (verb, them) = if answer.len() == 1 { ("answers", "it") } else { ("answer", "them") };
        let fact = format!("{} of {inside} {verb} through the mapping, but no package declares {them}", named(&answer));
        let remedy = format!("let the router's filter pass {} to {inside}", only(&declared));
        match rule {
            UndeclaredRule::Refuse => {
                format!("{fact}: {remedy}, or set `undeclared_ports = \"report\"` in the site policy")
            }
            UndeclaredRule::Report => format!("{fact}: {remedy}"),
        }
    });
    let unknown = (!untried.is_empty())
        .then(|| format!("headquarters did not try {}, which no package declares; see its log", named(&untried)));
    open.into_iter().chain(unknown)
}

fn named(ports: &[u16]) -> String {
    let list: Vec<String> = ports.iter().take(PORTS_NAMED_MAX).map(u16::to_string).collect();
    let more = match ports.len().saturating_sub(PORTS_NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} {}{more}", if ports.len() == 1 { "port" } else { "ports" }, list.join(", "))
}

fn only(declared: &BTreeSet<u16>) -> String {
    if declared.is_empty() {
        return "nothing".to_owned();
    }
    let list: Vec<String> = declared.iter().map(|port| format!("{port}/tcp")).collect();
    format!("only {}", list.join(", "))
}

#[cfg(test)]
mod tests {
    use branchline_protocol::{
        charter::TriedPort,
        ids::{DocumentHash, Hash, NodeId, PlanHash, SessionId},
        plan::UndeclaredPorts,
        time::UnixSeconds,
    };

    use super::*;

    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);

    fn plan(undeclared: &[u16]) -> PlanSummary {
        PlanSummary {
            plan: PlanHash(Hash::of(b"plan")),
            catalogue: DocumentHash(Hash::of(b"catalogue")),
            policy: DocumentHash(Hash::of(b"policy")),
            packs: vec![],
            images: vec![],
            group: None,
            packages: vec![],
            modules: vec![],
            thresholds: vec![],
            probes: vec![(9100, "/metrics".into())],
            undeclared: UndeclaredPorts { ports: undeclared.to_vec(), left_out: 0 },
            scrape: vec![],
        }
    }

    fn probe(fault: Option<&str>, undeclared: &[(u16, bool)]) -> ProbeResult {
        let tried = |(port, answers): &(u16, bool)| TriedPort { port: *port, answers: *answers };
        ProbeResult {
            site: "store-17".parse().unwrap(),
            session: SessionId { node: NodeId([7; 32]), generation: 1 },
            plan: PlanHash(Hash::of(b"plan")),
            mapped: Ipv4Addr::new(198, 51, 100, 65),
            ports: vec![(9100, fault.map(str::to_owned))],
            undeclared: undeclared.iter().map(tried).collect(),
            probed_at: UnixSeconds(1),
        }
    }

    const NOTHING: (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());

    #[test]
    fn what_is_as_declared_is_no_news() {
        let probe = probe(None, &[(22, false), (7400, false)]);
        assert_eq!(judge(&plan(&[22, 7400]), INSIDE, &probe, UndeclaredRule::Refuse), NOTHING);
        assert_eq!(judge(&plan(&[22, 7400]), INSIDE, &probe, UndeclaredRule::Report), NOTHING);
    }

    #[test]
    fn an_undeclared_port_that_answers_is_a_fault_or_a_finding_by_the_policy() {
        let probe = probe(None, &[(22, true), (7400, false)]);
        let (faults, findings) = judge(&plan(&[22, 7400]), INSIDE, &probe, UndeclaredRule::Refuse);
        assert_eq!(
            faults,
            ["port 22 of 10.1.1.1 answers through the mapping, but no package declares it: let the router's filter \
              pass only 9100/tcp to 10.1.1.1, or set `undeclared_ports = \"report\"` in the site policy"]
        );
        assert!(findings.is_empty());
        let (faults, findings) = judge(&plan(&[22, 7400]), INSIDE, &probe, UndeclaredRule::Report);
        assert!(faults.is_empty());
        assert_eq!(
            findings,
            ["port 22 of 10.1.1.1 answers through the mapping, but no package declares it: let the router's filter \
              pass only 9100/tcp to 10.1.1.1"]
        );
    }

    #[test]
    fn what_a_package_declares_by_now_is_no_fault_and_a_declared_fault_is_one_under_either_rule() {
        let probe = probe(Some("connection refused"), &[(9100, true)]);
        for rule in [UndeclaredRule::Refuse, UndeclaredRule::Report] {
            let (faults, findings) = judge(&plan(&[]), INSIDE, &probe, rule);
            assert_eq!(faults, ["port 9100 at 198.51.100.65: connection refused"]);
            assert!(findings.is_empty());
        }
    }

    #[test]
    fn a_port_that_was_not_tried_is_not_taken_for_closed() {
        let (faults, _) = judge(&plan(&[22, 80]), INSIDE, &probe(None, &[(80, false)]), UndeclaredRule::Refuse);
        assert_eq!(faults, ["headquarters did not try port 22, which no package declares; see its log"]);
        let mut many = plan(&[22]);
        many.undeclared.left_out = 3;
        let (faults, findings) = judge(&many, INSIDE, &probe(None, &[(22, false)]), UndeclaredRule::Refuse);
        assert!(faults.is_empty());
        assert!(findings[0].starts_with("10.1.1.1 listens on 3 undeclared ports more than the 1 that"), "{findings:?}");
    }

    #[test]
    fn of_many_ports_a_sentence_names_the_first() {
        let all: Vec<(u16, bool)> = (1..=20).map(|port| (port, true)).collect();
        let ports: Vec<u16> = all.iter().map(|(port, _)| *port).collect();
        let (faults, _) = judge(&plan(&ports), INSIDE, &probe(None, &all), UndeclaredRule::Refuse);
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].starts_with("ports 1, 2, 3, 4, 5, 6, 7, 8 and 12 more of 10.1.1.1 answer through"),
            "{faults:?}"
        );
    }
}
