//! The paths of a resource: collection, object, subresources.

use serde_json::{Map, Value, json};

use super::list_definition;
use super::operation::{Action, DELETE_ANSWER, Operation};
use super::render::Dialect;
use crate::GroupVersionKind;
use crate::resource::{Resource, Subresource};

struct Builder<'a> {
    resource: &'a Resource,
    dialect: Dialect,
    kind: GroupVersionKind,
    list: String,
    /// `AppsV1`, part of every operation's id.
    prefix: String,
}

/// Adds the paths of a resource to `paths`.
pub(super) fn add(resource: &Resource, dialect: Dialect, paths: &mut Map<String, Value>) {
    let group = resource.group.split('.').next().unwrap_or_default();
    let group = if group.is_empty() { "core" } else { group };
    let builder = Builder {
        resource,
        dialect,
        kind: resource.gvk(),
        list: list_definition(resource),
        prefix: format!("{}{}", capital(group), capital(&resource.version)),
    };
    builder.add(paths);
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

impl Builder<'_> {
    fn add(&self, paths: &mut Map<String, Value>) {
        let resource = self.resource;
        let root = format!("/{}", resource.group_version().url_path());
        let plural = &resource.plural;
        let collection = if resource.namespaced {
            format!("{root}/namespaces/{{namespace}}/{plural}")
        } else {
            format!("{root}/{plural}")
        };
        if resource.namespaced && resource.has_verb("list") {
            let all = self.operation(Action::List, "ForAllNamespaces", &self.list);
            let path = json!({"get": all, "parameters": self.path_parameters(false, false)});
            paths.insert(format!("{root}/{plural}"), path);
        }
        paths.insert(collection.clone(), self.collection());
        let object = format!("{collection}/{{name}}");
        if resource.has_verb("get") {
            paths.insert(object.clone(), self.object());
        }
        for subresource in &resource.subresources {
            paths.insert(format!("{object}/{}", subresource.name), self.subresource(subresource));
        }
    }

    fn collection(&self) -> Value {
        let mut path = Map::new();
        for (verb, method, action, answer) in [
            ("list", "get", Action::List, &*self.list),
            ("create", "post", Action::Post, &*self.resource.definition),
            ("deletecollection", "delete", Action::DeleteCollection, DELETE_ANSWER),
        ] {
            if self.resource.has_verb(verb) {
                path.insert(method.to_owned(), self.operation(action, "", answer));
            }
        }
        path.insert("parameters".into(), self.path_parameters(self.resource.namespaced, false));
        path.into()
    }

    fn object(&self) -> Value {
        let mut path = Map::new();
        let own = &*self.resource.definition;
        for (verb, method, action, answer) in [
            ("get", "get", Action::Get, own),
            ("update", "put", Action::Put, own),
            ("patch", "patch", Action::Patch, own),
            ("delete", "delete", Action::Delete, DELETE_ANSWER),
        ] {
            if self.resource.has_verb(verb) {
                path.insert(method.to_owned(), self.operation(action, "", answer));
            }
        }
        path.insert("parameters".into(), self.path_parameters(self.resource.namespaced, true));
        path.into()
    }

    fn operation(&self, action: Action, suffix: &str, answer: &str) -> Value {
        let namespaced =
            if self.resource.namespaced && suffix.is_empty() { "Namespaced" } else { "" };
        let id =
            format!("{}{}{namespaced}{}{suffix}", action.verb(), self.prefix, self.resource.kind);
        self.render(action, id, &self.kind, Some(&self.resource.definition), Some(answer))
    }

    fn render(
        &self,
        action: Action,
        id: String,
        kind: &GroupVersionKind,
        body: Option<&str>,
        answer: Option<&str>,
    ) -> Value {
        let gv = self.resource.group_version();
        let group = gv.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        let operation = Operation {
            action,
            id,
            kind,
            body,
            answer,
            strategic: !self.resource.custom,
            tag: format!("{group}_{}", gv.version),
        };
        operation.render(self.dialect)
    }

    fn subresource(&self, subresource: &Subresource) -> Value {
        let own = subresource.kind == self.kind;
        let builtin = crate::schema::builtin();
        let definition = match own {
            true => Some(&*self.resource.definition),
            false => builtin.by_gvk(&subresource.kind).map(|name| &**name),
        };
        let is_connect = definition.is_none();
        let is_log = subresource.name == "log";
        let mut path = Map::new();
        for verb in &subresource.verbs {
            let (method, action) = match verb.as_str() {
                "get" => ("get", Action::Get),
                "create" => ("post", Action::Post),
                "update" => ("put", Action::Put),
                "patch" => ("patch", Action::Patch),
                "delete" => ("delete", Action::Delete),
                _ => continue,
            };
            let action = if is_connect { Action::Connect } else { action };
            let namespaced = if self.resource.namespaced { "Namespaced" } else { "" };
            let id = format!(
                "{}{}{}{namespaced}{}{}",
                action.verb(),
                if is_connect { capital(method) } else { String::new() },
                self.prefix,
                self.resource.kind,
                capital(&subresource.name)
            );
            let answer = if is_log { None } else { definition };
            path.insert(
                method.to_owned(),
                self.render(action, id, &subresource.kind, definition, answer),
            );
        }
        path.insert("parameters".into(), self.path_parameters(self.resource.namespaced, true));
        path.into()
    }

    fn path_parameters(&self, namespace: bool, name: bool) -> Value {
        let mut parameters = Vec::new();
        let text = [
            ("name", name, "name of the object"),
            ("namespace", namespace, "object name and auth scope, such as for teams and projects"),
        ];
        for (parameter, _, description) in text.into_iter().filter(|(_, wanted, _)| *wanted) {
            let mut value = json!({
                "name": parameter, "in": "path", "required": true, "description": description,
            });
            match self.dialect {
                Dialect::V2 => {
                    value["type"] = "string".into();
                    value["uniqueItems"] = true.into();
                }
                Dialect::V3 => value["schema"] = json!({"type": "string", "uniqueItems": true}),
            }
            parameters.push(value);
        }
        parameters.into()
    }
}
