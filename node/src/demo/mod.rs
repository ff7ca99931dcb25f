//! Parts of `branchline demo`, which shows the whole path on one machine without root.
pub mod router;
