//! All classes in one table: their names, what they do, what can be configured, and how they are made.

use tidewater_plugin_api::ConfigDef;

use crate::predicate::{self, HasHeaderKey, Predicate, RecordIsTombstone, TopicNameMatches};
use crate::record::Side;
use crate::settings::Settings;
use crate::transform::Transform;
use crate::transform::{
    by_logical_table_router, cast, content_based_router, drop_headers, expression_filter, extract_field,
    extract_new_record_state, filter, flatten, header_from, hoist_field, insert_field, insert_header,
    mask_field, regex_router, replace_field, set_schema_metadata, timestamp_converter, timestamp_router,
    value_to_key,
};

/// A class of transforms.
pub struct TransformClass {
    /// The short name, without variant.
    pub name: &'static str,
    /// The full name of its Java counterpart, without variant.
    pub java_name: &'static str,
    /// Whether there is one for keys and one for values, `$Key` and `$Value`.
    pub has_variants: bool,
    /// What it does, in a sentence.
    pub documentation: &'static str,
    config: fn() -> ConfigDef,
    build: Build,
}

enum Build {
    OfSide(fn(&mut Settings, Side) -> Option<Box<dyn Transform>>),
    OfRecord(fn(&mut Settings) -> Option<Box<dyn Transform>>),
}

impl TransformClass {
    /// What can be configured, without `type`, `predicate` and `negate`, which every transform has.
    pub fn config(&self) -> ConfigDef {
        (self.config)()
    }

    /// The names a configuration may give it: with variants where it has them, short ones first.
    pub fn names(&self) -> Vec<String> {
        let variants: &[&str] = if self.has_variants {
            &["$Key", "$Value"]
        } else {
            &[""]
        };
        let both = [self.name, self.java_name];
        both.iter()
            .flat_map(|name| variants.iter().map(move |variant| format!("{name}{variant}")))
            .collect()
    }

    pub(crate) fn build(&self, settings: &mut Settings, side: Option<Side>) -> Option<Box<dyn Transform>> {
        match self.build {
            Build::OfSide(build) => build(settings, side.unwrap_or(Side::Value)),
            Build::OfRecord(build) => build(settings),
        }
    }
}

/// A class of predicates.
pub struct PredicateClass {
    /// The short name.
    pub name: &'static str,
    /// The full name of its Java counterpart.
    pub java_name: &'static str,
    /// What it does, in a sentence.
    pub documentation: &'static str,
    config: fn() -> ConfigDef,
    pub(crate) build: fn(&mut Settings) -> Option<Box<dyn Predicate>>,
}

impl PredicateClass {
    /// What can be configured, without `type`.
    pub fn config(&self) -> ConfigDef {
        (self.config)()
    }

    /// The names a configuration may give it, the short one first.
    pub fn names(&self) -> [&'static str; 2] {
        [self.name, self.java_name]
    }
}

macro_rules! connect {
    ($name:literal) => {
        concat!("org.apache.kafka.connect.transforms.", $name)
    };
}

static TRANSFORMS: [TransformClass; 20] = [
    TransformClass {
        name: "ByLogicalTableRouter",
        java_name: "io.debezium.transforms.ByLogicalTableRouter",
        has_variants: false,
        documentation: "Sends the changes of several tables of the same form to one topic, and tells their keys apart.",
        config: by_logical_table_router::config,
        build: Build::OfRecord(by_logical_table_router::ByLogicalTableRouter::build),
    },
    TransformClass {
        name: "Cast",
        java_name: connect!("Cast"),
        has_variants: true,
        documentation: "Casts fields, or the whole, to another primitive type.",
        config: cast::config,
        build: Build::OfSide(cast::Cast::build),
    },
    TransformClass {
        name: "ContentBasedRouter",
        java_name: "io.debezium.transforms.ContentBasedRouter",
        has_variants: false,
        documentation: "Sends records to the topic that an expression gives.",
        config: content_based_router::config,
        build: Build::OfRecord(content_based_router::ContentBasedRouter::build),
    },
    TransformClass {
        name: "DropHeaders",
        java_name: connect!("DropHeaders"),
        has_variants: false,
        documentation: "Drops headers by name.",
        config: drop_headers::config,
        build: Build::OfRecord(drop_headers::DropHeaders::build),
    },
    TransformClass {
        name: "ExpressionFilter",
        java_name: "io.debezium.transforms.Filter",
        has_variants: false,
        documentation: "Keeps the records that meet the condition of an expression.",
        config: expression_filter::config,
        build: Build::OfRecord(expression_filter::ExpressionFilter::build),
    },
    TransformClass {
        name: "ExtractField",
        java_name: connect!("ExtractField"),
        has_variants: true,
        documentation: "Puts one field in the place of the whole.",
        config: extract_field::config,
        build: Build::OfSide(extract_field::ExtractField::build),
    },
    TransformClass {
        name: "ExtractNewRecordState",
        java_name: "io.debezium.transforms.ExtractNewRecordState",
        has_variants: false,
        documentation: "Takes the row out of a change event.",
        config: extract_new_record_state::config,
        build: Build::OfRecord(extract_new_record_state::ExtractNewRecordState::build),
    },
    TransformClass {
        name: "Filter",
        java_name: connect!("Filter"),
        has_variants: false,
        documentation: "Drops all records that its predicate lets through to it.",
        config: filter::config,
        build: Build::OfRecord(|_| Some(Box::new(filter::Filter))),
    },
    TransformClass {
        name: "Flatten",
        java_name: connect!("Flatten"),
        has_variants: true,
        documentation: "Brings nested fields to the top, under joined names.",
        config: flatten::config,
        build: Build::OfSide(flatten::Flatten::build),
    },
    TransformClass {
        name: "HeaderFrom",
        java_name: connect!("HeaderFrom"),
        has_variants: true,
        documentation: "Moves or copies fields to headers.",
        config: header_from::config,
        build: Build::OfSide(header_from::HeaderFrom::build),
    },
    TransformClass {
        name: "HoistField",
        java_name: connect!("HoistField"),
        has_variants: true,
        documentation: "Wraps the whole, or a field, in a struct or map of one field.",
        config: hoist_field::config,
        build: Build::OfSide(hoist_field::HoistField::build),
    },
    TransformClass {
        name: "InsertField",
        java_name: connect!("InsertField"),
        has_variants: true,
        documentation: "Inserts the topic, partition, offset, timestamp or a fixed text as fields.",
        config: insert_field::config,
        build: Build::OfSide(insert_field::InsertField::build),
    },
    TransformClass {
        name: "InsertHeader",
        java_name: connect!("InsertHeader"),
        has_variants: false,
        documentation: "Adds a header with a fixed value.",
        config: insert_header::config,
        build: Build::OfRecord(insert_header::InsertHeader::build),
    },
    TransformClass {
        name: "MaskField",
        java_name: connect!("MaskField"),
        has_variants: true,
        documentation: "Masks fields with a value of their type that tells nothing.",
        config: mask_field::config,
        build: Build::OfSide(mask_field::MaskField::build),
    },
    TransformClass {
        name: "RegexRouter",
        java_name: connect!("RegexRouter"),
        has_variants: false,
        documentation: "Renames topics by a regular expression.",
        config: regex_router::config,
        build: Build::OfRecord(regex_router::RegexRouter::build),
    },
    TransformClass {
        name: "ReplaceField",
        java_name: connect!("ReplaceField"),
        has_variants: true,
        documentation: "Drops, keeps or renames fields.",
        config: replace_field::config,
        build: Build::OfSide(replace_field::ReplaceField::build),
    },
    TransformClass {
        name: "SetSchemaMetadata",
        java_name: connect!("SetSchemaMetadata"),
        has_variants: true,
        documentation: "Sets the name or version of the schema.",
        config: set_schema_metadata::config,
        build: Build::OfSide(set_schema_metadata::SetSchemaMetadata::build),
    },
    TransformClass {
        name: "TimestampConverter",
        java_name: connect!("TimestampConverter"),
        has_variants: true,
        documentation: "Converts times between text, Unix numbers and Connect's types.",
        config: timestamp_converter::config,
        build: Build::OfSide(timestamp_converter::TimestampConverter::build),
    },
    TransformClass {
        name: "TimestampRouter",
        java_name: connect!("TimestampRouter"),
        has_variants: false,
        documentation: "Puts the timestamp in the name of the topic.",
        config: timestamp_router::config,
        build: Build::OfRecord(timestamp_router::TimestampRouter::build),
    },
    TransformClass {
        name: "ValueToKey",
        java_name: connect!("ValueToKey"),
        has_variants: false,
        documentation: "Makes the key of fields of the value.",
        config: value_to_key::config,
        build: Build::OfRecord(value_to_key::ValueToKey::build),
    },
];

static PREDICATES: [PredicateClass; 3] = [
    PredicateClass {
        name: "HasHeaderKey",
        java_name: connect!("predicates.HasHeaderKey"),
        documentation: "True for records with a header of a given name.",
        config: predicate::has_header_key_config,
        build: HasHeaderKey::build,
    },
    PredicateClass {
        name: "RecordIsTombstone",
        java_name: connect!("predicates.RecordIsTombstone"),
        documentation: "True for records whose value is null.",
        config: ConfigDef::new,
        build: |_| Some(Box::new(RecordIsTombstone)),
    },
    PredicateClass {
        name: "TopicNameMatches",
        java_name: connect!("predicates.TopicNameMatches"),
        documentation: "True for records of topics whose whole name matches.",
        config: predicate::topic_name_matches_config,
        build: TopicNameMatches::build,
    },
];

/// All classes of transforms, by name.
pub fn transforms() -> &'static [TransformClass] {
    &TRANSFORMS
}

/// All classes of predicates, by name.
pub fn predicates() -> &'static [PredicateClass] {
    &PREDICATES
}

/// The class of transforms called `name`, and the half of the record its variant means; the error says what is wrong with
/// the name.
pub(crate) fn find_transform(name: &str) -> Result<(&'static TransformClass, Option<Side>), String> {
    let (plain, side) = match name.rsplit_once('$') {
        Some((plain, "Key")) => (plain, Some(Side::Key)),
        Some((plain, "Value")) => (plain, Some(Side::Value)),
        _ => (name, None),
    };
    let class = TRANSFORMS
        .iter()
        .find(|class| class.name == plain || class.java_name == plain);
    match class {
        Some(class) if class.has_variants && side.is_none() => Err(format!(
            "does not say which half of the record is meant; use {0}$Key or {0}$Value",
            class.name
        )),
        Some(class) if !class.has_variants && side.is_some() => {
            Err(format!("has no $Key and $Value; use {}", class.name))
        }
        Some(class) => Ok((class, side)),
        None => {
            let names: Vec<String> = TRANSFORMS.iter().flat_map(TransformClass::names).collect();
            let near = crate::nearest::suggestion(name, names.iter().map(String::as_str));
            let all: Vec<&str> = TRANSFORMS.iter().map(|class| class.name).collect();
            Err(format!(
                "is no class of transforms{near}; there are {}",
                all.join(", ")
            ))
        }
    }
}

/// The class of predicates called `name`; the error says what is wrong with the name.
pub(crate) fn find_predicate(name: &str) -> Result<&'static PredicateClass, String> {
    PREDICATES
        .iter()
        .find(|class| class.names().contains(&name))
        .ok_or_else(|| {
            let names = PREDICATES.iter().flat_map(PredicateClass::names);
            let near = crate::nearest::suggestion(name, names);
            let all: Vec<&str> = PREDICATES.iter().map(|class| class.name).collect();
            format!("is no class of predicates{near}; there are {}", all.join(", "))
        })
}
