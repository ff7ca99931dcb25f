//! The loop around the machines: the only event loop and the only clock of the product.
mod clock;
mod pump;

pub use clock::{Clock, wall_time};
pub use pump::{Effects, Pump, PumpHandle, PumpInputs, channel};
