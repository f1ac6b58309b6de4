//! TOML, with places.

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::{Fault, Node, Place, Table};

pub(super) fn parse(text: &str) -> Result<Table, Vec<Fault>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table(text, root.into_inner()));
    }
    Err(errors.iter().map(|error| fault(text, error)).collect())
}

fn fault(text: &str, error: &Error) -> Fault {
    let place = Place::of(text, error.span().map_or(0, |span| span.start));
    // `value.converter = …` beside `value.converter.schemas.enable = …` is everyday in Connect, but no TOML: the first
    // makes a string of what the second takes for a table.
    let clash = error.message().contains("cannot extend value") || error.message().contains("duplicate key");
    let hint = if clash {
        "; in TOML a key that continues another one must be in quotes, as in \"value.converter.schemas.enable\" = false"
    } else {
        ""
    };
    Fault::at(
        place,
        format!("is not valid TOML: {}{hint}", error.message().replace('\n', ", ")),
    )
}

fn table(text: &str, table: DeTable<'_>) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let place = Place::of(text, key.span().start);
            (key.into_inner().into_owned(), place, node(text, value))
        })
        .collect()
}

fn node(text: &str, value: Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    match value.into_inner() {
        DeValue::String(string) => Node::Scalar(string.into_owned()),
        DeValue::Integer(integer) if integer.radix() == 10 => Node::Scalar(integer.as_str().to_owned()),
        DeValue::Integer(integer) => Node::Scalar(
            i64::from_str_radix(integer.as_str(), integer.radix()).map_or_else(
                |_| text.get(span).unwrap_or_default().to_owned(),
                |number| number.to_string(),
            ),
        ),
        DeValue::Float(float) => Node::Scalar(float.as_str().to_owned()),
        DeValue::Boolean(boolean) => Node::Scalar(boolean.to_string()),
        DeValue::Datetime(datetime) => Node::Scalar(datetime.to_string()),
        DeValue::Table(inner) => Node::Table(table(text, inner)),
        DeValue::Array(items) => Node::List(
            items
                .into_iter()
                .map(|item| (Place::of(text, item.span().start), node(text, item)))
                .collect(),
        ),
    }
}
