//! What the stepper shows: what happens in a word and a line, and each machine as names and values.
use std::fmt::Write;

use branchline_protocol::wire::bulk::BulkMessage;

use super::{
    SiteWorld,
    happening::{Happening, Who},
};
use crate::{
    recording::{Step, View},
    world::driven::Process,
};

/// Longest detail of one step, in characters.
const DETAIL_CHARACTERS_MAX: usize = 240;

fn cut(text: String) -> String {
    match text.char_indices().nth(DETAIL_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A happening's name, and its content without the frames' bytes.
fn describe(happening: &Happening) -> (String, String) {
    let detail = match happening {
        Happening::Bulk { from, message, .. } => match &**message {
            BulkMessage::Frame { index, bytes, .. } => {
                format!("from {from:?}: frame {index}, {} bytes", bytes.len())
            }
            BulkMessage::ShowLease(_) => format!("from {from:?}: a lease"),
            other => format!("from {from:?}: {other:?}"),
        },
        Happening::Directive(_, directive) => {
            format!("{} {:?} {:?}", directive.revision, directive.stage, directive.order)
        }
        Happening::Report(host, report) => {
            format!("from till-{host}: {} {:?}, {} events", report.revision, report.state, report.events.len())
        }
        Happening::SiteReport(report) => format!(
            "{} approvals, {} probes, {} profiles",
            report.approvals.len(),
            report.probes.len(),
            report.profiles.len()
        ),
        Happening::Answer(answer) => format!(
            "{} approvals, {} probes, {} grants",
            answer.approvals.len(),
            answer.probes.len(),
            answer.grants.len()
        ),
        Happening::Lease(_, lease, _) => format!("lease {} of pack {}", lease.sequence, lease.pack.0.short()),
        other => {
            let text = format!("{other:?}");
            let content = text.split_once(['(', '{', ' ']).map_or("", |(_, content)| content);
            content.trim_end_matches([')', '}']).trim().to_owned()
        }
    };
    let text = format!("{happening:?}");
    let name = text.split(['(', '{', ' ']).next().unwrap_or_default();
    (name.to_owned(), cut(detail))
}

impl SiteWorld {
    pub(super) fn begin_step(&mut self, happening: &Happening) {
        let Some(recorder) = &mut self.recorder else { return };
        let (event, detail) = describe(happening);
        let addressee = happening.addressee().or(match happening {
            Happening::Crash(who) | Happening::Restart(who) => Some(*who),
            _ => None,
        });
        let who = addressee.map(|who| who.to_string()).unwrap_or_default();
        let at_microseconds = self.agenda.now().monotonic.0;
        recorder.begin(Step { at_microseconds, event, who, detail, ..Step::default() }, addressee);
    }

    pub(super) fn end_step(&mut self) {
        let Some(recorder) = &self.recorder else { return };
        let views = recorder.touched().into_iter().map(|who| (who.to_string(), self.view(who)));
        let router = ("router".to_owned(), self.view_of_router());
        let views = views.chain([router]).collect();
        if let Some(recorder) = &mut self.recorder {
            recorder.end(views);
        }
    }

    /// What a machine looks like now.
    pub fn view(&self, who: Who) -> View {
        let process: &dyn Process = match who {
            Who::Headquarters => &self.headquarters.machine,
            Who::Station => &self.station,
            Who::Host(number) => &self.hosts[number].machine,
        };
        let mut view = View::new();
        let mut show = |key: &str, value: String| view.insert(key.to_owned(), value);
        show("process", format!("{}, life {}", if process.is_up() { "up" } else { "down" }, process.life()));
        if self.is_disk_full(who) {
            show("disk", "full".to_owned());
        }
        if let Some(deadline) = process.deadline() {
            show("next deadline", format!("{:.3} s: {}", deadline.at.0 as f64 / 1e6, deadline.reason));
        }
        match who {
            Who::Headquarters => self.view_headquarters(&mut view),
            Who::Station => self.view_station(&mut view),
            Who::Host(number) => self.view_host(number, &mut view),
        }
        view
    }

    fn view_headquarters(&self, view: &mut View) {
        view.insert("targets".into(), self.headquarters.targets.len().to_string());
        let Some(machine) = self.headquarters.machine.machine() else { return };
        view.insert("requests that wait".into(), machine.pending_approvals().len().to_string());
        view.insert("events durable".into(), self.headquarters.machine.disk().durable_to().0.to_string());
    }

    fn view_station(&self, view: &mut View) {
        let Some(machine) = self.station.machine.machine() else { return };
        let station = machine.station();
        view.insert("epoch".into(), station.setup().epoch.to_string());
        view.insert("slots held".into(), format!("{} of {}", station.slots_held(), self.scenario.sessions_max));
        view.insert("events durable".into(), self.station.machine.disk().durable_to().0.to_string());
        for session in station.sessions().filter(|session| session.is_current) {
            let name =
                self.host_number(session.session.node).map_or_else(String::new, |number| format!("till-{number}"));
            let mut text = format!("generation {}, {:?}", session.session.generation, session.stage);
            if let Some(wait) = station.wait_of(session.session.node) {
                let _ = write!(text, ", waits: {wait:?}");
            }
            view.insert(format!("session of {name}"), text);
        }
        for mapping in machine.addresses().mappings() {
            let name = self.host_number(mapping.node).map_or_else(String::new, |number| format!("till-{number}"));
            let row = mapping.row.map_or_else(|| "no row".to_owned(), |row| format!("row {row}"));
            let confirmed = if mapping.confirmed { "confirmed" } else { "not confirmed" };
            view.insert(format!("mapping of {name}"), format!("{}, {row}, {confirmed}", mapping.mapped));
        }
    }

    fn view_host(&self, number: usize, view: &mut View) {
        let host = &self.hosts[number];
        view.insert("inside address".into(), host.inside.to_string());
        if let Some(plan) = host.installing {
            view.insert("installer".into(), format!("carries out plan {}", plan.0.short()));
        }
        for progress in host.swarm.iter().flat_map(|swarm| swarm.progress().collect::<Vec<_>>()) {
            let inlet = if progress.inlet { ", inlet" } else { "" };
            let text = format!("{} of {} frames{inlet}", progress.frames, progress.frames_total);
            view.insert(format!("pack {}", progress.pack.0.short()), text);
        }
        let Some(machine) = host.machine.machine() else { return };
        let session = machine.session();
        view.insert("session".into(), format!("generation {}, revision {}", session.generation, session.revision));
        view.insert("state".into(), cut(format!("{:?}", session.state)));
        view.insert("events that wait".into(), session.events.len().to_string());
        if let Some(standing) = &session.standing {
            let text = format!("{}/{}: {:?}", standing.epoch, standing.revision, standing.order);
            view.insert("order".into(), cut(text));
        }
    }

    fn view_of_router(&self) -> View {
        let rows = self.router.mappings();
        rows.iter().map(|(mapped, inside)| (mapped.to_string(), format!("maps to {inside}"))).collect()
    }
}
