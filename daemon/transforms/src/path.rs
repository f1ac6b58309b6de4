//! Paths to fields. In version 1 a path is one name, whatever is in it; in version 2 (KIP-821) dots lead into nested
//! structs and maps, and backticks keep the dots of a name together: ``a.`b.c`.d``.

use std::sync::Arc;

use tidewater_plugin_api::{Schema, Value};

/// How paths are written: `field.syntax.version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syntax {
    /// The whole text is the name of a field.
    #[default]
    V1,
    /// Dots separate names.
    V2,
}

/// A way from the root of a struct or map to one of its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    text: String,
    steps: Vec<Arc<str>>,
}

impl FieldPath {
    /// Reads a path; the error says what is wrong with it.
    pub fn parse(text: &str, syntax: Syntax) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a field's path must not be empty".into());
        }
        let steps = match syntax {
            Syntax::V1 => vec![Arc::from(text)],
            Syntax::V2 => nested(text)?,
        };
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }

    /// The path as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names on the way; there is at least one.
    pub fn steps(&self) -> &[Arc<str>] {
        &self.steps
    }

    /// The name of the field itself.
    pub fn name(&self) -> &Arc<str> {
        &self.steps[self.steps.len() - 1]
    }

    /// The positions on the way and the schema at its end; none where `schema` has no such field.
    pub fn locate<'a>(&self, schema: &'a Schema) -> Option<Located<'a>> {
        let mut found = Located {
            indices: Vec::with_capacity(self.steps.len()),
            schema: None,
        };
        let mut current = schema;
        for step in &self.steps {
            let (index, field) = current.field(step)?;
            found.indices.push(index);
            found.schema = Some(&field.schema);
            current = &field.schema;
        }
        Some(found)
    }

    /// The value at the end of the way through maps, taken out of `value`; none where the way does not go that far.
    pub fn take_from(&self, value: &mut Value) -> Option<Value> {
        let mut current = value;
        for step in &self.steps {
            let Value::Map(pairs) = current else { return None };
            current = &mut pairs.iter_mut().find(|(key, _)| is_name(key, step))?.1;
        }
        Some(std::mem::replace(current, Value::Null))
    }

    /// The value at the end of the way through maps; none where the way does not go that far.
    pub fn find_in<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        let mut current = value;
        for step in &self.steps {
            let Value::Map(pairs) = current else { return None };
            current = &pairs.iter().find(|(key, _)| is_name(key, step))?.1;
        }
        Some(current)
    }
}

/// Where a path leads in a schema.
#[derive(Clone, Debug)]
pub struct Located<'a> {
    /// The position of the field in each struct on the way.
    pub indices: Vec<usize>,
    /// The field's schema.
    pub schema: Option<&'a tidewater_plugin_api::SchemaRef>,
}

/// Whether the key of a map's pair is the text `name`.
pub fn is_name(key: &Value, name: &str) -> bool {
    matches!(key, Value::String(text) if text == name)
}

/// The value at `indices` of nested structs; none where a struct on the way is null.
pub fn value_at<'a>(value: &'a Value, indices: &[usize]) -> Option<&'a Value> {
    indices.iter().try_fold(value, |value, &index| match value {
        Value::Struct(fields) => fields.get(index),
        _ => None,
    })
}

/// Takes the value at `indices` of nested structs out; none where a struct on the way is null.
pub fn take_at(value: &mut Value, indices: &[usize]) -> Option<Value> {
    let found = indices.iter().try_fold(value, |value, &index| match value {
        Value::Struct(fields) => fields.get_mut(index),
        _ => None,
    })?;
    Some(std::mem::replace(found, Value::Null))
}

fn nested(text: &str) -> Result<Vec<Arc<str>>, String> {
    let mut steps: Vec<Arc<str>> = Vec::new();
    let mut rest = text;
    loop {
        let (step, after) = match rest.strip_prefix('`') {
            Some(quoted) => quoted_step(quoted).ok_or_else(|| {
                format!("the backtick before {quoted:?} has no partner; end the name with one, or write \\` for a backtick within")
            })?,
            None => match rest.split_once('.') {
                Some((step, after)) => (step.to_owned(), Some(after)),
                None => (rest.to_owned(), None),
            },
        };
        steps.push(step.into());
        match after {
            Some(after) => rest = after,
            None => return Ok(steps),
        }
    }
}

/// A name in backticks and what follows the dot after it. A backtick ends the name only where the name must end: before a
/// dot or at the end of the path; a backslash before such a one makes it part of the name.
fn quoted_step(quoted: &str) -> Option<(String, Option<&str>)> {
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let at = rest.find('`')?;
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let ends = after.is_empty() || after.starts_with('.');
        if !ends {
            name.push_str(before);
            name.push('`');
        } else if let Some(before) = before.strip_suffix('\\') {
            name.push_str(before);
            name.push('`');
        } else {
            name.push_str(before);
            return Some((name, after.strip_prefix('.')));
        }
        rest = after;
    }
}

/// Several paths, merged where they share their way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathTree {
    children: Vec<(Arc<str>, PathTree)>,
    leaf: Option<usize>,
}

impl PathTree {
    /// Merges `paths`; a leaf carries the position of its path. The error names the path that lies within another.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a FieldPath>) -> Result<Self, String> {
        let mut tree = Self::default();
        for (index, path) in paths.into_iter().enumerate() {
            let mut node = &mut tree;
            for step in path.steps() {
                if node.leaf.is_some() {
                    return Err(within(path));
                }
                let known = node.children.iter().position(|(name, _)| name == step);
                let at = known.unwrap_or(node.children.len());
                if known.is_none() {
                    node.children.push((step.clone(), PathTree::default()));
                }
                node = &mut node.children[at].1;
            }
            if !node.children.is_empty() {
                return Err(within(path));
            }
            node.leaf = Some(index);
        }
        Ok(tree)
    }

    /// Whether there is no path.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty() && self.leaf.is_none()
    }

    /// What goes on below `name`.
    pub fn child(&self, name: &str) -> Option<&PathTree> {
        self.children
            .iter()
            .find(|(step, _)| &**step == name)
            .map(|(_, tree)| tree)
    }

    /// All that goes on from here.
    pub fn children(&self) -> &[(Arc<str>, PathTree)] {
        &self.children
    }

    /// The position of the path that ends here.
    pub fn leaf(&self) -> Option<usize> {
        self.leaf
    }
}

fn within(path: &FieldPath) -> String {
    format!(
        "{:?} and another path lie one within the other; name either the whole or its parts",
        path.text()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_kip_821_says() {
        let table: [(&str, &[&str]); 14] = [
            ("a", &["a"]),
            ("a.b", &["a", "b"]),
            ("a.b.c", &["a", "b", "c"]),
            ("a.", &["a", ""]),
            (".a", &["", "a"]),
            ("..", &["", "", ""]),
            ("`a.b`", &["a.b"]),
            ("`a.b`.c", &["a.b", "c"]),
            ("a.`b.c`", &["a", "b.c"]),
            ("`a`b`", &["a`b"]),
            ("`a`b.c`", &["a`b.c"]),
            ("`a\\`.b`", &["a`.b"]),
            ("a`b.c", &["a`b", "c"]),
            ("`a.b`.`c.d`.e", &["a.b", "c.d", "e"]),
        ];
        for (text, expected) in table {
            let path = FieldPath::parse(text, Syntax::V2).expect(text);
            let steps: Vec<&str> = path.steps().iter().map(|step| &**step).collect();
            assert_eq!(steps, expected, "{text}");
        }
    }

    #[test]
    fn version_1_takes_the_text_as_it_is() {
        for text in ["a", "a.b", "`a`", "a."] {
            let path = FieldPath::parse(text, Syntax::V1).expect(text);
            assert_eq!((path.steps().len(), &**path.name()), (1, text));
        }
    }

    #[test]
    fn a_backtick_needs_its_partner() {
        for text in ["`a", "`a.b", "a.`b", "`a\\`", "`", "`a`b"] {
            let error = FieldPath::parse(text, Syntax::V2).expect_err(text);
            assert!(error.contains("partner"), "{text}: {error}");
        }
        assert!(FieldPath::parse("", Syntax::V2).is_err());
    }

    #[test]
    fn a_path_may_not_lie_within_another() {
        let paths = |texts: &[&str]| {
            let parsed: Vec<_> = texts
                .iter()
                .map(|text| FieldPath::parse(text, Syntax::V2).expect(text))
                .collect();
            PathTree::new(&parsed)
        };
        assert!(paths(&["a", "a.b"]).is_err());
        assert!(paths(&["a.b", "a"]).is_err());
        let tree = paths(&["a.b", "a.c", "d"]).expect("apart");
        assert_eq!(
            tree.child("a")
                .and_then(|a| a.child("c"))
                .and_then(PathTree::leaf),
            Some(1)
        );
    }
}
