//! Keeps secrets out of text that others wrote: a plugin's message, a server's error (invariant 8).

use std::fmt;

/// Replaces the secrets of one configuration wherever they stand in a text.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Secret and what is shown for it; the longest first, so that a secret within another one cannot break it up.
    secrets: Vec<(String, String)>,
}

/// Shorter secrets are replaced only as whole words: `1` must not garble every number in a message.
const WORD: usize = 8;

impl Redactor {
    /// Shows `shown` wherever `secret` stands.
    pub fn hide(&mut self, secret: &str, shown: &str) {
        if !secret.is_empty() && !self.secrets.iter().any(|(known, _)| known == secret) {
            self.secrets.push((secret.to_owned(), shown.to_owned()));
            self.secrets
                .sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        }
    }

    /// `text` without the secrets.
    pub fn redact(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut rest = text;
        'text: while let Some(first) = rest.chars().next() {
            for (secret, shown) in &self.secrets {
                if let Some(after) = rest.strip_prefix(secret.as_str())
                    && (secret.len() >= WORD
                        || is_word(clean.chars().next_back(), secret, after.chars().next()))
                {
                    clean.push_str(shown);
                    rest = after;
                    continue 'text;
                }
            }
            clean.push(first);
            rest = &rest[first.len_utf8()..];
        }
        clean
    }
}

fn is_word(before: Option<char>, secret: &str, after: Option<char>) -> bool {
    let joins = |outside: Option<char>, inside: Option<char>| {
        outside.is_some_and(char::is_alphanumeric) && inside.is_some_and(char::is_alphanumeric)
    };
    !joins(before, secret.chars().next()) && !joins(after, secret.chars().next_back())
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_secrets_wherever_they_stand() {
        let mut redactor = Redactor::default();
        redactor.hide("s3cret", "[hidden]");
        redactor.hide("5432", "${env:PORT}");
        redactor.hide("s3cret-and-longer", "${file:/f:k}");
        redactor.hide("", "never");
        let text = "postgres://u:s3cret@db:5432/x, then s3cret-and-longer; 15432 and 'héllo'";
        assert_eq!(
            redactor.redact(text),
            "postgres://u:[hidden]@db:${env:PORT}/x, then ${file:/f:k}; 15432 and 'héllo'"
        );
        assert_eq!(redactor.redact("xs3cret-and-longerx"), "x${file:/f:k}x");
        assert!(!format!("{redactor:?}").contains("s3cret"));
    }
}
