//! Which tables and columns are captured: anchored, case-insensitive regular expressions, as Debezium's lists are.

use regex::Regex;
use tidewater_plugin_api::{Config, ConfigProblem};

/// Schemas that hold the server's own tables.
const SYSTEM_SCHEMAS: [&str; 3] = ["pg_catalog", "information_schema", "pg_toast"];

/// A list of patterns, each with the text it came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns(Vec<(String, Regex)>);

impl Patterns {
    /// The patterns of the list `key`; its faults go to `problems`.
    pub(crate) fn of(config: &Config, key: &str, problems: &mut Vec<ConfigProblem>) -> Self {
        let mut patterns = Vec::new();
        for text in split_unescaped(config.str(key), ',') {
            match anchored(&text) {
                Ok(regex) => patterns.push((text, regex)),
                Err(error) => problems.push(ConfigProblem {
                    key: key.to_owned(),
                    value: Some(text),
                    message: format!("is no regular expression: {error}"),
                }),
            }
        }
        Self(patterns)
    }

    /// Whether a pattern matches the whole of `text`.
    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|(_, regex)| regex.is_match(text))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `text` as a pattern for whole names.
pub(crate) fn anchored(text: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("(?i)^(?:{text})$"))
}

/// The parts of `text` between `separator`s that have no backslash before them, trimmed, the empty ones left out.
pub(crate) fn split_unescaped(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(part) = parts.last_mut() else { break };
        match character {
            '\\' if characters.peek() == Some(&separator) => {
                part.push(separator);
                characters.next();
            }
            _ if character == separator => parts.push(String::new()),
            _ => part.push(character),
        }
    }
    parts
        .iter()
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

/// Which tables and columns are captured.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableFilter {
    schema_include: Patterns,
    schema_exclude: Patterns,
    table_include: Patterns,
    table_exclude: Patterns,
    column_include: Patterns,
    column_exclude: Patterns,
}

impl TableFilter {
    /// The filter that `config` describes; its faults go to `problems`.
    pub(crate) fn of(config: &Config, problems: &mut Vec<ConfigProblem>) -> Self {
        let mut patterns = |key: &str| Patterns::of(config, key, problems);
        let filter = Self {
            schema_include: patterns("schema.include.list"),
            schema_exclude: patterns("schema.exclude.list"),
            table_include: patterns("table.include.list"),
            table_exclude: patterns("table.exclude.list"),
            column_include: patterns("column.include.list"),
            column_exclude: patterns("column.exclude.list"),
        };
        for kind in ["schema", "table", "column"] {
            let [include, exclude] = ["include", "exclude"].map(|way| format!("{kind}.{way}.list"));
            if !config.str(&include).is_empty() && !config.str(&exclude).is_empty() {
                problems.push(ConfigProblem::new(
                    &exclude,
                    format!("cannot stand beside {include}: give one of the two"),
                ));
            }
        }
        filter
    }

    /// Whether the table is captured.
    pub(crate) fn captures(&self, schema: &str, table: &str) -> bool {
        if SYSTEM_SCHEMAS.contains(&schema) || schema.starts_with("pg_temp") {
            return false;
        }
        let name = format!("{schema}.{table}");
        (self.schema_include.is_empty() || self.schema_include.matches(schema))
            && !self.schema_exclude.matches(schema)
            && (self.table_include.is_empty() || self.table_include.matches(&name))
            && !self.table_exclude.matches(&name)
    }

    /// Whether an exclude list names the table or its schema.
    pub(crate) fn excludes(&self, schema: &str, table: &str) -> bool {
        self.schema_exclude.matches(schema) || self.table_exclude.matches(&format!("{schema}.{table}"))
    }

    /// Whether the column stands in values.
    pub(crate) fn includes_column(&self, schema: &str, table: &str, column: &str) -> bool {
        if self.column_include.is_empty() && self.column_exclude.is_empty() {
            return true;
        }
        let name = format!("{schema}.{table}.{column}");
        (self.column_include.is_empty() || self.column_include.matches(&name))
            && !self.column_exclude.matches(&name)
    }

    /// For each pattern of `table.include.list` that matches none of `tables`: the pattern, and the names nearest to it.
    pub(crate) fn unmatched(&self, tables: &[String]) -> Vec<(String, Vec<String>)> {
        let unmatched = self
            .table_include
            .0
            .iter()
            .filter(|(_, regex)| !tables.iter().any(|t| regex.is_match(t)));
        unmatched
            .map(|(text, _)| (text.clone(), nearest(text, tables)))
            .collect()
    }
}

/// The up to three `names` most like `wanted`.
fn nearest(wanted: &str, names: &[String]) -> Vec<String> {
    let wanted = wanted.replace('\\', "").to_lowercase();
    let mut scored: Vec<(f64, &String)> = names
        .iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored
        .into_iter()
        .filter(|(score, _)| *score > 0.6)
        .take(3)
        .map(|(_, name)| name.clone())
        .collect()
}

/// The lists of `message.key.columns`: a pattern for tables and the columns of their keys.
pub(crate) fn message_keys(config: &Config, problems: &mut Vec<ConfigProblem>) -> Vec<(Regex, Vec<String>)> {
    let key = "message.key.columns";
    let mut keys = Vec::new();
    for entry in split_unescaped(config.str(key), ';') {
        let fault = |message: String| ConfigProblem {
            key: key.to_owned(),
            value: Some(entry.clone()),
            message,
        };
        let Some((table, columns)) = entry.rsplit_once(':') else {
            problems.push(fault("must be <schema>.<table>:<column>,<column>;…".to_owned()));
            continue;
        };
        let columns = split_unescaped(columns, ',');
        match anchored(table.trim()) {
            Ok(_) if columns.is_empty() => problems.push(fault("names no column".to_owned())),
            Ok(regex) => keys.push((regex, columns)),
            Err(error) => problems.push(fault(format!("the table is no regular expression: {error}"))),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::config_def::config_def;

    fn filter(entries: &[(&str, &str)]) -> (TableFilter, Vec<ConfigProblem>) {
        let mut map = tidewater_plugin_api::ConfigMap::new();
        for (key, value) in [
            ("database.hostname", "h"),
            ("database.user", "u"),
            ("database.dbname", "d"),
            ("topic.prefix", "p"),
        ]
        .iter()
        .chain(entries)
        {
            map.insert((*key).to_owned(), (*value).to_owned());
        }
        let config = Config::new(config_def(), map).unwrap();
        let mut problems = Vec::new();
        (TableFilter::of(&config, &mut problems), problems)
    }

    #[test]
    fn names_match_whole_and_in_any_case() {
        let (filter, problems) = filter(&[("table.include.list", r"public\.orders?,shop.item{1\,2}")]);
        assert!(problems.is_empty());
        assert!(filter.captures("public", "Order"));
        assert!(filter.captures("shop", "itemm"));
        assert!(!filter.captures("public", "orders_old"));
        assert!(!filter.captures("pg_catalog", "orders"));
    }

    #[test]
    fn both_lists_of_a_kind_and_bad_patterns_are_reported_together() {
        let (_, problems) = filter(&[("table.include.list", "public.("), ("table.exclude.list", "x")]);
        assert_eq!(problems.len(), 2, "{problems:?}");
    }

    #[test]
    fn an_unmatched_pattern_comes_with_the_nearest_names() {
        let (filter, _) = filter(&[("table.include.list", "public.custmers")]);
        let tables = ["public.customers".to_owned(), "audit.log".to_owned()];
        assert_eq!(
            filter.unmatched(&tables),
            [("public.custmers".to_owned(), vec!["public.customers".to_owned()])]
        );
    }
}
