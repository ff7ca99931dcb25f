//! The loop around the machines: the only event loop and the only clock of the product.
//!
//! | file | holds |
//! | --- | --- |
//! | `pump` | the loop: inputs, journal, outputs |
//! | `clock` | the two clocks |
//! | `node` | one node: its parts, its roles, what peers may ask |
//! | `notices` | what people should see, whatever the role |
//! | `moving` | another address of this machine |
//! | `links` | who answers at the inside addresses of hosts |
//! | `stationing`, `handover` | taking and leaving the station role, and what a planned move carries over |
//! | `host`, `station`, `headquarters` | what each role's machine wants done |
//! | `surveys`, `selecting`, `packs`, `leasing`, `crossing`, `probe` | the work itself |
//! | `answers` | who waits for what a desk says |
//! | `staging` | packs ahead of the sessions that need them |
//! | `bandwidth`, `line` | the rates in force, and the inlet's use of the line |
//! | `accounting` | who sent what to whom, gathered over a site |
//! | `control`, `commands` | what commands may ask |
mod accounting;
mod answers;
mod bandwidth;
mod clock;
mod commands;
mod control;
mod crossing;
mod handover;
mod headquarters;
mod host;
mod leasing;
mod line;
mod links;
mod machine;
mod moving;
mod node;
mod notices;
mod own_session;
mod packs;
mod planning;
mod probe;
mod pump;
mod renewals;
mod resident;
mod selecting;
mod shutdown;
mod staging;
mod station;
mod stationing;
mod surveys;

pub use clock::{Clock, wall_time};
pub use control::{ControlCall, DocumentKindName, HostSelector, NodeCommand, call, call_patiently, listen};
pub use headquarters::{HeadquartersDesk, HeadquartersEffects};
pub use machine::{machine_identifier, machine_name};
pub use moving::Ended;
pub use node::run_node;
pub use notices::{Cause, Notices};
pub use planning::{HostPlan, KnownHost, PlanFilter};
pub use pump::{Effects, Pump, PumpHandle, PumpInputs, channel};
pub use shutdown::requested as shutdown_requested;
pub use staging::{PackSelector, PacksCommand};
pub use surveys::{OpenError, OwnSurvey, Surveys};
