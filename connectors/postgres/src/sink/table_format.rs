//! `table.name.format`: from a topic, and an event's source block, to a table.

use super::identifier::{Quoting, TableName};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    SourceSchema,
    SourceTable,
}

/// A format, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFormat {
    parts: Vec<Part>,
    /// Whether dots within a topic's name separate schema and table; otherwise they become underscores.
    topic_dots_separate: bool,
}

impl TableFormat {
    /// Reads a format.
    pub fn parse(text: &str, topic_dots_separate: bool) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let end = rest[start..].find('}').ok_or("has a ${ without its }")? + start;
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            parts.push(match &rest[start + 2..end] {
                "topic" => Part::Topic,
                "source.schema" => Part::SourceSchema,
                "source.table" => Part::SourceTable,
                other => {
                    return Err(format!(
                        "does not know ${{{other}}}; there are ${{topic}}, ${{source.schema}} and ${{source.table}}"
                    ));
                }
            });
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self {
            parts,
            topic_dots_separate,
        })
    }

    /// Whether the names in the source block matter.
    pub fn needs_source(&self) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::SourceSchema | Part::SourceTable))
    }

    /// The table of a record. `source` is schema and table of the event's source block; where there is none, they are
    /// the last two parts of the topic's name.
    pub fn table(
        &self,
        topic: &str,
        source: Option<(&str, &str)>,
        quoting: Quoting,
    ) -> Result<TableName, String> {
        let (source_schema, source_table) = source.unwrap_or_else(|| names_of_topic(topic));
        // Names are put together in parts, so that a dot within a name never separates.
        let mut names = vec![String::new()];
        for part in &self.parts {
            let (text, dots_separate) = match part {
                Part::Text(text) => (text.as_str(), true),
                Part::Topic if self.topic_dots_separate => (topic, true),
                Part::Topic => (&*topic.replace('.', "_"), false),
                Part::SourceSchema => (source_schema, false),
                Part::SourceTable => (source_table, false),
            };
            let mut pieces = text.split(|c| dots_separate && c == '.');
            if let (Some(last), Some(first)) = (names.last_mut(), pieces.next()) {
                last.push_str(first);
            }
            names.extend(pieces.map(str::to_owned));
        }
        let table = names.pop().unwrap_or_default();
        let schema = names.pop().filter(|schema| !schema.is_empty());
        let name = TableName {
            schema: schema.map(|schema| quoting.catalogue_name(&schema)),
            table: quoting.catalogue_name(&table),
        };
        name.check().map_err(|why| format!("topic {topic}: {why}"))?;
        Ok(name)
    }
}

/// Schema and table of a topic named `prefix.schema.table`; a part that is not there is empty.
fn names_of_topic(topic: &str) -> (&str, &str) {
    match topic.rsplit_once('.') {
        Some((rest, table)) => (rest.rsplit_once('.').map_or(rest, |(_, schema)| schema), table),
        None => ("", topic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(format: &str, dots: bool, topic: &str, source: Option<(&str, &str)>) -> String {
        TableFormat::parse(format, dots)
            .unwrap()
            .table(topic, source, Quoting::Always)
            .unwrap()
            .to_string()
    }

    #[test]
    fn each_placeholder_and_where_dots_separate() {
        let topic = "shop.public.orders";
        assert_eq!(table("${topic}", false, topic, None), "\"shop_public_orders\"");
        assert_eq!(table("${topic}", true, topic, None), "\"public\".\"orders\"");
        assert_eq!(table("kafka_${topic}", true, "orders", None), "\"kafka_orders\"");
        let format = "${source.schema}.${source.table}";
        assert_eq!(table(format, true, topic, None), "\"public\".\"orders\"");
        assert_eq!(
            table(format, true, topic, Some(("a.b", "c.d"))),
            "\"a.b\".\"c.d\""
        );
        assert_eq!(table(format, true, "orders", None), "\"orders\"");
        assert_eq!(
            table("copy.${source.table}_v2", true, topic, None),
            "\"copy\".\"orders_v2\""
        );
    }

    #[test]
    fn faults_are_named() {
        assert!(
            TableFormat::parse("${topci}", true)
                .unwrap_err()
                .contains("${topic}")
        );
        assert!(TableFormat::parse("${topic", true).is_err());
        let empty = TableFormat::parse("${topic}.", true).unwrap();
        assert!(
            empty
                .table("orders", None, Quoting::Always)
                .unwrap_err()
                .contains("empty")
        );
    }
}
