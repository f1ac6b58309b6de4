//! Strict JSON, with places.

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::{Fault, Node, Place, Table};

const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub(super) fn parse(text: &str) -> Result<Table, Fault> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT).map_err(|error| {
        let place = Place::of(text, error.range().start);
        Fault::at(place, format!("is not valid JSON: {}", error.kind()))
    })?;
    match parsed.value {
        Some(Value::Object(object)) => Ok(table(text, object)),
        Some(other) => {
            let place = Place::of(text, other.range().start);
            Err(Fault::at(
                place,
                "must hold a JSON object: {\"connector.class\": …}",
            ))
        }
        None => Err(Fault::at(
            Place::of(text, 0),
            "is empty; a JSON object is expected: {\"connector.class\": …}",
        )),
    }
}

fn table(text: &str, object: jsonc_parser::ast::Object<'_>) -> Table {
    object
        .properties
        .into_iter()
        .map(|property| {
            let place = Place::of(text, property.range.start);
            (property.name.into_string(), place, node(text, property.value))
        })
        .collect()
}

fn node(text: &str, value: Value<'_>) -> Node {
    match value {
        Value::StringLit(literal) => Node::Scalar(literal.value.into_owned()),
        Value::NumberLit(literal) => Node::Scalar(literal.value.to_owned()),
        Value::BooleanLit(literal) => Node::Scalar(literal.value.to_string()),
        Value::NullKeyword(_) => Node::Null,
        Value::Object(object) => Node::Table(table(text, object)),
        Value::Array(array) => Node::List(
            array
                .elements
                .into_iter()
                .map(|element| (Place::of(text, element.range().start), node(text, element)))
                .collect(),
        ),
    }
}
