//! Regular expressions and replacements as Java's `Pattern` and `Matcher` take them, as far as configurations go: look-around
//! and back-references included, and with a bound on the work for one match.

use std::collections::HashMap;
use std::sync::Arc;

use fancy_regex::{Regex, RegexBuilder};

use crate::fault::Fault;

/// A pattern that must match the whole text.
#[derive(Clone, Debug)]
pub(crate) struct WholeMatch {
    regex: Regex,
    key: &'static str,
}

impl WholeMatch {
    /// Steps back that one match may take.
    const BACKTRACK_LIMIT: usize = 100_000;

    /// The pattern under the configuration key `key`; the error says what is wrong with it.
    pub(crate) fn new(pattern: &str, key: &'static str) -> Result<Self, String> {
        // By itself first, so that an unbalanced parenthesis is found out.
        build(pattern)?;
        let regex = build(&format!(r"\A(?:{pattern})\z"))?;
        Ok(Self { regex, key })
    }

    /// Whether `text` as a whole matches.
    pub(crate) fn matches(&self, text: &str) -> Result<bool, Fault> {
        self.regex.is_match(text).map_err(|error| self.fault(&error))
    }

    /// `replacement` for `text`; none where it does not match as a whole.
    pub(crate) fn replace(&self, text: &str, replacement: &Replacement) -> Result<Option<String>, Fault> {
        let captures = self.regex.captures(text).map_err(|error| self.fault(&error))?;
        let Some(captures) = captures else {
            return Ok(None);
        };
        let mut out = String::new();
        for piece in &replacement.0 {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Group(index) => out.push_str(captures.get(*index).map_or("", |group| group.as_str())),
            }
        }
        Ok(Some(out))
    }

    fn fault(&self, error: &fancy_regex::Error) -> Fault {
        Fault::Evaluation {
            key: self.key,
            reason: error.to_string(),
            advice: "write the pattern so that it needs less backtracking".into(),
        }
    }
}

fn build(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .backtrack_limit(WholeMatch::BACKTRACK_LIMIT)
        .build()
        .map_err(|error| {
            let message = error.to_string();
            let last = message.lines().last().unwrap_or(&message);
            format!("is no regular expression: {}", last.trim_start_matches("error: "))
        })
}

/// A replacement with references to groups: `$1`, `${name}`, and a backslash before what stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replacement(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Group(usize),
}

impl Replacement {
    /// Reads a replacement for `pattern`; the error says which group there is none of.
    pub(crate) fn new(text: &str, pattern: &WholeMatch) -> Result<Self, String> {
        let groups = pattern.regex.captures_len();
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text.chars().peekable();
        while let Some(letter) = rest.next() {
            let group = match letter {
                '\\' => {
                    let escaped = rest
                        .next()
                        .ok_or("ends with a backslash; write two for one that stays")?;
                    literal.push(escaped);
                    continue;
                }
                '$' if rest.next_if_eq(&'{').is_some() => named(&mut rest, pattern)?,
                '$' => numbered(&mut rest, groups)?,
                other => {
                    literal.push(other);
                    continue;
                }
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Group(group));
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self(pieces))
    }
}

type Letters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn named(rest: &mut Letters<'_>, pattern: &WholeMatch) -> Result<usize, String> {
    let mut name = String::new();
    loop {
        match rest.next() {
            Some('}') => break,
            Some(letter) => name.push(letter),
            None => return Err("has a ${ without its }".into()),
        }
    }
    pattern
        .regex
        .capture_names()
        .position(|known| known == Some(name.as_str()))
        .ok_or_else(|| format!("names the group {name:?}, which the pattern does not have"))
}

/// The group after a `$`: as many digits as there are groups for, as in Java.
fn numbered(rest: &mut Letters<'_>, groups: usize) -> Result<usize, String> {
    let digit = |letter: char| letter.to_digit(10).map(|digit| digit as usize);
    let first = rest.next_if(char::is_ascii_digit).and_then(digit);
    let mut group = first.ok_or("has a $ that names no group; write \\$ for one that stays")?;
    if group >= groups {
        return Err(format!(
            "names the group {group}; the pattern has {}",
            groups.saturating_sub(1)
        ));
    }
    while let Some(next) = rest.peek().copied().and_then(digit) {
        let longer = group * 10 + next;
        if longer >= groups {
            break;
        }
        group = longer;
        rest.next();
    }
    Ok(group)
}

/// What was worked out for the topics met so far: there are few, and records many.
#[derive(Debug)]
pub(crate) struct TopicCache<T>(HashMap<Arc<str>, T>);

impl<T> Default for TopicCache<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone> TopicCache<T> {
    /// More topics than most workers have; beyond it the cache starts anew, so it is bounded.
    const CAPACITY: usize = 4096;

    /// What `work` gives for `topic`, worked out once.
    pub(crate) fn get(
        &mut self,
        topic: &Arc<str>,
        work: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let Some(known) = self.0.get(topic) {
            return Ok(known.clone());
        }
        let made = work()?;
        if self.0.len() >= Self::CAPACITY {
            self.0.clear();
        }
        self.0.insert(topic.clone(), made.clone());
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacements_are_read_as_java_reads_them() {
        let table = [
            (r"(.*)-(\d+)", "$1_$2", "orders-7", Some("orders_7")),
            (r"(.*)-(\d+)", "$0", "orders-7", Some("orders-7")),
            (r"(.*)-(\d+)", "$10", "orders-7", Some("orders0")),
            (r"(?<table>\w+)\..*", "${table}", "a.b", Some("a")),
            (r"(a)|b", "x$1", "b", Some("x")),
            (r"a", r"\$1\\", "a", Some(r"$1\")),
            (r"orders", "x", "orders-7", None),
            (r"a|ab", "x", "ab", Some("x")),
            (r"(?!internal).*", "x", "internal", None),
            (r"(?i)ORDERS", "x", "orders", Some("x")),
            (r"(\w)\1", "$1", "aa", Some("a")),
            ("", "x", "", Some("x")),
        ];
        for (pattern, replacement, text, expected) in table {
            let pattern = WholeMatch::new(pattern, "regex").expect(pattern);
            let replacement = Replacement::new(replacement, &pattern).expect(replacement);
            let replaced = pattern.replace(text, &replacement).expect("bounded");
            assert_eq!(replaced.as_deref(), expected, "{pattern:?}");
        }
    }

    #[test]
    fn what_names_no_group_is_told() {
        let pattern = WholeMatch::new("(a)(?<b>b)", "regex").expect("a pattern");
        for text in ["$3", "$", "$x", "${c}", "${b", r"x\"] {
            assert!(Replacement::new(text, &pattern).is_err(), "{text}");
        }
        for pattern in ["(", "a)(b", "*", "[a"] {
            assert!(WholeMatch::new(pattern, "regex").is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_match_is_bounded() {
        let pattern = WholeMatch::new(r"(a|b|ab)*(?=c)x", "regex").expect("a pattern");
        let error = pattern.matches(&"ab".repeat(2000));
        assert!(
            matches!(error, Err(Fault::Evaluation { key: "regex", .. })),
            "{error:?}"
        );
    }
}
