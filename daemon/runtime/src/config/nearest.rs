//! The name that was probably meant.

/// A known name near an unknown one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nearest<'a> {
    /// The known name.
    pub name: &'a str,
    /// So near that the unknown name is almost certainly this one, mistyped.
    pub typo: bool,
}

/// The known name nearest to `given`, if any is near.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<Nearest<'a>> {
    let given = normal(given);
    let (distance, name) = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &normal(name)), name))
        .min_by_key(|(distance, _)| *distance)?;
    let length = given.chars().count();
    let near = match length {
        0..=3 => 0,
        4..=7 => 1,
        8..=15 => 2,
        _ => 3,
    };
    if distance <= near {
        return Some(Nearest { name, typo: true });
    }
    (strsim::jaro_winkler(&given, &normal(name)) > 0.88).then_some(Nearest { name, typo: false })
}

/// `; did you mean …?`, or nothing.
pub fn suggestion<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known)
        .map(|near| format!("; did you mean {}?", near.name))
        .unwrap_or_default()
}

/// `tasks_max`, `tasks-max` and `Tasks.Max` are one name to a person.
fn normal(name: &str) -> String {
    name.to_lowercase().replace(['_', '-'], ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["slot.name", "tasks.max", "table.include.list", "file"];

    #[test]
    fn finds_what_was_mistyped() {
        for (given, meant) in [
            ("slot.nmae", "slot.name"),
            ("slotname", "slot.name"),
            ("tasks_max", "tasks.max"),
            ("Tasks.Max", "tasks.max"),
            ("table.inclued.list", "table.include.list"),
            ("fil", ""),
            ("files", "file"),
        ] {
            let found = nearest(given, KNOWN)
                .filter(|near| near.typo)
                .map_or("", |near| near.name);
            assert_eq!(found, meant, "{given}");
        }
    }

    #[test]
    fn leaves_alone_what_is_another_name() {
        assert_eq!(nearest("snapshot.fetch.size", KNOWN), None);
        assert_eq!(nearest("anything", []), None);
        let near = nearest("slot.name.suffix", KNOWN).expect("begins alike");
        assert!(!near.typo);
    }
}
