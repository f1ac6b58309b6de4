//! The name that was probably meant.

/// `; did you mean …?` with the known name nearest to `given`, or nothing where none is near.
pub(crate) fn suggestion<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let normal = |name: &str| name.to_lowercase().replace(['_', '-'], ".");
    let given = normal(given);
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&given, &normal(name)), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| format!("; did you mean {name}?"))
        .unwrap_or_default()
}
