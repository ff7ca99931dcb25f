//! What a node is told: its home directory, its configuration file, its keys.
mod bundle;
mod home;
mod input;
mod keys;
mod raw;
mod seat;
mod zone;

pub use bundle::{Bundle, BundleKey, read_document, write_document};
pub use home::{Home, write_atomically};
pub use input::open_input;
pub use keys::{create_key, random_bytes, read_key};
pub use raw::{BandwidthConfig, HeadquartersConfig, InstallerConfig, NodeConfig, StationConfig};
pub use seat::{DoorCertificate, Seat};
pub use zone::Zone;
