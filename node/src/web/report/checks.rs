//! What was verified, from inside and from outside (R94), as sections of the page.
use branchline_station_role::station::SignedProbe;

use super::{
    ReportInput,
    page::{Budget, Cell, Section, number, plain},
    text::utc,
};

/// The checks from inside, headquarters' probe, and what else answers at the mapped address.
pub fn sections(input: &ReportInput<'_>, budget: Budget) -> [Section; 3] {
    [inside_checks(input, budget), probe(input, budget), undeclared(input, budget)]
}

/// A fault, or that there is none.
fn finding(fault: Option<&str>, budget: Budget) -> Cell {
    match fault {
        None => Cell { text: "as planned".to_owned(), class: "good" },
        Some(fault) => Cell { text: budget.line(fault), class: "bad" },
    }
}

fn inside_checks(input: &ReportInput<'_>, budget: Budget) -> Section {
    let checks = &input.session.install.checks;
    let section = Section::of(budget, "inside", "Checked from inside", &["Check", "Found"], checks, |(name, fault)| {
        vec![plain(budget.line(name)), finding(fault.as_deref(), budget)]
    });
    match &input.session.view.checked {
        None => section.lead("The configuration and the operation were not checked yet."),
        Some(faults) if faults.is_empty() => section.lead("The configuration and the operation are as planned."),
        Some(faults) => section.lead(format!("Not as planned: {} of the checks.", faults.len())),
    }
}

fn probe(input: &ReportInput<'_>, budget: Budget) -> Section {
    const TITLE: &str = "Headquarters' probe of the mapped address";
    let head: &[&str] = &["Port", "Seen"];
    if let Some(SignedProbe { document, result, .. }) = &input.session.probe {
        let lead = format!(
            "Headquarters looked at {} at {} and signed what it saw, as document {document}; the station checked the \
             signature.",
            result.mapped,
            utc(result.probed_at)
        );
        let section = Section::of(budget, "probe", TITLE, head, &result.ports, |(port, fault)| {
            vec![number(port.to_string()), finding(fault.as_deref(), budget)]
        });
        return section.lead(lead);
    }
    let section = Section::of(budget, "probe", TITLE, head, std::iter::empty::<u16>(), |_| Vec::new());
    section.lead("Headquarters has not probed the mapped address.")
}

/// What of the host answers at the mapped address although no package declares it (R94).
fn undeclared(input: &ReportInput<'_>, budget: Budget) -> Section {
    let probe = input.session.probe.as_ref().map(|probe| &probe.result);
    let tried = probe.map_or(&[][..], |probe| &probe.undeclared);
    let head: &[&str] = &["Port", "Seen"];
    let section = Section::of(budget, "undeclared", "Undeclared ports at the mapped address", head, tried, |tried| {
        let seen = match tried.answers {
            true => Cell { text: "answers through the mapping".to_owned(), class: "bad" },
            false => Cell { text: "does not answer".to_owned(), class: "good" },
        };
        vec![number(tried.port.to_string()), seen]
    });
    let open = tried.iter().filter(|tried| tried.answers).count();
    section.lead(match (probe, tried.len(), open) {
        (None, ..) => "Headquarters has not probed the mapped address.".to_owned(),
        (_, 0, _) => {
            "Headquarters tried none: the survey saw nothing else that the network reaches, or nothing could be tried."
                .to_owned()
        }
        (_, all, 0) => format!("Headquarters tried what the host listens on besides, {all} in number: none answers."),
        (_, all, open) => {
            format!("Headquarters tried what the host listens on besides, {all} in number: {open} of them answer.")
        }
    })
}
