//! Names of schemas, tables and columns as SQL takes them.

use std::fmt;

/// The longest identifier Postgres keeps, in bytes; it cuts longer ones (`NAMEDATALEN - 1`).
const MAX_BYTES: usize = 63;

/// How names of topics and fields become identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// As they are, quoted: upper case, spaces and reserved words are kept.
    Always,
    /// In lower case, as Postgres reads a name without quotes.
    Never,
}

impl Quoting {
    /// `name` as the catalogue holds it: folded if so wished, and cut where Postgres would cut it.
    pub fn catalogue_name(self, name: &str) -> String {
        let folded = match self {
            Quoting::Always => name.to_owned(),
            Quoting::Never => name.to_lowercase(),
        };
        let mut end = folded.len().min(MAX_BYTES);
        while !folded.is_char_boundary(end) {
            end -= 1;
        }
        folded[..end].to_owned()
    }
}

/// Why `name` cannot be an identifier at all.
pub fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("a name is empty")
    } else if name.contains('\0') {
        Err("a name contains a NUL character, which Postgres does not allow")
    } else {
        Ok(())
    }
}

/// `name` in double quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL string, whatever it holds (`standard_conforming_strings` is on in our sessions).
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A table, as the catalogue names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableName {
    /// The schema; none leaves it to the session's search path.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

impl TableName {
    /// Reads `table` or `schema.table`, both without quotes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema.to_owned()), table.to_owned()),
            None => (None, text.to_owned()),
        };
        let name = Self { schema, table };
        name.check()?;
        Ok(name)
    }

    /// Why Postgres could not take the name.
    pub fn check(&self) -> Result<(), String> {
        self.schema
            .iter()
            .chain([&self.table])
            .try_for_each(|part| check(part))
            .map_err(|why| format!("{why} (table {:?}, schema {:?})", self.table, self.schema))
    }
}

/// As SQL: `"schema"."table"`.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quoted(schema))?;
        }
        f.write_str(&quoted(&self.table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_quoted() {
        let name = TableName {
            schema: Some("select".into()),
            table: "Weird \"Name\".x".into(),
        };
        assert_eq!(name.to_string(), r#""select"."Weird ""Name"".x""#);
        assert_eq!(literal("it's \\ fine"), "'it''s \\ fine'");
    }

    #[test]
    fn long_names_are_cut_where_postgres_cuts_them() {
        let name = "ä".repeat(40);
        assert_eq!(Quoting::Always.catalogue_name(&name), "ä".repeat(31));
        assert_eq!(Quoting::Never.catalogue_name("Orders"), "orders");
    }

    #[test]
    fn impossible_names_are_refused() {
        assert!(TableName::parse("").is_err());
        assert!(TableName::parse("public.").is_err());
        assert!(TableName::parse("a\0b").is_err());
    }
}
