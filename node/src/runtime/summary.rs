//! A plan in the words of the session machine.
use branchline_protocol::plan::Plan;
use branchline_station_role::station::PlanSummary;

/// What the session machine needs of a plan.
pub fn summary_of(plan: &Plan) -> PlanSummary {
    let ports = plan.ports();
    let declared = |scraped: bool| {
        ports
            .iter()
            .filter(move |port| port.scrape || !scraped)
            .map(|port| (port.port, port.http_path.clone()))
            .collect::<Vec<_>>()
    };
    PlanSummary {
        plan: plan.hash(),
        catalogue: plan.catalogue,
        policy: plan.policy,
        packs: plan.packs(),
        images: plan.images(),
        group: plan.group.as_ref().map(|group| group.name.clone()),
        packages: plan.packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect(),
        modules: plan.module_names(),
        thresholds: plan.threshold_values(),
        probes: declared(false),
        scrape: declared(true),
    }
}
