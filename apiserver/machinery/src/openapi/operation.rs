//! One operation: parameters, body, answers.

use serde_json::{Map, Value, json};

use super::render::Dialect;
use super::{DELETE_OPTIONS, STATUS};
use crate::GroupVersionKind;

/// What an operation does, in upstream's words (`x-kubernetes-action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Get,
    List,
    Post,
    Put,
    Patch,
    Delete,
    DeleteCollection,
    Connect,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Connect => "connect",
        }
    }

    /// The start of the operation's id.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Get => "read",
            Self::List => "list",
            Self::Post => "create",
            Self::Put => "replace",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deleteCollection",
            Self::Connect => "connect",
        }
    }
}

/// An operation of a kind.
pub(super) struct Operation<'a> {
    pub(super) action: Action,
    pub(super) id: String,
    pub(super) kind: &'a GroupVersionKind,
    /// Definition of the body.
    pub(super) body: Option<&'a str>,
    /// Definition of the answer.
    pub(super) answer: Option<&'a str>,
    /// Whether strategic merge patches are understood.
    pub(super) strategic: bool,
    pub(super) tag: String,
}

const ANSWER_TYPES: [&str; 2] = ["application/json", "application/yaml"];
const WATCH_TYPES: [&str; 3] =
    ["application/json", "application/json;stream=watch", "application/yaml"];
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Name, type and description of a query parameter.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', the output is indented.");
const DRY_RUN: Parameter =
    ("dryRun", "string", "Do everything but store the change. The only value is All.");
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "The name of the actor that makes the change.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What happens to unknown and duplicate fields: Ignore, Warn or Strict.",
);
const FORCE: Parameter = ("force", "boolean", "Take over fields that other managers own.");
const DELETE: [Parameter; 4] = [
    ("gracePeriodSeconds", "integer", "How long the object may take to stop."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete even an object that cannot be read.",
    ),
    (
        "propagationPolicy",
        "string",
        "What happens to dependents: Orphan, Background or Foreground.",
    ),
];
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "Ask for BOOKMARK events."),
    ("continue", "string", "The token of the next page."),
    ("fieldSelector", "string", "Restrict the objects by their fields."),
    ("labelSelector", "string", "Restrict the objects by their labels."),
    ("limit", "integer", "The most objects in one answer."),
    ("resourceVersion", "string", "How fresh the data must be."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied."),
    ("sendInitialEvents", "boolean", "Begin a watch with the objects that exist."),
    ("timeoutSeconds", "integer", "Bounds the call, whatever happens on it."),
    ("watch", "boolean", "Answer with a stream of changes."),
];

impl Operation<'_> {
    fn parameters(&self) -> Vec<Parameter> {
        let write = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        let mut parameters = vec![PRETTY];
        match self.action {
            Action::Get | Action::Connect => {}
            Action::List => parameters.extend(LIST),
            Action::Post | Action::Put => parameters.extend(write),
            Action::Patch => {
                parameters.extend(write);
                parameters.push(FORCE);
            }
            Action::Delete => {
                parameters.push(DRY_RUN);
                parameters.extend(DELETE);
            }
            Action::DeleteCollection => {
                parameters.push(DRY_RUN);
                parameters.extend(DELETE);
                parameters.extend(
                    LIST.into_iter()
                        .filter(|(name, ..)| !matches!(*name, "allowWatchBookmarks" | "watch")),
                );
            }
        }
        parameters
    }

    fn accepts(&self) -> Vec<&'static str> {
        match self.action {
            Action::Patch if self.strategic => PATCH_TYPES.to_vec(),
            Action::Patch => PATCH_TYPES[..3].to_vec(),
            _ => vec!["application/json", "application/yaml"],
        }
    }

    fn produces(&self) -> &'static [&'static str] {
        if self.action == Action::List { &WATCH_TYPES } else { &ANSWER_TYPES }
    }

    fn body(&self) -> Option<&str> {
        match self.action {
            Action::Delete | Action::DeleteCollection => Some(DELETE_OPTIONS),
            Action::Get | Action::List | Action::Connect => None,
            Action::Post | Action::Put | Action::Patch => self.body,
        }
    }

    fn codes(&self) -> &'static [&'static str] {
        match self.action {
            Action::Post => &["200", "201", "202"],
            Action::Put | Action::Patch => &["200", "201"],
            Action::Delete => &["200", "202"],
            _ => &["200"],
        }
    }

    /// The operation as an object of its path.
    pub(super) fn render(&self, dialect: Dialect) -> Value {
        let mut map = Map::new();
        let kind = self.kind;
        map.insert("description".into(), format!("{} {}", self.action.verb(), kind.kind).into());
        map.insert("operationId".into(), self.id.clone().into());
        map.insert("tags".into(), json!([self.tag]));
        map.insert("x-kubernetes-action".into(), self.action.name().into());
        map.insert(
            "x-kubernetes-group-version-kind".into(),
            json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
        );
        match dialect {
            Dialect::V3 => self.render_v3(&mut map),
            Dialect::V2 => self.render_v2(&mut map),
        }
        Value::Object(map)
    }

    fn render_v3(&self, map: &mut Map<String, Value>) {
        let parameters = self.parameters().into_iter().map(|(name, kind, description)| {
            json!({
                "name": name, "in": "query", "description": description,
                "schema": {"type": kind, "uniqueItems": true},
            })
        });
        map.insert("parameters".into(), parameters.collect());
        if let Some(body) = self.body() {
            let schema = match self.action {
                Action::Patch => json!({"type": "object"}),
                _ => Dialect::V3.reference(body),
            };
            let content =
                self.accepts().into_iter().map(|t| (t.to_owned(), json!({"schema": schema})));
            let content: Map<String, Value> = content.collect();
            let required = !matches!(self.action, Action::Delete | Action::DeleteCollection);
            map.insert("requestBody".into(), json!({"content": content, "required": required}));
        }
        let content: Map<String, Value> = match self.answer {
            Some(answer) => {
                let schema = Dialect::V3.reference(answer);
                self.produces()
                    .iter()
                    .map(|t| ((*t).to_owned(), json!({"schema": schema})))
                    .collect()
            }
            None => {
                [("*/*".to_owned(), json!({"schema": {"type": "string"}}))].into_iter().collect()
            }
        };
        let mut responses = Map::new();
        for code in self.codes() {
            let answer = json!({"description": description(code), "content": content});
            responses.insert((*code).to_owned(), answer);
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        map.insert("responses".into(), responses.into());
    }

    fn render_v2(&self, map: &mut Map<String, Value>) {
        let mut parameters: Vec<Value> = self
            .parameters()
            .into_iter()
            .map(|(name, kind, description)| {
                json!({
                    "name": name, "in": "query", "type": kind, "description": description,
                    "uniqueItems": true,
                })
            })
            .collect();
        if let Some(body) = self.body() {
            let schema = match self.action {
                Action::Patch => json!({"type": "object"}),
                _ => Dialect::V2.reference(body),
            };
            let required = !matches!(self.action, Action::Delete | Action::DeleteCollection);
            let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
            if required {
                parameter["required"] = true.into();
            }
            parameters.push(parameter);
        }
        map.insert("parameters".into(), parameters.into());
        map.insert("consumes".into(), self.accepts().into());
        map.insert("produces".into(), self.produces().into());
        map.insert("schemes".into(), json!(["https"]));
        let schema = match self.answer {
            Some(answer) => Dialect::V2.reference(answer),
            None => json!({"type": "string"}),
        };
        let mut responses = Map::new();
        for code in self.codes() {
            let answer = json!({"description": description(code), "schema": schema});
            responses.insert((*code).to_owned(), answer);
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        map.insert("responses".into(), responses.into());
    }
}

fn description(code: &str) -> &'static str {
    match code {
        "201" => "Created",
        "202" => "Accepted",
        _ => "OK",
    }
}

/// What a delete answers.
pub(super) const DELETE_ANSWER: &str = STATUS;
