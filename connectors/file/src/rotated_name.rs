//! What a name tells about rotation: `app.log.1`, `app.log-20240101` or `app-2024-01-01.log` once were `app.log`.
//! Compressed files are none of these: they cannot be read on.

use std::cmp::Ordering;

/// Where in the name the numbers stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A small number after the name, which grows or shrinks with age: `app.log.1`.
    Index,
    /// A time after the name: `app.log-20240101`.
    Stamp,
    /// Numbers between stem and extension: `app-2024-01-01.log`.
    Between,
}

/// The name of a file that was rotated away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotatedName {
    /// Where the numbers stand.
    pub style: Style,
    /// The numbers in order.
    pub numbers: Vec<u64>,
}

impl RotatedName {
    /// What `name` tells, as a rotated form of `base`; none where it is none.
    pub fn parse(base: &[u8], name: &[u8]) -> Option<Self> {
        if let Some(suffix) = name.strip_prefix(base) {
            let numbers = numbers(suffix)?;
            let index = numbers.len() == 1 && suffix.len() <= 6;
            let style = if index { Style::Index } else { Style::Stamp };
            return Some(Self { style, numbers });
        }
        let dot = base.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0)?;
        let (stem, extension) = base.split_at(dot);
        let between = name.strip_prefix(stem)?.strip_suffix(extension)?;
        Some(Self {
            style: Style::Between,
            numbers: numbers(between)?,
        })
    }

    /// Which was rotated away first, this or `other`, of the same style; `index_grows` where higher indices are newer.
    pub fn compare(&self, other: &Self, index_grows: bool) -> Ordering {
        let order = self.numbers.cmp(&other.numbers);
        if self.style == Style::Index && !index_grows {
            order.reverse()
        } else {
            order
        }
    }
}

/// The numbers in a part of a name that consists of them and separators alone.
fn numbers(part: &[u8]) -> Option<Vec<u64>> {
    let separator = |byte: u8| b".-_:T".contains(&byte);
    if !part.first().is_some_and(|&byte| b".-_".contains(&byte)) {
        return None;
    }
    let numbers: Option<Vec<u64>> = part
        .split(|&byte| separator(byte))
        .filter(|digits| !digits.is_empty())
        .map(number)
        .collect();
    numbers.filter(|numbers| !numbers.is_empty())
}

fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Option<(Style, Vec<u64>)> {
        let rotated = RotatedName::parse(b"app.log", name.as_bytes())?;
        Some((rotated.style, rotated.numbers))
    }

    #[test]
    fn names() {
        assert_eq!(parse("app.log.1"), Some((Style::Index, vec![1])));
        assert_eq!(parse("app.log-20240131"), Some((Style::Stamp, vec![20_240_131])));
        assert_eq!(
            parse("app.log.2024-01-31T10:00"),
            Some((Style::Stamp, vec![2024, 1, 31, 10, 0]))
        );
        assert_eq!(
            parse("app-2024-01-31.log"),
            Some((Style::Between, vec![2024, 1, 31]))
        );
        for other in [
            "app.log",
            "app.log.1.gz",
            "app.log.bak",
            "app.log1",
            "application.log",
            "app.log.",
            "app.log.+1",
            "b.log.1",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn order() {
        let name = |text: &str| RotatedName::parse(b"app.log", text.as_bytes()).unwrap();
        assert_eq!(
            name("app.log.2").compare(&name("app.log.10"), false),
            Ordering::Greater
        );
        assert_eq!(
            name("app.log.2").compare(&name("app.log.10"), true),
            Ordering::Less
        );
        assert_eq!(
            name("app.log-20240101").compare(&name("app.log-20240102"), false),
            Ordering::Less
        );
    }
}
