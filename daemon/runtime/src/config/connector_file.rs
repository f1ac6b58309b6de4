//! Connector files: which there are, and the name and the keys of each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tidewater_plugin_api::ConfigMap;

use super::document::{Entry, Format, Place};
use super::problem::{Problem, Severity};

/// The worker's own file, which a directory of connector files may hold too.
pub const WORKER_FILE: &str = "tidewater.toml";

/// One connector as its file has it: references unresolved, nothing checked.
#[derive(Clone, Debug)]
pub struct ConnectorFile {
    /// The file, as it was given or found.
    pub path: PathBuf,
    /// The connector's name: the key `name`, else the file's name without extension.
    pub name: String,
    /// The flat keys, `name` among them.
    pub config: ConfigMap,
    /// What was noticed while reading that keeps nothing from running.
    pub notes: Vec<Problem>,
    places: BTreeMap<String, Place>,
}

impl ConnectorFile {
    /// Reads the connector of `path`, its format told by the extension; all faults at once.
    pub fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        let Some(format) = Format::of(path) else {
            let message = format!(
                "is no connector file by its name; {} are read",
                Format::EXTENSIONS
            );
            return Err(vec![Problem::error(message).in_file(path, None)]);
        };
        let bytes = std::fs::read(path)
            .map_err(|error| vec![Problem::error(format!("cannot be read: {error}")).in_file(path, None)])?;
        let entries = format.parse(&bytes).map_err(|faults| -> Vec<Problem> {
            faults
                .into_iter()
                .map(|fault| Problem::from_fault(path, fault))
                .collect()
        })?;
        Self::from_entries(path, entries)
    }

    /// The connector `name` whose keys come from elsewhere: from the stored configurations, or a request. `place` says
    /// where from, instead of a file.
    pub fn from_map(place: &str, name: &str, config: &ConfigMap) -> Self {
        let mut config = config.clone();
        config.insert("name".to_owned(), name.to_owned());
        Self {
            path: place.into(),
            name: name.to_owned(),
            config,
            notes: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    fn from_entries(path: &Path, entries: Vec<Entry>) -> Result<Self, Vec<Problem>> {
        let mut file = Self {
            path: path.to_owned(),
            name: path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            config: ConfigMap::new(),
            notes: Vec::new(),
            places: BTreeMap::new(),
        };
        let mut problems = Vec::new();
        let entries = unwrap_rest_body(path, entries, &mut problems);
        for Entry { key, value, place } in entries {
            file.places.insert(key.clone(), place);
            if let Some(value) = value {
                file.config.insert(key, value);
            } else {
                let message = "has no value and counts as not set; write \"\" for an empty text";
                file.notes.push(
                    Problem::new(Severity::Warning, message)
                        .of(key)
                        .in_file(path, Some(place)),
                );
            }
        }
        if let Some(name) = file.config.get("name") {
            name.trim().clone_into(&mut file.name);
        }
        file.config.insert("name".to_owned(), file.name.clone());
        if file.name.is_empty() || file.name.contains(char::is_control) {
            problems.push(
                file.problem(
                    "name",
                    Severity::Error,
                    "must be text without control characters, and not empty",
                )
                .showing(file.name.clone()),
            );
        }
        if file.name.contains("${") {
            let message = "must be written out: a connector's name is its identity and shows everywhere";
            problems.push(file.problem("name", Severity::Error, message));
        }
        if problems.is_empty() {
            Ok(file)
        } else {
            Err(problems)
        }
    }

    /// Where `key` stands in the file.
    pub fn place(&self, key: &str) -> Option<Place> {
        self.places.get(key).copied()
    }

    /// A problem of `key` in this file.
    pub fn problem(&self, key: &str, severity: Severity, message: impl Into<String>) -> Problem {
        Problem::new(severity, message)
            .of(key)
            .in_file(&self.path, self.place(key))
    }
}

/// `{name, config: {…}}`, the body of Connect's REST API, means what stands in `config`.
fn unwrap_rest_body(path: &Path, entries: Vec<Entry>, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let is_body = entries.iter().any(|entry| entry.key == "config.connector.class")
        && !entries.iter().any(|entry| entry.key == "connector.class");
    if !is_body {
        return entries;
    }
    let outer = entries.iter().find(|entry| entry.key == "name").cloned();
    let mut inner = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Some(key) = entry.key.strip_prefix("config.") {
            let disagrees = outer.as_ref().is_some_and(|outer| outer.value != entry.value);
            match (key, &outer) {
                ("name", Some(outer)) if disagrees => {
                    let outer = outer.value.as_deref().unwrap_or_default();
                    let message =
                        format!("disagrees with the name {outer:?} beside config; make them the same");
                    problems.push(
                        Problem::error(message)
                            .of("config.name")
                            .in_file(path, Some(entry.place)),
                    );
                }
                ("name", Some(_)) => {}
                _ => inner.push(Entry {
                    key: key.to_owned(),
                    ..entry
                }),
            }
        } else if entry.key == "name" {
            inner.push(entry);
        } else if entry.key == "initial_state" {
            if entry.value.as_deref() != Some("RUNNING") {
                let message = "is not available in this version; a connector of a file runs";
                problems.push(
                    Problem::error(message)
                        .of("initial_state")
                        .in_file(path, Some(entry.place)),
                );
            }
        } else if entry.key != "type" {
            // `type` is in what GET /connectors/NAME answers.
            let message = "stands beside config; in this form all keys but name belong into it";
            problems.push(
                Problem::error(message)
                    .of(entry.key)
                    .in_file(path, Some(entry.place)),
            );
        }
    }
    inner
}

/// What the given files and directories hold.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The files that could be read, in the order given; those of a directory by name.
    pub files: Vec<ConnectorFile>,
    /// The files that could not.
    pub broken: BTreeSet<PathBuf>,
    /// What is wrong with them, and what was passed over.
    pub problems: Vec<Problem>,
    /// Given paths that are not there or cannot be listed.
    pub missing: Vec<PathBuf>,
}

impl Found {
    /// Reads all connector files among `paths`: files, and directories without what is below them.
    pub fn among(paths: &[PathBuf]) -> Self {
        let mut found = Self::default();
        let mut seen = BTreeSet::new();
        for path in paths {
            let result = std::fs::metadata(path).and_then(|metadata| {
                if metadata.is_dir() {
                    found.list(path)
                } else {
                    Ok(vec![path.clone()])
                }
            });
            match result {
                Ok(files) => {
                    for file in files {
                        let identity = std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone());
                        if seen.insert(identity) {
                            found.read(&file);
                        }
                    }
                }
                Err(error) => {
                    found.missing.push(path.clone());
                    found
                        .problems
                        .push(Problem::error(format!("cannot be read: {error}")).in_file(path, None));
                }
            }
        }
        found.refuse_doubles();
        found
    }

    fn list(&mut self, directory: &Path) -> std::io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            files.push(entry?.path());
        }
        files.sort();
        let all = files.len();
        files.retain(|path| {
            let worker_file = path.file_name().is_some_and(|name| name == WORKER_FILE);
            let why = if path.is_dir() {
                "is passed over: directories in directories are not read; give it by itself if it is meant"
                    .to_owned()
            } else if worker_file {
                "is passed over: it is the worker's file, which --config takes".to_owned()
            } else if Format::of(path).is_none() {
                format!("is passed over: only {} are read", Format::EXTENSIONS)
            } else {
                return true;
            };
            self.problems
                .push(Problem::new(Severity::Note, why).in_file(path, None));
            false
        });
        if files.is_empty() {
            let message = if all == 0 {
                "is an empty directory"
            } else {
                "holds no connector file"
            };
            self.problems
                .push(Problem::new(Severity::Warning, message).in_file(directory, None));
        }
        Ok(files)
    }

    fn read(&mut self, path: &Path) {
        match ConnectorFile::read(path) {
            Ok(file) => self.files.push(file),
            Err(problems) => {
                self.broken.insert(path.to_owned());
                self.problems.extend(problems);
            }
        }
    }

    /// Two files of one name: neither is taken, since which of the two is meant would be a guess, and a position
    /// kept under that name would be applied to the wrong one.
    fn refuse_doubles(&mut self) {
        let mut by_name: BTreeMap<&str, Vec<&ConnectorFile>> = BTreeMap::new();
        for file in &self.files {
            by_name.entry(&file.name).or_default().push(file);
        }
        for (name, files) in by_name.into_iter().filter(|(_, files)| files.len() > 1) {
            for file in &files {
                let others: Vec<String> = files
                    .iter()
                    .filter(|other| other.path != file.path)
                    .map(|other| other.path.display().to_string())
                    .collect();
                let others = others.join(" and ");
                let message = format!("is also the name of the connector in {others}; give each its own");
                self.problems
                    .push(file.problem("name", Severity::Error, message).showing(name));
                self.broken.insert(file.path.clone());
            }
        }
        self.files.retain(|file| !self.broken.contains(&file.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        dir
    }

    fn read(name: &str, text: &str) -> Result<ConnectorFile, Vec<Problem>> {
        let dir = dir(&[(name, text)]);
        ConnectorFile::read(&dir.path().join(name))
    }

    #[test]
    fn the_name_is_the_key_or_the_file() {
        let file = read("orders.toml", "connector.class = \"x\"\n").expect("valid");
        assert_eq!(
            (file.name.as_str(), file.config["name"].as_str()),
            ("orders", "orders")
        );
        let file = read("orders.toml", "name = \"other\"\nconnector.class = \"x\"\n").expect("valid");
        assert_eq!(
            (file.name.as_str(), file.place("connector.class").map(|p| p.line)),
            ("other", Some(2))
        );
        let problems = read("orders.toml", "name = \"${env:NAME}\"\n").expect_err("a reference");
        assert!(
            problems[0].to_string().contains("must be written out"),
            "{}",
            problems[0]
        );
        assert!(read("x.properties", "name=\nconnector.class=x\n").is_err());
    }

    #[test]
    fn the_body_of_the_rest_api_is_taken_as_it_is() {
        let body = "{\"name\": \"n\",\n\"config\": {\"name\": \"n\",\n\"connector.class\": \"x\",\n\"tasks.max\": 1},\n\
                    \"tasks\": [{\"connector\": \"n\", \"task\": 0}], \"type\": \"source\"}";
        let file = read("file.json", body).expect("valid");
        assert_eq!(file.name, "n");
        assert_eq!(file.config.len(), 3, "{:?}", file.config);
        assert_eq!(file.place("tasks.max").map(|place| place.line), Some(4));
        let body = "{\"name\": \"n\", \"config\": {\"name\": \"m\", \"connector.class\": \"x\"}, \"a\": 1, \
                    \"initial_state\": \"PAUSED\"}";
        let problems = read("file.json", body).expect_err("three faults");
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn a_key_without_a_value_counts_as_not_set() {
        let file = read("x.yaml", "connector.class: x\ndatabase.password:\n").expect("valid");
        assert!(!file.config.contains_key("database.password"));
        assert_eq!(file.notes[0].line, Some(2));
        assert!(file.notes[0].to_string().contains("counts as not set"));
    }

    #[test]
    fn a_directory_is_read_in_order_and_what_is_passed_over_is_said() {
        let dir = dir(&[
            ("b.toml", "connector.class = \"x\""),
            ("a.yaml", "connector.class: x"),
            ("README.md", "no connector"),
            ("tidewater.toml", "data.dir = \"x\""),
            ("c.json", "{"),
        ]);
        std::fs::create_dir(dir.path().join("more")).expect("created");
        let twice = [dir.path().to_owned(), dir.path().join("a.yaml")];
        let found = Found::among(&twice);
        let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(found.broken.len(), 1);
        let notes = found
            .problems
            .iter()
            .filter(|problem| problem.severity == Severity::Note)
            .count();
        assert_eq!(notes, 3, "{:?}", found.problems);
        let error = found
            .problems
            .iter()
            .find(|problem| problem.is_error())
            .expect("c.json is broken");
        assert!(error.to_string().contains("c.json:1:"), "{error}");
    }

    #[test]
    fn two_files_of_one_name_name_each_other() {
        let dir = dir(&[
            ("a.toml", "name = \"n\"\n"),
            ("b.toml", "\nname = \"n\"\n"),
            ("c.toml", "name = \"c\"\n"),
        ]);
        let found = Found::among(&[dir.path().to_owned()]);
        assert_eq!(found.files.len(), 1);
        let texts: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2);
        assert!(
            texts[0].contains("a.toml:1: ") && texts[0].contains("b.toml;"),
            "{}",
            texts[0]
        );
        assert!(
            texts[1].contains("b.toml:2: ") && texts[1].contains("a.toml;"),
            "{}",
            texts[1]
        );
    }

    #[test]
    fn what_is_not_there_and_what_is_no_connector_file() {
        let found = Found::among(&["/nowhere/at/all.toml".into()]);
        assert_eq!(found.missing.len(), 1);
        assert!(
            found.problems[0]
                .to_string()
                .contains("/nowhere/at/all.toml: cannot be read: No such file")
        );
        let problems = read("connector.ini", "").expect_err("no known extension");
        assert!(
            problems[0]
                .to_string()
                .contains(".toml, .yaml, .yml, .json and .properties"),
            "{}",
            problems[0]
        );
    }
}
