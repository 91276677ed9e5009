//! Where a request carries its bearer token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

/// Browsers cannot set headers on a WebSocket, so the token may travel as one of its protocols.
pub(crate) const WEBSOCKET_PROTOCOL_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of the `Authorization` header, or of a WebSocket's protocols.
pub(super) fn token_of(headers: &HeaderMap) -> Option<String> {
    from_authorization(headers).or_else(|| from_websocket(headers))
}

fn from_authorization(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn from_websocket(headers: &HeaderMap) -> Option<String> {
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let encoded = protocols
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(WEBSOCKET_PROTOCOL_PREFIX))?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_both_places() {
        let cases = [
            (AUTHORIZATION, "Bearer abc", Some("abc")),
            (AUTHORIZATION, "bearer  abc ", Some("abc")),
            (AUTHORIZATION, "Basic abc", None),
            (AUTHORIZATION, "Bearer ", None),
            (
                SEC_WEBSOCKET_PROTOCOL,
                "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj",
                Some("abc"),
            ),
            (SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io", None),
        ];
        for (name, value, expected) in cases {
            let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
            assert_eq!(token_of(&headers).as_deref(), expected, "{value}");
        }
    }
}
