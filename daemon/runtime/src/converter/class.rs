//! The classes of converters: their names, Kafka Connect's among them, and how each is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::primitive::Primitive;
use super::{
    ByteArrayConverter, ConvertError, Converter, JsonConverter, PrimitiveConverter, SimpleHeaderConverter,
    StringConverter, TypedConverter,
};
use crate::schema_store::SchemaStore;

/// What is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Keys or values.
    Content,
    /// Headers.
    Header,
}

impl Role {
    /// What a configuration key is for: `key.converter`, `value.converter` or `header.converter`.
    pub fn of(key: &str) -> Self {
        if key == "header.converter" {
            Role::Header
        } else {
            Role::Content
        }
    }
}

struct Class {
    /// The name in configurations of ours.
    short: &'static str,
    /// Kafka Connect's class; none where it has none.
    java: Option<&'static str>,
    content: bool,
    header: bool,
}

const fn class_of(short: &'static str, java: &'static str) -> Class {
    Class {
        short,
        java: Some(java),
        content: true,
        header: true,
    }
}

const CLASSES: [Class; 11] = [
    class_of("json", "org.apache.kafka.connect.json.JsonConverter"),
    class_of("string", "org.apache.kafka.connect.storage.StringConverter"),
    class_of("bytes", "org.apache.kafka.connect.converters.ByteArrayConverter"),
    class_of("boolean", "org.apache.kafka.connect.converters.BooleanConverter"),
    class_of("short", "org.apache.kafka.connect.converters.ShortConverter"),
    class_of("integer", "org.apache.kafka.connect.converters.IntegerConverter"),
    class_of("long", "org.apache.kafka.connect.converters.LongConverter"),
    class_of("float", "org.apache.kafka.connect.converters.FloatConverter"),
    class_of("double", "org.apache.kafka.connect.converters.DoubleConverter"),
    Class {
        short: "simple",
        java: Some("org.apache.kafka.connect.storage.SimpleHeaderConverter"),
        content: false,
        header: true,
    },
    Class {
        short: "typed",
        java: None,
        content: true,
        header: false,
    },
];

impl Class {
    fn serves(&self, role: Role) -> bool {
        match role {
            Role::Content => self.content,
            Role::Header => self.header,
        }
    }

    /// Kafka Connect takes a class by its full name, its simple name, and that without `Converter`.
    fn is_called(&self, name: &str) -> bool {
        let simple = self.java.and_then(|java| java.rsplit('.').next());
        self.short == name
            || self.java == Some(name)
            || simple.is_some_and(|simple| {
                simple == name
                    || simple
                        .strip_suffix("Converter")
                        .is_some_and(|pruned| pruned == name)
            })
    }
}

/// The short name of the class `name` of a converter for `role`; none where there is no such converter.
pub fn class(name: &str, role: Role) -> Option<&'static str> {
    CLASSES
        .iter()
        .find(|class| class.serves(role) && class.is_called(name))
        .map(|class| class.short)
}

/// The short names of all converters for `role`.
pub fn classes(role: Role) -> impl Iterator<Item = &'static str> {
    CLASSES
        .iter()
        .filter(move |class| class.serves(role))
        .map(|class| class.short)
}

/// The converter class `name` with `settings`, its own keys with their prefix taken off (`schemas.enable`).
pub fn create(
    name: &str,
    role: Role,
    settings: &BTreeMap<String, String>,
    store: &Arc<SchemaStore>,
) -> Result<Box<dyn Converter>, ConvertError> {
    let primitive = |kind| Ok(Box::new(PrimitiveConverter::new(kind)) as Box<dyn Converter>);
    match class(name, role) {
        Some("json") => Ok(Box::new(JsonConverter::from_settings(settings)?)),
        Some("string") => Ok(Box::new(StringConverter::from_settings(settings)?)),
        Some("bytes") => Ok(Box::new(ByteArrayConverter)),
        Some("boolean") => primitive(Primitive::Boolean),
        Some("short") => primitive(Primitive::Short),
        Some("integer") => primitive(Primitive::Integer),
        Some("long") => primitive(Primitive::Long),
        Some("float") => primitive(Primitive::Float),
        Some("double") => primitive(Primitive::Double),
        Some("simple") => Ok(Box::new(SimpleHeaderConverter)),
        Some("typed") => Ok(Box::new(TypedConverter::new(store.clone()))),
        _ => Err(ConvertError(format!(
            "there is no converter {name:?}; there are {}",
            classes(role).collect::<Vec<_>>().join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_go_by_connects_names_and_short_ones() {
        for (name, content, header) in [
            ("json", Some("json"), Some("json")),
            ("JsonConverter", Some("json"), Some("json")),
            ("Json", Some("json"), Some("json")),
            (
                "org.apache.kafka.connect.json.JsonConverter",
                Some("json"),
                Some("json"),
            ),
            (
                "org.apache.kafka.connect.converters.ByteArrayConverter",
                Some("bytes"),
                Some("bytes"),
            ),
            ("ByteArray", Some("bytes"), Some("bytes")),
            (
                "org.apache.kafka.connect.converters.DoubleConverter",
                Some("double"),
                Some("double"),
            ),
            ("typed", Some("typed"), None),
            ("SimpleHeaderConverter", None, Some("simple")),
            ("Converter", None, None),
            ("", None, None),
        ] {
            assert_eq!(class(name, Role::Content), content, "{name}");
            assert_eq!(class(name, Role::Header), header, "{name}");
        }
    }
}
