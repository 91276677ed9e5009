//! `Accept` and `Content-Type`; pure.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use pintle_machinery::decode::{self, Decoded};

use super::protobuf;
use crate::error::{ApiError, ApiResult};

/// Media types that objects are written in.
pub(crate) const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Json,
    Yaml,
}

/// What an answer is turned into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object itself.
    #[default]
    Plain,
    /// `meta.k8s.io/v1 Table`.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata` or its list.
    Metadata,
    /// `apidiscovery.k8s.io APIGroupDiscoveryList`, `true` for v2beta1.
    Discovery { beta: bool },
}

/// The best that client and server have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Negotiated {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
}

/// For an object. 406 when there is nothing in common.
pub(crate) fn for_object(headers: &HeaderMap) -> ApiResult<Negotiated> {
    let offers = offers(headers);
    let known = offers.into_iter().find(|offer| !matches!(offer.form, Form::Discovery { .. }));
    known.ok_or_else(|| ApiError::not_acceptable(&MEDIA_TYPES))
}

/// For a discovery document.
pub(crate) fn for_discovery(headers: &HeaderMap) -> ApiResult<Negotiated> {
    let offers = offers(headers);
    let known =
        offers.into_iter().find(|offer| matches!(offer.form, Form::Discovery { .. } | Form::Plain));
    known.ok_or_else(|| ApiError::not_acceptable(&MEDIA_TYPES))
}

/// What the client accepts and we can make, best first.
fn offers(headers: &HeaderMap) -> Vec<Negotiated> {
    let mut ranges: Vec<(f32, Negotiated)> = Vec::new();
    let mut asked = false;
    for header in headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
        for range in header.split(',').map(str::trim).filter(|range| !range.is_empty()) {
            asked = true;
            ranges.extend(media_range(range));
        }
    }
    if !asked {
        return vec![Negotiated::default()];
    }
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranges.into_iter().map(|(_, negotiated)| negotiated).collect()
}

fn media_range(range: &str) -> Option<(f32, Negotiated)> {
    let mut parts = range.split(';').map(str::trim);
    let encoding = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" | "application/x-yaml" | "text/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut kind, mut group, mut version, mut quality) = ("", "", "", 1.0);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim() {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            "q" => quality = value.parse().unwrap_or(1.0),
            _ => {}
        }
    }
    let form = match (kind, group, version) {
        ("", _, _) => Form::Plain,
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => Form::Table,
        (
            "PartialObjectMetadata" | "PartialObjectMetadataList",
            "meta.k8s.io",
            "v1" | "v1beta1",
        ) => Form::Metadata,
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Form::Discovery { beta: false },
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
            Form::Discovery { beta: true }
        }
        _ => return None,
    };
    Some((quality, Negotiated { encoding, form }))
}

/// The media type of a body without its parameters; JSON when there is none.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media.is_empty() { "application/json".to_owned() } else { media }
}

/// Decodes a body by its media type.
pub(crate) fn decode_body(headers: &HeaderMap, body: &[u8]) -> ApiResult<Decoded> {
    match content_type(headers).as_str() {
        "application/json" | "text/json" => decode::json(body),
        "application/yaml" | "application/x-yaml" | "text/yaml" => decode::yaml(body),
        protobuf::MEDIA_TYPE => {
            Ok(Decoded { value: protobuf::decode(body)?, duplicates: Vec::new() })
        }
        _ => Err(ApiError::unsupported_media_type(&MEDIA_TYPES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(accept: &str) -> Option<Negotiated> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header value"));
        for_object(&headers).ok()
    }

    #[test]
    fn the_first_acceptable_form_wins() {
        let plain = |encoding| Some(Negotiated { encoding, form: Form::Plain });
        let table = Some(Negotiated { encoding: Encoding::Json, form: Form::Table });
        let metadata = Some(Negotiated { encoding: Encoding::Json, form: Form::Metadata });
        let cases = [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", table),
            ("application/vnd.kubernetes.protobuf,application/json", plain(Encoding::Json)),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                metadata,
            ),
            ("application/json;q=0.5,application/yaml", plain(Encoding::Yaml)),
            ("*/*", plain(Encoding::Json)),
            ("application/json;as=Unknown;g=x;v=v1", None),
            ("text/html", None),
        ];
        for (accept, expected) in cases {
            assert_eq!(object(accept), expected, "{accept}");
        }
        assert_eq!(for_object(&HeaderMap::new()).ok(), plain(Encoding::Json));
    }
}
