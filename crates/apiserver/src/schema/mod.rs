//! The structural schema of a kind, parsed once from the document that declares it.
//!
//! Holds: what is in a [`Schema`] is enforced by [`mod@validate`] and shaped by [`mod@shape`]; a keyword outside the
//! structural dialect is refused when the kind is registered, never silently ignored, unless it only describes.

pub(crate) mod format;
pub(crate) mod shape;
pub(crate) mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// The JSON type a schema node asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
    /// No type given: anything goes.
    Any,
}

/// What may stand in an object beside its named properties.
#[derive(Debug)]
pub(crate) enum Additional {
    /// Nothing: unknown fields are pruned.
    Pruned,
    /// Anything (`additionalProperties: true` or `x-kubernetes-preserve-unknown-fields`).
    Kept,
    /// Values of this schema.
    Typed(Box<Schema>),
}

/// Bounds on a number, inclusive unless said otherwise.
#[derive(Debug, Default)]
pub(crate) struct Range {
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) multiple_of: Option<f64>,
}

/// Bounds on a length: of text, of an array or of an object.
#[derive(Debug, Default)]
pub(crate) struct Length {
    pub(crate) least: Option<u64>,
    pub(crate) most: Option<u64>,
}

/// How the items of a list are told apart (`x-kubernetes-list-type`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// One node of a structural schema.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) kind: Type,
    pub(crate) nullable: bool,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) list_type: ListType,
    /// `x-kubernetes-map-type: atomic`: owned as a whole by whoever applies it.
    pub(crate) atomic_map: bool,
    pub(crate) required: Vec<String>,
    pub(crate) allowed: Option<Vec<Value>>,
    pub(crate) range: Range,
    pub(crate) length: Length,
    pub(crate) item_count: Length,
    pub(crate) property_count: Length,
    pub(crate) unique_items: bool,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<format::Format>,
    pub(crate) default: Option<Value>,
    /// `x-kubernetes-embedded-resource`: `apiVersion`, `kind` and `metadata` are kept.
    pub(crate) embedded: bool,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

/// Why a schema document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A keyword holds a value of the wrong JSON type.
    #[error("schema at {at}: {keyword} has a value of the wrong type")]
    WrongValue {
        /// The place in the schema.
        at: String,
        /// The keyword.
        keyword: &'static str,
    },
    /// The type is none that a structural schema knows.
    #[error("schema at {at}: there is no type {found:?}; use object, array, string, integer, number or boolean")]
    UnknownType {
        /// The place in the schema.
        at: String,
        /// What stands there.
        found: String,
    },
    /// The pattern is not a regular expression.
    #[error("schema at {at}: the pattern does not compile")]
    Pattern {
        /// The place in the schema.
        at: String,
        /// What the regular expression compiler said.
        source: Box<regex::Error>,
    },
    /// A keyword that a structural schema may not use.
    #[error("schema at {at}: {keyword} is not part of a structural schema; inline what it refers to")]
    Unsupported {
        /// The place in the schema.
        at: String,
        /// The keyword.
        keyword: &'static str,
    },
    /// The schema is nested more deeply than can be walked safely.
    #[error("schema at {at}: nested more than {MOST_DEPTH} levels deep")]
    TooDeep {
        /// The place in the schema.
        at: String,
    },
}

/// How deep a schema may be nested: walking one is recursive, and a stack is finite.
const MOST_DEPTH: usize = 64;

impl Schema {
    /// A schema that takes everything and prunes nothing.
    pub(crate) fn anything() -> Schema {
        Schema {
            kind: Type::Any,
            nullable: false,
            properties: BTreeMap::new(),
            additional: Additional::Kept,
            items: None,
            list_type: ListType::Atomic,
            atomic_map: false,
            required: Vec::new(),
            allowed: None,
            range: Range::default(),
            length: Length::default(),
            item_count: Length::default(),
            property_count: Length::default(),
            unique_items: false,
            pattern: None,
            format: None,
            default: None,
            embedded: false,
            all_of: Vec::new(),
            any_of: Vec::new(),
            one_of: Vec::new(),
            not: None,
        }
    }

    /// Parses an `openAPIV3Schema` document.
    pub(crate) fn parse(document: &Value) -> Result<Schema, SchemaError> {
        parse_node(&Node { document, at: String::from("$"), depth: 0 })
    }
}

/// A schema document on its way to a [`Schema`], and where it stands.
struct Node<'a> {
    document: &'a Value,
    at: String,
    depth: usize,
}

impl<'a> Node<'a> {
    fn child(&self, document: &'a Value, step: &str) -> Node<'a> {
        Node { document, at: format!("{}.{step}", self.at), depth: self.depth + 1 }
    }

    fn wrong(&self, keyword: &'static str) -> SchemaError {
        SchemaError::WrongValue { at: self.at.clone(), keyword }
    }

    fn read<T>(
        &self,
        keyword: &'static str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, SchemaError> {
        match self.document.get(keyword) {
            None => Ok(None),
            Some(value) => convert(value).map(Some).ok_or_else(|| self.wrong(keyword)),
        }
    }

    fn flag(&self, keyword: &'static str) -> Result<bool, SchemaError> {
        Ok(self.read(keyword, Value::as_bool)?.unwrap_or(false))
    }

    fn length(&self, least: &'static str, most: &'static str) -> Result<Length, SchemaError> {
        Ok(Length { least: self.read(least, Value::as_u64)?, most: self.read(most, Value::as_u64)? })
    }

    fn texts(&self, keyword: &'static str) -> Result<Vec<String>, SchemaError> {
        let texts = self.read(keyword, |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(String::from)).collect::<Option<Vec<_>>>()
        })?;
        Ok(texts.unwrap_or_default())
    }

    fn branches(&self, keyword: &'static str) -> Result<Vec<Schema>, SchemaError> {
        let branches = self.read(keyword, Value::as_array)?;
        branches.into_iter().flatten().map(|branch| parse_node(&self.child(branch, keyword))).collect()
    }

    fn boxed(&self, keyword: &'static str) -> Result<Option<Box<Schema>>, SchemaError> {
        match self.document.get(keyword) {
            None => Ok(None),
            Some(document) => Ok(Some(Box::new(parse_node(&self.child(document, keyword))?))),
        }
    }
}

/// Keywords of JSON Schema that structural schemas exclude, because nothing could be pruned or defaulted through them.
const EXCLUDED: [&str; 5] = ["$ref", "definitions", "dependencies", "patternProperties", "additionalItems"];

fn parse_node(node: &Node<'_>) -> Result<Schema, SchemaError> {
    if node.depth > MOST_DEPTH {
        return Err(SchemaError::TooDeep { at: node.at.clone() });
    }
    if !node.document.is_object() {
        return Err(node.wrong("schema"));
    }
    for keyword in EXCLUDED {
        if node.document.get(keyword).is_some() {
            return Err(SchemaError::Unsupported { at: node.at.clone(), keyword });
        }
    }
    Ok(Schema {
        kind: parse_type(node)?,
        nullable: node.flag("nullable")?,
        properties: parse_properties(node)?,
        additional: parse_additional(node)?,
        items: node.boxed("items")?,
        list_type: parse_list_type(node)?,
        atomic_map: parse_map_type(node)?,
        required: node.texts("required")?,
        allowed: node.read("enum", |value| value.as_array().cloned())?,
        range: parse_range(node)?,
        length: node.length("minLength", "maxLength")?,
        item_count: node.length("minItems", "maxItems")?,
        property_count: node.length("minProperties", "maxProperties")?,
        unique_items: node.flag("uniqueItems")?,
        pattern: parse_pattern(node)?,
        format: node.read("format", Value::as_str)?.and_then(format::Format::named),
        default: node.document.get("default").cloned(),
        embedded: node.flag("x-kubernetes-embedded-resource")?,
        all_of: node.branches("allOf")?,
        any_of: node.branches("anyOf")?,
        one_of: node.branches("oneOf")?,
        not: node.boxed("not")?,
    })
}

fn parse_type(node: &Node<'_>) -> Result<Type, SchemaError> {
    if node.flag("x-kubernetes-int-or-string")? {
        return Ok(Type::IntOrString);
    }
    match node.read("type", Value::as_str)? {
        None => Ok(Type::Any),
        Some("object") => Ok(Type::Object),
        Some("array") => Ok(Type::Array),
        Some("string") => Ok(Type::String),
        Some("integer") => Ok(Type::Integer),
        Some("number") => Ok(Type::Number),
        Some("boolean") => Ok(Type::Boolean),
        Some(other) => Err(SchemaError::UnknownType { at: node.at.clone(), found: String::from(other) }),
    }
}

fn parse_properties(node: &Node<'_>) -> Result<BTreeMap<String, Schema>, SchemaError> {
    let properties = node.read("properties", Value::as_object)?;
    properties
        .into_iter()
        .flatten()
        .map(|(name, document)| Ok((name.clone(), parse_node(&node.child(document, name))?)))
        .collect()
}

fn parse_additional(node: &Node<'_>) -> Result<Additional, SchemaError> {
    let preserve = node.flag("x-kubernetes-preserve-unknown-fields")?;
    match node.document.get("additionalProperties") {
        Some(Value::Bool(true)) => Ok(Additional::Kept),
        Some(document) if document.is_object() => {
            Ok(Additional::Typed(Box::new(parse_node(&node.child(document, "additionalProperties"))?)))
        }
        None | Some(Value::Bool(false)) if preserve => Ok(Additional::Kept),
        None | Some(Value::Bool(false)) => Ok(Additional::Pruned),
        Some(_) => Err(node.wrong("additionalProperties")),
    }
}

fn parse_list_type(node: &Node<'_>) -> Result<ListType, SchemaError> {
    match node.read("x-kubernetes-list-type", Value::as_str)? {
        None | Some("atomic") => Ok(ListType::Atomic),
        Some("set") => Ok(ListType::Set),
        Some("map") => Ok(ListType::Map(node.texts("x-kubernetes-list-map-keys")?)),
        Some(_) => Err(node.wrong("x-kubernetes-list-type")),
    }
}

fn parse_map_type(node: &Node<'_>) -> Result<bool, SchemaError> {
    match node.read("x-kubernetes-map-type", Value::as_str)? {
        None | Some("granular") => Ok(false),
        Some("atomic") => Ok(true),
        Some(_) => Err(node.wrong("x-kubernetes-map-type")),
    }
}

fn parse_range(node: &Node<'_>) -> Result<Range, SchemaError> {
    Ok(Range {
        minimum: node.read("minimum", Value::as_f64)?,
        exclusive_minimum: node.flag("exclusiveMinimum")?,
        maximum: node.read("maximum", Value::as_f64)?,
        exclusive_maximum: node.flag("exclusiveMaximum")?,
        multiple_of: node.read("multipleOf", Value::as_f64)?,
    })
}

fn parse_pattern(node: &Node<'_>) -> Result<Option<Regex>, SchemaError> {
    let Some(pattern) = node.read("pattern", Value::as_str)? else {
        return Ok(None);
    };
    match Regex::new(pattern) {
        Ok(regex) => Ok(Some(regex)),
        Err(source) => Err(SchemaError::Pattern { at: node.at.clone(), source: Box::new(source) }),
    }
}
