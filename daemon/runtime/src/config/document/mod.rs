//! Configuration text of any format, read into one flat list of keys.
//!
//! A key's place in the file is kept, so that a problem found much later can still name its line. Nested tables
//! are joined by dots, lists by commas, and every scalar keeps the text it was written with: `0123` stays `0123`.

mod json;
mod properties;
mod toml;
mod yaml;

use std::collections::BTreeMap;
use std::path::Path;

/// A place in a file, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl Place {
    /// The place of the byte `offset` of `text`.
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() as u32 + 1,
            column: before[line_start..].chars().count() as u32 + 1,
        }
    }
}

/// Something that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where, as far as the format tells.
    pub place: Option<Place>,
    /// The key, where it is one key's fault.
    pub key: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl Fault {
    fn at(place: Place, message: impl Into<String>) -> Self {
        Self {
            place: Some(place),
            key: None,
            message: message.into(),
        }
    }

    fn of_key(key: &str, place: Place, message: impl Into<String>) -> Self {
        Self {
            place: Some(place),
            key: Some(key.to_owned()),
            message: message.into(),
        }
    }
}

/// One key and what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The full key, its parts joined by dots.
    pub key: String,
    /// The value's text; none where the file says null.
    pub value: Option<String>,
    /// Where the key stands.
    pub place: Place,
}

/// The formats that are read, by the extension of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.toml`
    Toml,
    /// `.yaml`, `.yml`
    Yaml,
    /// `.json`
    Json,
    /// `.properties`
    Properties,
}

impl Format {
    /// The extensions that are read, for messages.
    pub const EXTENSIONS: &str = ".toml, .yaml, .yml, .json and .properties";

    /// The format of `path` by its extension.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "properties" => Some(Self::Properties),
            _ => None,
        }
    }

    /// Reads `bytes` into its flat keys, in the order of the file; all faults that can be told apart at once.
    pub fn parse(self, bytes: &[u8]) -> Result<Vec<Entry>, Vec<Fault>> {
        if self == Self::Properties {
            return without_doubles(properties::parse(bytes).map_err(|fault| vec![fault])?);
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
            let place = Place::of(&before, before.len());
            vec![Fault::at(place, "is not UTF-8 text; save the file as UTF-8")]
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut root = match self {
            Self::Toml => toml::parse(text)?,
            Self::Yaml => yaml::parse(text).map_err(|fault| vec![fault])?,
            Self::Json | Self::Properties => json::parse(text).map_err(|fault| vec![fault])?,
        };
        // What GET /connectors/NAME answers tells of the tasks too; that is no configuration.
        if root
            .iter()
            .any(|(name, _, node)| name == "config" && matches!(node, Node::Table(_)))
        {
            root.retain(|(name, _, node)| !(name == "tasks" && matches!(node, Node::List(_))));
        }
        let mut flat = Flat::default();
        flat.table("", root);
        if flat.faults.is_empty() {
            without_doubles(flat.entries)
        } else {
            Err(flat.faults)
        }
    }
}

/// A value of TOML, YAML or JSON.
#[derive(Clone, Debug)]
enum Node {
    Null,
    Scalar(String),
    List(Vec<(Place, Node)>),
    Table(Table),
}

type Table = Vec<(String, Place, Node)>;

#[derive(Default)]
struct Flat {
    entries: Vec<Entry>,
    faults: Vec<Fault>,
}

impl Flat {
    fn table(&mut self, prefix: &str, table: Table) {
        for (name, place, node) in table {
            let key = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}.{name}")
            };
            match node {
                Node::Null => self.entries.push(Entry {
                    key,
                    value: None,
                    place,
                }),
                Node::Scalar(text) => self.entries.push(Entry {
                    key,
                    value: Some(text),
                    place,
                }),
                Node::Table(table) => self.table(&key, table),
                Node::List(items) => {
                    let value = self.list(&key, items);
                    self.entries.push(Entry {
                        key,
                        value: Some(value),
                        place,
                    });
                }
            }
        }
    }

    fn list(&mut self, key: &str, items: Vec<(Place, Node)>) -> String {
        let mut texts = Vec::with_capacity(items.len());
        for (place, item) in items {
            match item {
                Node::Scalar(text) if text.contains(',') => self.faults.push(Fault::of_key(
                    key,
                    place,
                    format!("the item {text:?} holds a comma, but commas separate the items of a list"),
                )),
                Node::Scalar(text) => texts.push(text),
                Node::Null | Node::List(_) | Node::Table(_) => self.faults.push(Fault::of_key(
                    key,
                    place,
                    "a list may hold text, numbers and booleans only",
                )),
            }
        }
        texts.join(",")
    }
}

/// Refuses keys that are given twice: which of the two counts would be a guess.
fn without_doubles(entries: Vec<Entry>) -> Result<Vec<Entry>, Vec<Fault>> {
    let mut first: BTreeMap<&str, Place> = BTreeMap::new();
    let mut faults = Vec::new();
    for entry in &entries {
        if let Some(place) = first.get(entry.key.as_str()) {
            let message = format!("is given twice, first in line {}; keep one of them", place.line);
            faults.push(Fault::of_key(&entry.key, entry.place, message));
        } else {
            first.insert(&entry.key, entry.place);
        }
    }
    if faults.is_empty() {
        Ok(entries)
    } else {
        Err(faults)
    }
}

#[cfg(test)]
mod tests;
