//! The one place that knows how local metadata (vote, log ids, membership) is kept on disk.
//! Nothing that another member must read goes through here.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

fn layout() -> impl bincode::config::Config {
    bincode::config::standard().with_big_endian()
}

pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, layout()).map_err(io::Error::other)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let (value, read) = bincode::serde::decode_from_slice(bytes, layout())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if read != bytes.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "trailing bytes after metadata"));
    }
    Ok(value)
}
