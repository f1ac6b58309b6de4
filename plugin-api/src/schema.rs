//! Schemas: what a value is. The model is Kafka Connect's: a physical [`Type`], whether it may be null, a default,
//! and a name with version and parameters that give it a logical meaning (see [`crate::logical`]).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::value::Value;

/// A shared schema. Cloning is cheap; two equal pointers are equal schemas.
pub type SchemaRef = Arc<Schema>;

/// The physical type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A signed 8-bit integer.
    Int8,
    /// A signed 16-bit integer.
    Int16,
    /// A signed 32-bit integer.
    Int32,
    /// A signed 64-bit integer.
    Int64,
    /// An IEEE 754 single.
    Float32,
    /// An IEEE 754 double.
    Float64,
    /// UTF-8 text.
    String,
    /// Raw bytes.
    Bytes,
    /// A list whose elements share one schema.
    Array(SchemaRef),
    /// Pairs whose keys share one schema and whose values share another.
    Map(SchemaRef, SchemaRef),
    /// Named fields in a fixed order.
    Struct(Vec<Field>),
}

impl Type {
    /// The type's name as Kafka Connect's JSON schemas spell it (`int32`, `boolean`, `float`, …).
    pub fn name(&self) -> &'static str {
        match self {
            Type::Bool => "boolean",
            Type::Int8 => "int8",
            Type::Int16 => "int16",
            Type::Int32 => "int32",
            Type::Int64 => "int64",
            Type::Float32 => "float",
            Type::Float64 => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Array(_) => "array",
            Type::Map(..) => "map",
            Type::Struct(_) => "struct",
        }
    }
}

/// A field of a struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The field's name, unique within its struct.
    pub name: Arc<str>,
    /// What the field holds.
    pub schema: SchemaRef,
}

impl Field {
    /// A field called `name` that holds `schema`.
    pub fn new(name: impl Into<Arc<str>>, schema: impl Into<SchemaRef>) -> Self {
        Self {
            name: name.into(),
            schema: schema.into(),
        }
    }
}

/// What a value is: its physical type, and what that type means. Once a schema is shared its fields do not change: its
/// JSON is made at first need and kept.
#[derive(Debug)]
pub struct Schema {
    /// The physical type.
    pub ty: Type,
    /// Whether the value may be null.
    pub optional: bool,
    /// The value to take where none is given.
    pub default: Option<Value>,
    /// The schema's full name; for logical types the name is the meaning.
    pub name: Option<Arc<str>>,
    /// The schema's version.
    pub version: Option<i32>,
    /// A sentence for people.
    pub doc: Option<Arc<str>>,
    /// Parameters of a logical type (`scale` of a decimal) or notes of the source.
    pub parameters: BTreeMap<String, String>,
    json: OnceLock<Bytes>,
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.ty == other.ty
            && self.optional == other.optional
            && self.default == other.default
            && self.name == other.name
            && self.version == other.version
            && self.doc == other.doc
            && self.parameters == other.parameters
    }
}

impl Clone for Schema {
    /// The copy is there to be changed, so it makes its JSON anew.
    fn clone(&self) -> Self {
        Self {
            ty: self.ty.clone(),
            optional: self.optional,
            default: self.default.clone(),
            name: self.name.clone(),
            version: self.version,
            doc: self.doc.clone(),
            parameters: self.parameters.clone(),
            json: OnceLock::new(),
        }
    }
}

impl Schema {
    /// A required, unnamed schema of `ty`.
    pub fn new(ty: Type) -> Self {
        Self {
            ty,
            optional: false,
            default: None,
            name: None,
            version: None,
            doc: None,
            parameters: BTreeMap::new(),
            json: OnceLock::new(),
        }
    }

    /// A required struct of `fields`.
    pub fn structure(fields: Vec<Field>) -> Self {
        Self::new(Type::Struct(fields))
    }

    /// A required list of `element`.
    pub fn array(element: impl Into<SchemaRef>) -> Self {
        Self::new(Type::Array(element.into()))
    }

    /// A required map from `key` to `value`.
    pub fn map(key: impl Into<SchemaRef>, value: impl Into<SchemaRef>) -> Self {
        Self::new(Type::Map(key.into(), value.into()))
    }

    /// Lets the value be null.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self.json = OnceLock::new();
        self
    }

    /// Gives the schema its full name.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self.json = OnceLock::new();
        self
    }

    /// Gives the schema a version.
    #[must_use]
    pub fn version(mut self, version: i32) -> Self {
        self.version = Some(version);
        self.json = OnceLock::new();
        self
    }

    /// Adds a parameter.
    #[must_use]
    pub fn parameter(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.parameters.insert(key.into(), value.into());
        self.json = OnceLock::new();
        self
    }

    /// Gives the value to take where none is given.
    #[must_use]
    pub fn default_value(mut self, value: Value) -> Self {
        self.default = Some(value);
        self.json = OnceLock::new();
        self
    }

    /// The fields of a struct; none for any other type.
    pub fn fields(&self) -> &[Field] {
        match &self.ty {
            Type::Struct(fields) => fields,
            _ => &[],
        }
    }

    /// The position and schema of the struct field `name`.
    pub fn field(&self, name: &str) -> Option<(usize, &Field)> {
        self.fields()
            .iter()
            .enumerate()
            .find(|(_, field)| &*field.name == name)
    }

    /// The schema in Kafka Connect's JSON form, encoded once and then shared. It is what a frame carries and what
    /// the JSON converter writes.
    pub fn json(&self) -> &Bytes {
        self.json
            .get_or_init(|| Bytes::from(crate::json::schema_to_json(self, None).to_string().into_bytes()))
    }
}
