//! Why a read or a write has no result, in terms that a `Status` can be made of.

use pintle_store_api::{ReadError, Rejection, WriteError};

/// One error for all operations; each says whether the write may have happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such object.
    #[error("not found")]
    NotFound,
    /// The key is taken.
    #[error("already exists")]
    Exists,
    /// The object changed since it was read.
    #[error("conflict")]
    Conflict,
    /// The revision was compacted, or the ring has moved on.
    #[error("{message}")]
    Expired {
        /// In upstream's words.
        message: String,
    },
    /// The cache has not seen this revision yet.
    #[error("too large resource version: {requested}, current: {current}")]
    TooLargeResourceVersion {
        /// Asked for.
        requested: u64,
        /// Known.
        current: u64,
    },
    /// A continue token or a resource version that is none.
    #[error("{0}")]
    BadContinue(String),
    /// The object exceeds what the store takes.
    #[error("request is too large")]
    TooLarge,
    /// What is stored cannot be read.
    #[error("{0}")]
    Corrupt(String),
    /// Certainly not done; try again later.
    #[error("{0}")]
    Unavailable(String),
    /// A write that may have been done or not.
    #[error("{0}")]
    Unknown(String),
    /// Refused by the store for good.
    #[error("{0}")]
    Rejected(String),
}

impl Error {
    /// Upstream's text for a revision that is gone.
    pub(crate) fn expired() -> Self {
        let message = "The resourceVersion for the provided list is too old.";
        Self::Expired { message: message.to_owned() }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Compacted(_) => Self::expired(),
            Rejection::RequestTooLarge => Self::TooLarge,
            other => Self::Rejected(other.to_string()),
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Rejected(rejection) => rejection.into(),
            ReadError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Rejected(rejection) => rejection.into(),
            WriteError::NotApplied(why) => Self::Unavailable(why),
            WriteError::Unknown(why) => Self::Unknown(why),
        }
    }
}
