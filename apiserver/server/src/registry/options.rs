//! `metav1.DeleteOptions`, from body and query.

use pintle_machinery::Status;
use serde_json::Value;

use crate::request_info::Query;

/// What must be true of the stored object, or the request is a conflict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub resource_version: Option<String>,
}

/// `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents keep living without their owner.
    Orphan,
    /// The owner goes at once, dependents follow.
    Background,
    /// Dependents go first.
    Foreground,
}

/// `metav1.DeleteOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds to live on; `None`: the object's own.
    pub grace_period_seconds: Option<i64>,
    /// Conditions.
    pub preconditions: Preconditions,
    /// `None`: the kind's default.
    pub propagation: Option<Propagation>,
    /// Do everything but store.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// A body wins over the query, as upstream.
    pub fn read(body: Option<&Value>, query: &Query) -> Result<Self, Status> {
        match body {
            Some(body) => Self::from_body(body),
            None => Self::from_query(query),
        }
    }

    fn from_body(body: &Value) -> Result<Self, Status> {
        let preconditions = body.get("preconditions");
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let precondition = |field: &str| text(preconditions.and_then(|map| map.get(field)));
        let dry_run = body.get("dryRun").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let orphan = body.get("orphanDependents").and_then(Value::as_bool);
        Ok(Self {
            grace_period_seconds: body.get("gracePeriodSeconds").and_then(Value::as_i64),
            preconditions: Preconditions {
                uid: precondition("uid"),
                resource_version: precondition("resourceVersion"),
            },
            propagation: propagation(
                body.get("propagationPolicy").and_then(Value::as_str),
                orphan,
            )?,
            dry_run: dry_run_of(dry_run.iter().filter_map(Value::as_str))?,
        })
    }

    fn from_query(query: &Query) -> Result<Self, Status> {
        let grace = query.non_empty("gracePeriodSeconds").map(|text| {
            text.parse()
                .map_err(|_| Status::bad_request(format!("invalid gracePeriodSeconds: {text:?}")))
        });
        let orphan = query.get("orphanDependents").map(|text| text != "false");
        Ok(Self {
            grace_period_seconds: grace.transpose()?,
            preconditions: Preconditions::default(),
            propagation: propagation(query.non_empty("propagationPolicy"), orphan)?,
            dry_run: dry_run_of(query.all("dryRun"))?,
        })
    }
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    match (policy, orphan) {
        (Some("Orphan"), _) => Ok(Some(Propagation::Orphan)),
        (Some("Background"), _) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), _) => Ok(Some(Propagation::Foreground)),
        (Some(other), _) => Err(Status::unprocessable(format!(
            "propagationPolicy: Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
        ))),
        (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) => Ok(Some(Propagation::Background)),
        (None, None) => Ok(None),
    }
}

/// `dryRun` may be absent or `All`.
pub(crate) fn dry_run_of<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry_run = false;
    for value in values {
        match value {
            "All" => dry_run = true,
            "" => {}
            other => {
                return Err(Status::unprocessable(format!(
                    "dryRun: Unsupported value: \"{other}\": supported values: \"All\""
                )));
            }
        }
    }
    Ok(dry_run)
}
