//! The loop around the machines: the only event loop and the only clock of the product.
mod clock;
mod control;
mod headquarters;
mod probe;
mod pump;

pub use clock::{Clock, wall_time};
pub use control::{ControlCall, DocumentKindName, HostSelector, NodeCommand, call, listen};
pub use headquarters::{HeadquartersDesk, HeadquartersEffects};
pub use pump::{Effects, Pump, PumpHandle, PumpInputs, channel};
