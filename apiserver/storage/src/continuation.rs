//! The continue token of a list, in upstream's form: base64url of `{"v","rv","start"}`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::Error;

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on. `revision` −1: at whatever is newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Continuation {
    pub(crate) revision: i64,
    /// The first key of the rest, below the resource's prefix.
    pub(crate) start: String,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

impl Continuation {
    pub(crate) fn encode(&self) -> String {
        let token = Token { v: VERSION.to_owned(), rv: self.revision, start: self.start.clone() };
        let json = serde_json::to_vec(&token).expect("strings and a number always encode");
        URL_SAFE_NO_PAD.encode(json)
    }

    pub(crate) fn decode(text: &str) -> Result<Self, Error> {
        let invalid = || Error::BadContinue("continue key is not valid".to_owned());
        let json = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| invalid())?;
        let token: Token = serde_json::from_slice(&json).map_err(|_| invalid())?;
        if token.v != VERSION
            || token.rv == 0
            || token.start.is_empty()
            || token.start.starts_with('/')
        {
            return Err(invalid());
        }
        Ok(Self { revision: token.rv, start: token.start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip_and_garbage_is_refused() {
        let token = Continuation { revision: 12, start: "ns/pod\0".to_owned() };
        assert_eq!(Continuation::decode(&token.encode()), Ok(token));
        for garbage in ["", "x", "e30", "!!!"] {
            assert!(Continuation::decode(garbage).is_err(), "{garbage}");
        }
    }
}
