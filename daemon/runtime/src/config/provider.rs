//! References to values that stand elsewhere: `${env:VAR}`, `${file:/path:key}` and `${directory:/dir:file}`.
//!
//! They are resolved after a file is parsed and in values only, so a secret can neither change the meaning of the
//! file nor lose the place of an error; what they give counts as secret and never shows (invariant 8).
//! `$${env:VAR}` stands for the text `${env:VAR}` itself, and `${topic}`, without a colon, is none of ours.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use tidewater_plugin_api::ConfigMap;

use super::document;
use super::nearest::suggestion;
use super::problem::Problem;
use super::redactor::Redactor;

const PROVIDERS: [&str; 3] = ["env", "file", "directory"];

/// Where references lead.
pub struct Providers {
    env: Box<Environment>,
}

type Environment = dyn Fn(&str) -> Option<String> + Send + Sync;

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Providers")
    }
}

/// A configuration with its references resolved.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// Key to value. A key whose reference leads nowhere is left out.
    pub values: ConfigMap,
    /// The keys whose references lead nowhere.
    pub unresolved: BTreeSet<String>,
    /// Replaces what was resolved by its reference.
    pub redactor: Redactor,
    /// What leads nowhere, and why; without places in files.
    pub problems: Vec<Problem>,
}

impl Providers {
    /// The environment and the files of this process.
    pub fn system() -> Self {
        Self {
            env: Box::new(|name| std::env::var(name).ok()),
        }
    }

    /// Another environment, and the files of this process.
    pub fn with_env(env: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { env: Box::new(env) }
    }

    /// Resolves all references of `map`.
    pub fn resolve(&self, map: &ConfigMap) -> Resolved {
        let mut resolved = Resolved::default();
        for (key, value) in map {
            let faults = resolved.problems.len();
            let text = self.resolve_value(key, value, &mut resolved);
            if resolved.problems.len() == faults {
                resolved.values.insert(key.clone(), text);
            } else {
                resolved.unresolved.insert(key.clone());
            }
        }
        resolved
    }

    fn resolve_value(&self, key: &str, value: &str, resolved: &mut Resolved) -> String {
        let mut text = String::with_capacity(value.len());
        let mut rest = value;
        while let Some(start) = rest.find("${") {
            let (before, from) = rest.split_at(start);
            let Some((inside, after)) = from[2..]
                .split_once('}')
                .filter(|(inside, _)| inside.contains(':'))
            else {
                text.push_str(before);
                text.push_str("${");
                rest = &from[2..];
                continue;
            };
            let reference = &from[..inside.len() + 3];
            rest = after;
            if let Some(before) = before.strip_suffix('$') {
                text.push_str(before);
                text.push_str(reference);
                continue;
            }
            text.push_str(before);
            match self.look_up(inside) {
                Ok(found) => {
                    resolved.redactor.hide(&found, reference);
                    text.push_str(&found);
                }
                Err(message) => resolved.problems.push(Problem::error(message).of(key)),
            }
        }
        text.push_str(rest);
        text
    }

    fn look_up(&self, inside: &str) -> Result<String, String> {
        let (provider, what) = inside.split_once(':').unwrap_or((inside, ""));
        match provider.trim() {
            "env" => (self.env)(what).ok_or_else(|| {
                format!("names the environment variable {what}, which is not set; set it before starting")
            }),
            "file" => {
                let (path, key) = what
                    .split_once(':')
                    .ok_or("must name a file and a key in it: ${file:/path/to/file.properties:key}")?;
                property(Path::new(path), key)
            }
            "directory" => {
                let (directory, name) = what
                    .split_once(':')
                    .ok_or("must name a directory and a file in it: ${directory:/path/to/directory:file}")?;
                whole_file(Path::new(directory), name)
            }
            other => Err(format!(
                "names the provider {other:?}, which does not exist; there are {}{} (write $${{…}} for the text itself)",
                PROVIDERS.join(", "),
                suggestion(other, PROVIDERS)
            )),
        }
    }
}

fn property(path: &Path, key: &str) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("names the file {}: {error}", path.display()))?;
    let entries = document::Format::Properties.parse(&bytes).map_err(|mut faults| {
        let fault = faults.swap_remove(0);
        let line = fault
            .place
            .map(|place| format!(":{}", place.line))
            .unwrap_or_default();
        format!("names the file {}{line}, which {}", path.display(), fault.message)
    })?;
    let known: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    entries
        .into_iter()
        .find(|entry| entry.key == key)
        .and_then(|entry| entry.value)
        .ok_or_else(|| {
            let near = suggestion(key, known.iter().map(String::as_str));
            format!("names the key {key:?}, which is not in {}{near}", path.display())
        })
}

fn whole_file(directory: &Path, name: &str) -> Result<String, String> {
    let inside = Path::new(name)
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if name.is_empty() || !inside {
        return Err(format!(
            "names {name:?}, which must be a file within {}",
            directory.display()
        ));
    }
    let path = directory.join(name);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("names the file {}: {error}", path.display()))?;
    // Mounted secrets often end in a newline that nobody meant.
    let line = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn providers() -> Providers {
        Providers::with_env(|name| match name {
            "HOST" => Some("db.example".into()),
            "PASSWORD" => Some("top${secret".into()),
            "NESTED" => Some("${env:HOST}".into()),
            _ => None,
        })
    }

    fn resolve(value: &str) -> Result<String, String> {
        let resolved = providers().resolve(&[("key".to_owned(), value.to_owned())].into());
        match resolved.problems.first() {
            None => Ok(resolved.values["key"].clone()),
            Some(problem) => {
                assert!(resolved.unresolved.contains("key"));
                Err(problem.to_string())
            }
        }
    }

    #[test]
    fn several_references_in_one_value() {
        assert_eq!(
            resolve("//${env:HOST}:1/${env:PASSWORD}!").as_deref(),
            Ok("//db.example:1/top${secret!")
        );
    }

    #[test]
    fn what_is_resolved_is_not_resolved_again() {
        assert_eq!(resolve("${env:NESTED}").as_deref(), Ok("${env:HOST}"));
    }

    #[test]
    fn other_braces_and_escaped_references_stay_text() {
        for text in [
            "${topic}",
            "${source.schema}.${source.table}",
            "$",
            "${",
            "a${b",
            "}${",
        ] {
            assert_eq!(resolve(text).as_deref(), Ok(text));
        }
        assert_eq!(
            resolve("$${env:HOST} is ${env:HOST}").as_deref(),
            Ok("${env:HOST} is db.example")
        );
        assert_eq!(
            resolve("${topic}-${env:HOST}").as_deref(),
            Ok("${topic}-db.example")
        );
    }

    #[test]
    fn what_leads_nowhere_names_itself() {
        let error = resolve("x${env:HOST}${env:NOT_SET}").expect_err("not set");
        assert!(error.contains("variable NOT_SET, which is not set"), "{error}");
        assert!(!error.contains("db.example"), "{error}");
        let error = resolve("${envv:HOST}").expect_err("no such provider");
        assert!(
            error.contains("env, file, directory; did you mean env?"),
            "{error}"
        );
        let error = resolve("${file:/nowhere/at.all:key}").expect_err("no such file");
        assert!(error.contains("/nowhere/at.all: No such file"), "{error}");
        assert!(
            resolve("${file:/just/a/path}")
                .expect_err("no key")
                .contains("${file:/path/to/file.properties:key}")
        );
    }

    #[test]
    fn files_and_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secrets.properties");
        std::fs::write(&path, "user=alice\npassword=pa:ss=word\n").expect("written");
        std::fs::write(dir.path().join("token"), "t0ken\r\n").expect("written");
        let (file, folder) = (path.display(), dir.path().display());
        assert_eq!(
            resolve(&format!("${{file:{file}:password}}")).as_deref(),
            Ok("pa:ss=word")
        );
        assert_eq!(
            resolve(&format!("${{directory:{folder}:token}}")).as_deref(),
            Ok("t0ken")
        );
        let error = resolve(&format!("${{file:{file}:pasword}}")).expect_err("no such key");
        assert!(error.contains("did you mean password?"), "{error}");
        let error = resolve(&format!("${{directory:{folder}/x:../token}}")).expect_err("outside");
        assert!(error.contains("must be a file within"), "{error}");
        std::fs::write(&path, "a=1\nb=\\uXXXX\n").expect("written");
        let error = resolve(&format!("${{file:{file}:a}}")).expect_err("no properties");
        assert!(error.contains(&format!("{file}:2")), "{error}");
    }

    #[test]
    fn what_was_resolved_counts_as_secret() {
        let resolved = providers().resolve(&[("url".to_owned(), "x://${env:HOST}/".to_owned())].into());
        assert_eq!(
            resolved.redactor.redact("no route to db.example"),
            "no route to ${env:HOST}"
        );
    }
}
