//! Container logs: the format that the runtime writes, reading them for people, rotating them.

pub mod cri_format;
pub mod read;
pub mod rotate;
