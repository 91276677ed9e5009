//! `--auth-token`: the kind of tokens, and what they are made with.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// Why tokens cannot be made as the configuration says. The texts begin as etcd's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// An unknown kind, or an option that is wrong or comes twice.
    #[error("auth: invalid auth options: {0}")]
    Options(String),
    /// A key file cannot be read.
    #[error("auth: invalid auth options: {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A key file holds no key for the method.
    #[error("auth: {what} is no key for {method}")]
    Key {
        /// Which key.
        what: &'static str,
        /// The signing method.
        method: String,
        /// What is wrong with it.
        source: jsonwebtoken::errors::Error,
    },
    /// Neither key is given.
    #[error("auth: missing key data")]
    MissingKey,
    /// What the private key signs, the public one does not verify.
    #[error("auth: public and private keys don't match")]
    KeyMismatch,
}

pub(super) fn invalid(reason: impl Into<String>) -> TokenError {
    TokenError::Options(reason.into())
}

/// `KIND,NAME=VALUE,…`
#[derive(Debug, PartialEq)]
pub(super) struct Options<'a> {
    pub(super) kind: &'a str,
    pub(super) values: BTreeMap<&'a str, &'a str>,
}

pub(super) fn parse(text: &str) -> Result<Options<'_>, TokenError> {
    let (kind, rest) = text.split_once(',').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
    let mut values = BTreeMap::new();
    for pair in rest.into_iter().flat_map(|rest| rest.split(',')) {
        match pair.split_once('=') {
            Some((name, value)) if !value.contains('=') => {
                if values.insert(name, value).is_some() {
                    return Err(invalid(format!("{name} is given twice")));
                }
            }
            _ => return Err(invalid(format!("{pair:?} is not name=value"))),
        }
    }
    Ok(Options { kind, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_their_kind() {
        let options = parse("jwt,sign-method=RS256,ttl=10m").expect("parses");
        assert_eq!(options.kind, "jwt");
        assert_eq!(options.values, BTreeMap::from([("sign-method", "RS256"), ("ttl", "10m")]));
        assert_eq!(parse("simple").expect("parses").values, BTreeMap::new());
        assert_eq!(parse("").expect("parses").kind, "");
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        for text in ["jwt,", "jwt,ttl", "jwt,ttl=1=2", "jwt,ttl=1m,ttl=1m"] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with("auth: invalid auth options"), "{text}: {error}");
        }
    }
}
