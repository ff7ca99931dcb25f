//! From a chosen package to everything that will be done: modules, thresholds, templates (R81).
use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

use super::{
    select::{Scope, SelectionError},
    template::{fill, fill_argument},
    types::{
        ConfigurationFile, HealthCheck, PlannedModule, PlannedPackage, PlannedThreshold, PortDeclaration, Service,
        Step, StepUndo,
    },
};
use crate::catalogue::{
    CommandLine, ModuleDefinition, Package, StepAction, StepDefinition, ThresholdDefinition,
    rule::{PortNumber, cut},
};

/// Longest value of a threshold in bytes.
const THRESHOLD_BYTES_MAX: usize = 256;

/// Fills one package in.
pub(super) fn complete(scope: &mut Scope<'_>, package: &Package) -> Result<PlannedPackage, SelectionError> {
    let definition = &package.definition;
    let modules = modules(scope, package)?;
    let thresholds = thresholds(scope, package, &modules)?;
    scope.facts.set("plan", plan_facts(package, &modules, &thresholds));
    let filler = Filler { scope, package };
    let service = definition.service.as_ref();
    let planned = PlannedPackage {
        name: definition.name.clone(),
        version: definition.version.clone(),
        format: definition.format,
        image: package.payload.image,
        pack: package.payload.pack,
        pack_bytes: package.payload.pack_bytes,
        raw_bytes: package.payload.raw_bytes,
        sha256: package.payload.sha256,
        file_name: package.payload.file_name.clone(),
        files: filler.files()?,
        steps: definition.steps.iter().map(|step| filler.step(step)).collect::<Result<_, _>>()?,
        service: service.map(|_| filler.service()).transpose()?.flatten(),
        health: filler.health()?,
        ports: filler.ports()?,
        modules,
        thresholds,
    };
    Ok(planned)
}

/// The modules that are switched on.
fn modules(scope: &mut Scope<'_>, package: &Package) -> Result<Vec<PlannedModule>, SelectionError> {
    let mut modules = Vec::new();
    let name = &package.definition.name;
    for module in &package.definition.modules {
        let (on, rule, fact, reason) = is_on(scope, name, module)?;
        let subject = format!("module {} of {name}", module.name);
        scope.explain(on, subject, &rule, fact, reason.clone());
        if on {
            modules.push(PlannedModule { name: module.name.clone(), reason });
        }
    }
    Ok(modules)
}

fn is_on(
    scope: &Scope<'_>,
    package: &str,
    module: &ModuleDefinition,
) -> Result<(bool, String, String, String), SelectionError> {
    let wishes = scope.policy.modules.iter().enumerate();
    for (index, wish) in wishes.filter(|(_, wish)| wish.package == package && wish.module == module.name) {
        if scope.applies(wish.when.as_ref(), &format!("site policy, modules[{index}].when"))? {
            let text = format!("the site wants it {}: {}", if wish.enabled { "on" } else { "off" }, wish.reason);
            return Ok((wish.enabled, "site policy".to_owned(), String::new(), text));
        }
    }
    let (on, fact) = scope.holds(&module.when, &format!("module {} of {package}, when", module.name))?;
    Ok((on, module.when.to_string(), fact, module.reason.clone()))
}

/// The thresholds that count for the modules that are on.
fn thresholds(
    scope: &mut Scope<'_>,
    package: &Package,
    modules: &[PlannedModule],
) -> Result<Vec<PlannedThreshold>, SelectionError> {
    let mut planned = Vec::new();
    let name = &package.definition.name;
    for threshold in &package.definition.thresholds {
        let subject = format!("threshold {} of {name}", threshold.name);
        let needed = threshold.module.as_ref().is_none_or(|wanted| modules.iter().any(|module| module.name == *wanted));
        if !needed {
            let text = format!("module {} is off", threshold.module.as_deref().unwrap_or(""));
            scope.explain(false, subject, "its module", String::new(), text);
            continue;
        }
        let (value, rule, fact, reason) = value(scope, name, threshold, &subject)?;
        if value.len() > THRESHOLD_BYTES_MAX || value.chars().any(char::is_control) {
            let reason = format!("its value {:?} is too long or has control characters", cut(value, 60));
            return Err(SelectionError::Value { subject, reason });
        }
        let text = format!("{value} {}: {reason}", threshold.unit);
        scope.explain(true, subject, &rule, fact, text.replace(" :", ":"));
        planned.push(PlannedThreshold { name: threshold.name.clone(), value, unit: threshold.unit.clone(), reason });
    }
    Ok(planned)
}

/// Value, rule, fact and reason, from the strongest source that has one.
fn value(
    scope: &Scope<'_>,
    package: &str,
    threshold: &ThresholdDefinition,
    subject: &str,
) -> Result<(String, String, String, String), SelectionError> {
    let wishes = scope.policy.thresholds.iter().enumerate();
    for (index, wish) in wishes.filter(|(_, wish)| wish.package == package && wish.threshold == threshold.name) {
        if scope.applies(wish.when.as_ref(), &format!("site policy, thresholds[{index}].when"))? {
            let (value, fact) = scope.evaluate(&wish.value, &format!("site policy, thresholds[{index}].value"))?;
            let text = scalar(&value, subject)?;
            return Ok((
                text,
                format!("site policy: {}", wish.value),
                fact,
                format!("the site sets it: {}", wish.reason),
            ));
        }
    }
    let advice = scope.descriptor.thresholds.iter().find(|advice| {
        advice.name == threshold.name && threshold.module.as_ref().is_none_or(|module| *module == advice.module)
    });
    if let Some(advice) = advice {
        let fact = format!("signature {} advises {} {}", advice.signature, advice.value, advice.unit);
        return Ok((
            advice.value.clone(),
            "survey".to_owned(),
            fact,
            format!("the survey advises it: {}", advice.reason),
        ));
    }
    match &threshold.value {
        Some(rule) => {
            let (value, fact) = scope.evaluate(rule, subject)?;
            Ok((scalar(&value, subject)?, rule.to_string(), fact, threshold.reason.clone()))
        }
        None => {
            Ok((threshold.default.clone(), "default".to_owned(), String::new(), "nothing says otherwise".to_owned()))
        }
    }
}

fn scalar(value: &Value, subject: &str) -> Result<String, SelectionError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        _ => {
            let reason =
                format!("its value must be a number, a text, true or false, but is {}", cut(value.to_string(), 80));
            Err(SelectionError::Value { subject: subject.to_owned(), reason })
        }
    }
}

/// What templates and port rules read as `plan`.
fn plan_facts(package: &Package, modules: &[PlannedModule], thresholds: &[PlannedThreshold]) -> Value {
    let definition = &package.definition;
    let is_on = |module: &ModuleDefinition| modules.iter().any(|on| on.name == module.name);
    let mut fragments: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in &definition.modules {
        for (place, pieces) in
            module.on.iter().filter(|_| is_on(module)).chain(module.off.iter().filter(|_| !is_on(module)))
        {
            fragments.entry(place).or_default().extend(pieces.iter().map(String::as_str));
        }
        // A place without pieces is an empty list, so that templates need no guard.
        for place in module.on.keys().chain(module.off.keys()) {
            fragments.entry(place).or_default();
        }
    }
    let thresholds: BTreeMap<&str, Value> =
        thresholds.iter().map(|threshold| (threshold.name.as_str(), typed(&threshold.value))).collect();
    json!({
        "package": definition.name,
        "version": definition.version,
        "modules": modules.iter().map(|module| &module.name).collect::<Vec<_>>(),
        "thresholds": thresholds,
        "fragments": fragments,
    })
}

/// A threshold's text as what it looks like, so that configuration files get numbers as numbers.
fn typed(text: &str) -> Value {
    match (text.parse::<i64>(), text.parse::<f64>(), text.parse::<bool>()) {
        (Ok(number), _, _) => number.into(),
        (_, Ok(number), _) if number.is_finite() => number.into(),
        (_, _, Ok(truth)) => truth.into(),
        _ => text.into(),
    }
}

/// Fills the templates of one package in.
struct Filler<'a, 'b> {
    scope: &'a Scope<'b>,
    package: &'a Package,
}

impl Filler<'_, '_> {
    fn wrong(&self, key: &str, reason: String) -> SelectionError {
        SelectionError::Value { subject: format!("package {}, {key}", self.package.definition.name), reason }
    }

    fn fill(&self, key: &str, template: &str) -> Result<String, SelectionError> {
        fill(template, &self.scope.facts).map_err(|reason| self.wrong(key, reason))
    }

    fn arguments(&self, key: &str, templates: &[String]) -> Result<Vec<String>, SelectionError> {
        let filled = templates.iter().map(|template| fill_argument(template, &self.scope.facts));
        Ok(filled.collect::<Result<Vec<_>, _>>().map_err(|reason| self.wrong(key, reason))?.concat())
    }

    fn files(&self) -> Result<Vec<ConfigurationFile>, SelectionError> {
        let file = |file: &crate::catalogue::FileTemplate| {
            Ok(ConfigurationFile {
                path: file.path.clone(),
                mode: file.mode,
                owner: file.owner.clone(),
                content: self.fill(&format!("file {}", file.path), &file.content)?,
            })
        };
        self.package.definition.files.iter().map(file).collect()
    }

    fn command(&self, key: &str, command: &CommandLine) -> Result<CommandLine, SelectionError> {
        Ok(CommandLine { program: command.program.clone(), arguments: self.arguments(key, &command.arguments)? })
    }

    fn step(&self, step: &StepDefinition) -> Result<Step, SelectionError> {
        let action = match &step.action {
            StepAction::RunCommand(command) => StepAction::RunCommand(self.command("steps", command)?),
            StepAction::WriteFile { path, mode, owner, content } => StepAction::WriteFile {
                path: path.clone(),
                mode: *mode,
                owner: owner.clone(),
                content: self.fill(&format!("file {path}"), content)?,
            },
            other => other.clone(),
        };
        let undo = match (&action, &step.undo) {
            (_, Some(command)) => StepUndo::RunCommand(self.command("steps", command)?),
            (StepAction::RunCommand(_), None) => StepUndo::Final,
            (StepAction::CreateUser { .. }, None) => StepUndo::RemoveUser,
            _ => StepUndo::RestorePaths,
        };
        Ok(Step { action, undo })
    }

    fn service(&self) -> Result<Option<Service>, SelectionError> {
        let Some(service) = &self.package.definition.service else { return Ok(None) };
        let variable = |(name, value): (&String, &String)| {
            Ok((name.clone(), self.fill(&format!("service.environment.{name}"), value)?))
        };
        Ok(Some(Service {
            name: service.name.clone(),
            program: service.program.clone(),
            arguments: self.arguments("service.arguments", &service.arguments)?,
            user: service.user.clone(),
            environment: service.environment.iter().map(variable).collect::<Result<_, _>>()?,
            unit: service.unit,
        }))
    }

    fn health(&self) -> Result<Option<HealthCheck>, SelectionError> {
        let Some(health) = &self.package.definition.health else { return Ok(None) };
        let address = self.fill("health.address", health.address.as_deref().unwrap_or("127.0.0.1"))?;
        if address.parse::<IpAddr>().is_err() {
            return Err(self.wrong("health.address", format!("{address:?} is not an IP address")));
        }
        Ok(Some(HealthCheck {
            address,
            port: self.port("health.port", &health.port)?,
            http_path: health.http_path.clone(),
            expected_text: health.expected_text.clone(),
            timeout_seconds: health.timeout_seconds,
        }))
    }

    fn ports(&self) -> Result<Vec<PortDeclaration>, SelectionError> {
        let declare = |(index, port): (usize, &crate::catalogue::PortDefinition)| {
            Ok(PortDeclaration {
                port: self.port(&format!("ports[{index}].port"), &port.port)?,
                http_path: port.http_path.clone(),
                scrape: port.scrape,
            })
        };
        self.package.definition.ports.iter().enumerate().map(declare).collect()
    }

    fn port(&self, key: &str, port: &PortNumber) -> Result<u16, SelectionError> {
        let rule = match port {
            PortNumber::Number(number) => return Ok(*number),
            PortNumber::Rule(rule) => rule,
        };
        let (value, _) = self.scope.evaluate(rule, &format!("package {}, {key}", self.package.definition.name))?;
        let number = value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
        number.ok_or_else(|| {
            self.wrong(key, format!("the rule `{rule}` gives {value}, which is not a port (1 to 65535)"))
        })
    }
}
