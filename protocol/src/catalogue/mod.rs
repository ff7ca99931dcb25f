//! What may be installed, and what a site wishes: two signed documents that people write as TOML (R60, R61, R81, R122).
//!
//! A [`Catalogue`] is signed by the charter's catalogue key and says everything that installation may do: payloads by
//! image and pack, the rules that choose them, modules, thresholds, conflicts, configuration files, steps, services,
//! ports. A [`SitePolicy`] is signed by an administrator and only narrows or tunes it. Rules are CEL
//! ([`rule::Rule`]) over the facts of [`crate::survey::Descriptor::facts`]. [`trust::DocumentMemory`] keeps the highest
//! versions that a verifier has seen.
//!
//! Non-goals: no rule can read anything but the facts, no definition can name a command that is not in its own payload.

mod check;
pub mod conflict;
pub mod module;
pub mod package;
pub mod policy;
pub mod rule;
pub mod threshold;
pub mod trust;

pub use conflict::{ConflictKind, ConflictRule};
pub use module::ModuleDefinition;
pub use package::{
    Catalogue, CommandLine, DefinitionError, FileTemplate, HealthDefinition, Package, PackageDefinition, PatchOffer,
    Payload, PayloadFormat, PortDefinition, ServiceDefinition, StepAction, StepDefinition, SystemdUnit,
};
pub use policy::{ModuleOverride, PackageWish, SitePolicy, ThresholdOverride, UndeclaredRule, UpdateTravel, Wish};
pub use rule::{Rule, RuleError};
pub use threshold::ThresholdDefinition;
pub use trust::DocumentMemory;

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
