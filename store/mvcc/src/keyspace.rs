//! How the state is spelled in the database: one file per kind of entry, each with its codec and
//! a round-trip test. These spellings are on disks; they change only with a new kind.

pub(crate) mod alarm;
pub(crate) mod auth;
pub(crate) mod census;
pub(crate) mod head;
pub(crate) mod history;
pub(crate) mod lease;
pub(crate) mod log;
pub(crate) mod record;
mod varint;

pub(crate) use head::Head;
pub(crate) use record::{Record, RecordRef};

/// The column families. The discriminants index [`Family::ALL`]; the names are on disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub(crate) enum Family {
    Current = 0,
    History = 1,
    Log = 2,
    Lease = 3,
    LeaseKeys = 4,
    Meta = 5,
    Census = 6,
    Auth = 7,
}

impl Family {
    pub(crate) const ALL: [Self; 8] = [
        Self::Current,
        Self::History,
        Self::Log,
        Self::Lease,
        Self::LeaseKeys,
        Self::Meta,
        Self::Census,
        Self::Auth,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::History => "history",
            Self::Log => "log",
            Self::Lease => "lease",
            Self::LeaseKeys => "lease_keys",
            Self::Meta => "meta",
            Self::Census => "census",
            Self::Auth => "auth",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discriminants_index_all() {
        for (index, family) in Family::ALL.into_iter().enumerate() {
            assert_eq!(family as usize, index);
        }
    }
}
