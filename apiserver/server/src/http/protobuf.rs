//! Request bodies in Kubernetes' protobuf encoding, as kubectl's `create` sends them.
//!
//! Decoded straight to JSON by a table of field numbers. What Go would leave out of its JSON is left
//! out here: zero values of fields that are no pointers carry no information. Answers are JSON.

mod table;
mod wire;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pintle_machinery::time;
use serde_json::{Map, Value, json};

use self::table::{Field, Kind, Message, table};
use self::wire::{Fields, Payload};
use crate::error::{ApiError, ApiResult};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Starts every encoded object.
const MAGIC: &[u8] = b"k8s\0";

/// Objects nest less deep than this; what nests deeper is an attack.
const DEPTH_MAX: usize = 100;

/// What is wrong with an encoded object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("unexpected end")]
    Truncated,
    #[error("wire type {0} is not understood")]
    WireType(u64),
    #[error("a field has the wrong wire type")]
    Mismatch,
    #[error("text is not UTF-8")]
    Text,
    #[error("embedded JSON is invalid")]
    Json,
    #[error("nested too deeply")]
    Depth,
}

/// The object in a body.
pub(crate) fn decode(body: &[u8]) -> ApiResult<Value> {
    let invalid = |why: Malformed| {
        ApiError::bad_request(format!("the protobuf body cannot be decoded: {why}"))
    };
    let Some(envelope) = body.strip_prefix(MAGIC) else {
        return Err(ApiError::bad_request(
            "the body is not in Kubernetes' protobuf encoding: prefix missing",
        ));
    };
    let unknown = Unknown::read(envelope).map_err(invalid)?;
    let Some(message) = table().kind(unknown.api_version, unknown.kind) else {
        return Err(ApiError::unsupported_media_type(&super::negotiation::MEDIA_TYPES));
    };
    let mut map = object(message, unknown.raw, 0).map_err(invalid)?;
    map.insert("apiVersion".to_owned(), unknown.api_version.into());
    map.insert("kind".to_owned(), unknown.kind.into());
    Ok(Value::Object(map))
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Unknown<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
}

impl<'a> Unknown<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut unknown = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, payload) => {
                    for field in Fields(payload.bytes()?) {
                        match field? {
                            (1, payload) => unknown.api_version = payload.text()?,
                            (2, payload) => unknown.kind = payload.text()?,
                            _ => {}
                        }
                    }
                }
                (2, payload) => unknown.raw = payload.bytes()?,
                _ => {}
            }
        }
        Ok(unknown)
    }
}

fn object(message: &Message, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, Malformed> {
    if depth > DEPTH_MAX {
        return Err(Malformed::Depth);
    }
    let mut map = Map::new();
    for field in Fields(bytes) {
        let (number, payload) = field?;
        if let Some(field) = message.field(number) {
            set(&mut map, field, payload, depth)?;
        }
    }
    Ok(map)
}

fn set(
    map: &mut Map<String, Value>,
    field: &Field,
    payload: Payload<'_>,
    depth: usize,
) -> Result<(), Malformed> {
    let entry = || field.name.clone();
    match &field.kind {
        Kind::Repeated(item) => {
            let list = map.entry(entry()).or_insert_with(|| json!([]));
            let list = list.as_array_mut().ok_or(Malformed::Mismatch)?;
            match (item.as_ref(), payload) {
                (Kind::Integer, Payload::Bytes(packed)) => {
                    list.extend(
                        wire::packed(packed)
                            .collect::<Result<Vec<i64>, _>>()?
                            .into_iter()
                            .map(Value::from),
                    );
                }
                _ => list.push(value(item, payload, depth)?),
            }
        }
        Kind::Map(item) => {
            let (mut key, mut mapped) = (String::new(), None);
            for field in Fields(payload.bytes()?) {
                match field? {
                    (1, payload) => key = payload.text()?.to_owned(),
                    (2, payload) => mapped = Some(value(item, payload, depth)?),
                    _ => {}
                }
            }
            let map = map.entry(entry()).or_insert_with(|| json!({}));
            let mapped = mapped.unwrap_or_else(|| item.zero());
            map.as_object_mut().ok_or(Malformed::Mismatch)?.insert(key, mapped);
        }
        kind => {
            let value = value(kind, payload, depth)?;
            if field.inline {
                if let Value::Object(inner) = value {
                    map.extend(inner);
                }
            } else if field.keeps(&value) {
                map.insert(entry(), value);
            }
        }
    }
    Ok(())
}

fn value(kind: &Kind, payload: Payload<'_>, depth: usize) -> Result<Value, Malformed> {
    Ok(match kind {
        Kind::Text => payload.text()?.into(),
        Kind::Bool => (payload.integer()? != 0).into(),
        Kind::Integer => payload.integer()?.into(),
        Kind::Double => payload.double()?.into(),
        Kind::Bytes => STANDARD.encode(payload.bytes()?).into(),
        Kind::Message(name) => {
            let bytes = payload.bytes()?;
            match table().message(name) {
                Some(message) => Value::Object(object(message, bytes, depth + 1)?),
                None => Value::Null,
            }
        }
        Kind::Time => instant(payload)?.map_or(Value::Null, |at| time::format(at).into()),
        Kind::MicroTime => {
            instant(payload)?.map_or(Value::Null, |at| time::format_micro(at).into())
        }
        Kind::Duration => format!("{}ns", first_integer(payload)?).into(),
        Kind::Quantity => first(payload)?.map_or(Ok("0"), |text| text.text())?.into(),
        Kind::Raw => match first(payload)? {
            Some(raw) => serde_json::from_slice(raw.bytes()?).map_err(|_| Malformed::Json)?,
            None => Value::Null,
        },
        Kind::Items => Fields(payload.bytes()?)
            .map(|field| Ok(Value::from(field?.1.text()?)))
            .collect::<Result<Vec<Value>, Malformed>>()?
            .into(),
        Kind::IntOrString => int_or_string(payload)?,
        Kind::SchemaOr(other) => schema_or(*other, payload, depth)?,
        Kind::Repeated(_) | Kind::Map(_) => return Err(Malformed::Mismatch),
    })
}

/// Field 1 of a message that wraps one value.
fn first(payload: Payload<'_>) -> Result<Option<Payload<'_>>, Malformed> {
    for field in Fields(payload.bytes()?) {
        if let (1, payload) = field? {
            return Ok(Some(payload));
        }
    }
    Ok(None)
}

fn first_integer(payload: Payload<'_>) -> Result<i64, Malformed> {
    first(payload)?.map_or(Ok(0), |payload| payload.integer())
}

/// Seconds and nanoseconds; the empty message is Go's zero time, which is none.
fn instant(payload: Payload<'_>) -> Result<Option<Timestamp>, Malformed> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in Fields(payload.bytes()?) {
        match field? {
            (1, payload) => seconds = Some(payload.integer()?),
            (2, payload) => nanos = payload.integer()?,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(None) };
    let nanos = i32::try_from(nanos).map_err(|_| Malformed::Mismatch)?;
    Ok(Timestamp::new(seconds, nanos).ok())
}

fn int_or_string(payload: Payload<'_>) -> Result<Value, Malformed> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    for field in Fields(payload.bytes()?) {
        match field? {
            (1, payload) => is_text = payload.integer()? == 1,
            (2, payload) => number = payload.integer()?,
            (3, payload) => text = payload.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// A JSON schema, or something else in its place.
fn schema_or(
    other: table::SchemaOr,
    payload: Payload<'_>,
    depth: usize,
) -> Result<Value, Malformed> {
    use table::SchemaOr;
    let schema = Kind::Message(table::JSON_SCHEMA.to_owned());
    let (mut single, mut several, mut allows) = (None, Vec::new(), false);
    for field in Fields(payload.bytes()?) {
        match (other, field?) {
            (SchemaOr::Bool, (1, payload)) => allows = payload.integer()? != 0,
            (SchemaOr::Bool, (2, payload)) | (_, (1, payload)) => {
                single = Some(value(&schema, payload, depth + 1)?);
            }
            (SchemaOr::Array, (2, payload)) => several.push(value(&schema, payload, depth + 1)?),
            (SchemaOr::Strings, (2, payload)) => several.push(payload.text()?.into()),
            _ => {}
        }
    }
    Ok(match (single, other) {
        (Some(schema), _) => schema,
        (None, SchemaOr::Bool) => allows.into(),
        (None, _) => several.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One length-delimited field.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).expect("a short field");
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw)].concat()
    }

    #[test]
    fn a_namespace_as_kubectl_sends_it() {
        let metadata = [field(1, b"shop"), field(2, b""), field(8, b"")].concat();
        let raw = [field(1, &metadata), field(2, b""), field(3, &field(1, b""))].concat();
        let value = decode(&envelope("v1", "Namespace", &raw)).expect("decodes");
        assert_eq!(value["metadata"], json!({"name": "shop"}));
        assert_eq!((&value["kind"], &value["apiVersion"]), (&json!("Namespace"), &json!("v1")));
    }

    #[test]
    fn pointers_keep_their_zero_and_maps_their_values() {
        // spec.replicas = 0, minReadySeconds = 0; metadata.labels = {"a": "b"}
        let label = [field(1, b"a"), field(2, b"b")].concat();
        let metadata = field(11, &label);
        let spec = [1 << 3, 0, 5 << 3, 0];
        let raw = [field(1, &metadata), field(2, &spec)].concat();
        let value = decode(&envelope("apps/v1", "Deployment", &raw)).expect("decodes");
        assert_eq!(value["spec"], json!({"replicas": 0}));
        assert_eq!(value["metadata"]["labels"], json!({"a": "b"}));
    }

    #[test]
    fn inline_unions_quantities_and_int_or_string_take_their_json_form() {
        let empty_dir = field(2, &field(2, b""));
        let volume = [field(1, b"data"), field(2, &empty_dir)].concat();
        let spec = field(1, &volume);
        let value = decode(&envelope("v1", "Pod", &field(2, &spec))).expect("decodes");
        let emptied = &value["spec"]["volumes"][0];
        assert_eq!(emptied["name"], "data");
        assert!(emptied["emptyDir"].is_object(), "{emptied}");
        // minAvailable = "50%" and maxUnavailable = 3 of a budget
        let text = [&[1 << 3, 1][..], &field(3, b"50%")].concat();
        let number = [1 << 3, 0, 2 << 3, 3];
        let budget = [field(1, &text), field(3, &number)].concat();
        let value = decode(&envelope("policy/v1", "PodDisruptionBudget", &field(2, &budget)))
            .expect("decodes");
        assert_eq!(value["spec"], json!({"minAvailable": "50%", "maxUnavailable": 3}));
    }

    #[test]
    fn garbage_is_refused_and_not_followed() {
        assert_eq!(decode(b"nonsense").map_err(|error| error.code), Err(400));
        let broken = envelope("v1", "Pod", &[2 << 3 | 2, 200, 1]);
        assert_eq!(decode(&broken).map_err(|error| error.code), Err(400));
        assert_eq!(
            decode(&envelope("example.com/v1", "Foo", b"")).map_err(|error| error.code),
            Err(415)
        );
    }

    #[test]
    fn every_reference_in_the_table_leads_somewhere() {
        let missing = table().dangling();
        assert_eq!(missing, Vec::<String>::new());
    }
}
