//! Structural schemas: what is known about the fields of a kind.
//!
//! [`Definitions`] is a set of named schemas; a [`View`] is a position in one, with references
//! resolved, and is what patches, apply, pruning, decoding and OpenAPI walk along. The built-in
//! definitions are read once from the typed API's JSON schemas plus a table of list and map facts;
//! custom resources bring theirs in their CustomResourceDefinition.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

mod builtin;
mod crd;
mod defaulting;
mod parse;
mod prune;
mod value_validation;

pub use builtin::builtin;
pub use crd::{ParseError, parse_structural};
pub use defaulting::apply_defaults;
pub use prune::prune;
pub use value_validation::validate_value;

/// The JSON type of a schema node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Type {
    /// Anything (no `type`), also int-or-string.
    #[default]
    Any,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Scalars, each once.
    Set,
    /// Objects identified by their map keys.
    Map,
}

/// `x-kubernetes-patch-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// `merge`
    pub merge: bool,
    /// `retainKeys`
    pub retain_keys: bool,
}

/// One node of a structural schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// Name of the definition this node refers to; the other fields then add to it.
    pub reference: Option<Arc<str>>,
    /// Prose for `explain`.
    pub description: Option<Arc<str>>,
    /// JSON type.
    pub kind: Type,
    /// `format`, e.g. `int32`, `byte`, `date-time`.
    pub format: Option<Arc<str>>,
    /// Fields of an object.
    pub properties: BTreeMap<String, Schema>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Schema of list items.
    pub items: Option<Box<Schema>>,
    /// Schema of the values of a map.
    pub additional_properties: Option<Box<Schema>>,
    /// Default value.
    pub default: Option<Value>,
    /// Whether `null` is a value of its own.
    pub nullable: bool,
    /// `x-kubernetes-list-type`.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-list-map-keys`.
    pub list_map_keys: Vec<String>,
    /// `x-kubernetes-map-type: atomic` (or `struct-type`); granular otherwise.
    pub atomic_map: bool,
    /// `x-kubernetes-patch-strategy`.
    pub patch_strategy: Option<PatchStrategy>,
    /// `x-kubernetes-patch-merge-key`.
    pub patch_merge_key: Option<String>,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown_fields: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded_resource: bool,
    /// Value validations of custom resources (bounds, patterns, enums, CEL rules, combinators).
    pub validations: Option<Box<Validations>>,
    /// Group, version and kind pairs this definition is the body of.
    pub gvks: Vec<crate::GroupVersionKind>,
}

/// What a value must satisfy beyond its type; only custom resources have these.
#[derive(Clone, Debug, Default)]
pub struct Validations {
    /// `enum`
    pub enumeration: Vec<Value>,
    /// `minimum` and whether it is exclusive.
    pub minimum: Option<(f64, bool)>,
    /// `maximum` and whether it is exclusive.
    pub maximum: Option<(f64, bool)>,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `minLength`
    pub length_min: Option<usize>,
    /// `maxLength`
    pub length_max: Option<usize>,
    /// `pattern`
    pub pattern: Option<regex::Regex>,
    /// `minItems`
    pub items_min: Option<usize>,
    /// `maxItems`
    pub items_max: Option<usize>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `minProperties`
    pub properties_min: Option<usize>,
    /// `maxProperties`
    pub properties_max: Option<usize>,
    /// `allOf`
    pub all_of: Vec<Schema>,
    /// `anyOf`
    pub any_of: Vec<Schema>,
    /// `oneOf`
    pub one_of: Vec<Schema>,
    /// `not`
    pub not: Option<Box<Schema>>,
    /// `x-kubernetes-validations`, as written: the server compiles them.
    pub rules: Vec<Value>,
}

/// Named schemas that may refer to each other.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    map: BTreeMap<Arc<str>, Schema>,
}

impl Definitions {
    /// Adds a definition.
    pub fn insert(&mut self, name: impl Into<Arc<str>>, schema: Schema) {
        self.map.insert(name.into(), schema);
    }

    /// The definition called `name`.
    pub fn get(&self, name: &str) -> Option<&Schema> {
        self.map.get(name)
    }

    /// All definitions in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Schema)> {
        self.map.iter()
    }

    /// The name of the definition that is the body of `gvk`.
    pub fn by_gvk(&self, gvk: &crate::GroupVersionKind) -> Option<&Arc<str>> {
        self.map.iter().find(|(_, schema)| schema.gvks.contains(gvk)).map(|(name, _)| name)
    }

    /// A view of the definition called `name`; of anything when there is none.
    pub fn view(&self, name: &str) -> View<'_> {
        match self.map.get(name) {
            Some(node) => View::new(self, node),
            None => View::new(self, &ANY),
        }
    }
}

static ANY: Schema = Schema {
    reference: None,
    description: None,
    kind: Type::Any,
    format: None,
    properties: BTreeMap::new(),
    required: Vec::new(),
    items: None,
    additional_properties: None,
    default: None,
    nullable: false,
    list_type: None,
    list_map_keys: Vec::new(),
    atomic_map: false,
    patch_strategy: None,
    patch_merge_key: None,
    int_or_string: false,
    preserve_unknown_fields: true,
    embedded_resource: false,
    validations: None,
    gvks: Vec::new(),
};

/// A position in a schema, references resolved. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    definitions: &'a Definitions,
    /// The node as the parent spells it: list facts of a field are here.
    node: &'a Schema,
    /// What `node` refers to, or `node` itself.
    target: &'a Schema,
}

impl<'a> View<'a> {
    fn new(definitions: &'a Definitions, node: &'a Schema) -> Self {
        let target = node
            .reference
            .as_deref()
            .and_then(|name| definitions.get(name))
            .unwrap_or(if node.reference.is_some() { &ANY } else { node });
        Self { definitions, node, target }
    }

    /// A view of no schema: everything is allowed, lists are atomic.
    pub fn any(definitions: &'a Definitions) -> Self {
        Self::new(definitions, &ANY)
    }

    /// The node itself, as the parent spells it.
    pub fn node(self) -> &'a Schema {
        self.node
    }

    /// The definition behind a reference, or the node itself.
    pub fn target(self) -> &'a Schema {
        self.target
    }

    /// JSON type.
    pub fn kind(self) -> Type {
        self.target.kind
    }

    /// The field called `name`.
    pub fn property(self, name: &str) -> Option<View<'a>> {
        self.target.properties.get(name).map(|s| Self::new(self.definitions, s))
    }

    /// The schema of the value under `name`: a field, else the map's value schema.
    pub fn child(self, name: &str) -> Option<View<'a>> {
        self.property(name).or_else(|| self.additional())
    }

    /// All fields in name order.
    pub fn properties(self) -> impl Iterator<Item = (&'a str, View<'a>)> {
        self.target.properties.iter().map(move |(k, s)| (&**k, Self::new(self.definitions, s)))
    }

    /// Schema of list items.
    pub fn items(self) -> Option<View<'a>> {
        self.target.items.as_deref().map(|s| Self::new(self.definitions, s))
    }

    /// Schema of map values.
    pub fn additional(self) -> Option<View<'a>> {
        self.target.additional_properties.as_deref().map(|s| Self::new(self.definitions, s))
    }

    /// How apply treats a list here; lists are atomic unless said otherwise.
    pub fn list_type(self) -> ListType {
        self.node.list_type.or(self.target.list_type).unwrap_or(ListType::Atomic)
    }

    /// The keys of a map list.
    pub fn list_map_keys(self) -> &'a [String] {
        if self.node.list_map_keys.is_empty() {
            &self.target.list_map_keys
        } else {
            &self.node.list_map_keys
        }
    }

    /// Whether apply treats the object as one value.
    pub fn is_atomic_map(self) -> bool {
        self.node.atomic_map || self.target.atomic_map
    }

    /// Strategic merge patch: how a value here is merged.
    pub fn patch_strategy(self) -> PatchStrategy {
        self.node.patch_strategy.or(self.target.patch_strategy).unwrap_or_default()
    }

    /// Strategic merge patch: the key of list items.
    pub fn patch_merge_key(self) -> Option<&'a str> {
        self.node.patch_merge_key.as_deref().or(self.target.patch_merge_key.as_deref())
    }

    /// Default value.
    pub fn default(self) -> Option<&'a Value> {
        self.node.default.as_ref().or(self.target.default.as_ref())
    }

    /// Whether `null` is a value here.
    pub fn is_nullable(self) -> bool {
        self.node.nullable || self.target.nullable
    }

    /// Whether an integer or a string may stand here.
    pub fn is_int_or_string(self) -> bool {
        self.target.int_or_string
    }

    /// Whether unknown fields are kept.
    pub fn preserves_unknown_fields(self) -> bool {
        self.node.preserve_unknown_fields || self.target.preserve_unknown_fields
    }

    /// The set this view belongs to.
    pub fn definitions(self) -> &'a Definitions {
        self.definitions
    }
}
