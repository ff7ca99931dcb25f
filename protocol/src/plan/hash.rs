//! What names a plan.
use super::types::Plan;
use crate::ids::{Hash, PlanHash};

impl Plan {
    /// The plan's name: the hash of everything that will be done to the host.
    ///
    /// It covers the JSON form of the plan without its explanation, because two versions of Branchline that agree on
    /// every act may word the reasons differently (R124), and must still agree on the plan.
    pub fn hash(&self) -> PlanHash {
        let acts = Self { explanation: Vec::new(), ..self.clone() };
        let text = serde_json::to_string(&acts).unwrap_or_default();
        debug_assert!(!text.is_empty(), "a plan has text keys only and serializes to JSON");
        PlanHash(Hash::in_domain("branchline plan 1", text.as_bytes()))
    }
}
