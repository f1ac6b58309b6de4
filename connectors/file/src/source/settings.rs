//! What can be configured for `file-source`, and what was.

use std::path::PathBuf;
use std::time::Duration;

use tidewater_plugin_api::config_def::{ConfigType, Validator};
use tidewater_plugin_api::{Config, ConfigDef, ConfigProblem, Importance};

/// How the bytes of a line become a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8; a line that is not is a bad line.
    Utf8,
    /// UTF-8; what is not becomes U+FFFD.
    Utf8Lossy,
    /// Each byte is the character of its number.
    Latin1,
    /// No text: the value is bytes.
    Binary,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The value itself.
    Line,
    /// One JSON text.
    Json,
}

/// The checked configuration of a `file-source`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file to follow.
    pub file: PathBuf,
    /// The topic to write.
    pub topic: String,
    /// Lines per batch at most.
    pub batch_size: usize,
    /// Where to begin without a stored position: at the end of what is there, or at its beginning.
    pub start_at_end: bool,
    /// What ends a line; not empty.
    pub delimiter: Vec<u8>,
    /// How bytes become text.
    pub encoding: Encoding,
    /// What a line is.
    pub format: Format,
    /// The longest line taken, in bytes without delimiter.
    pub max_line: usize,
    /// Whether lines that cannot become records are passed over, instead of ending the task.
    pub skip_bad_lines: bool,
    /// How often to look at the file without being told of a change.
    pub rescan: Duration,
}

/// The keys of `file-source`.
pub fn config_def() -> ConfigDef {
    let size = |max| Validator::Range {
        min: Some(1),
        max: Some(max),
    };
    ConfigDef::new()
        .required(
            "file",
            ConfigType::String,
            Importance::High,
            "The file to follow. It need not exist yet; its folder must.",
        )
        .validate(Validator::NonEmpty)
        .required("topic", ConfigType::String, Importance::High, "The topic that the lines go to.")
        .validate(Validator::NonEmpty)
        .optional("batch.size", ConfigType::Int, "2000", Importance::Low, "Lines in a batch, at most.")
        .validate(size(1_000_000))
        .optional(
            "format",
            ConfigType::String,
            "line",
            Importance::Medium,
            "What a line is: \"line\" makes the line itself the value, a string; \"json\" parses it, and the value has no schema.",
        )
        .one_of(&["line", "json"])
        .optional(
            "start.position",
            ConfigType::String,
            "beginning",
            Importance::Medium,
            "Where to begin when no position is stored: \"beginning\" reads what is there already, \"end\" only what comes later.",
        )
        .one_of(&["beginning", "end"])
        .optional(
            "encoding",
            ConfigType::String,
            "utf-8",
            Importance::Medium,
            "How the bytes of a line are read. \"utf-8\" is strict: other bytes make a bad line. \"utf-8-lossy\" puts U+FFFD in their place, \
             \"iso-8859-1\" takes every byte as one character, \"binary\" makes the value bytes instead of a string.",
        )
        .one_of(&["utf-8", "utf-8-lossy", "iso-8859-1", "binary"])
        .optional(
            "delimiter",
            ConfigType::String,
            "\\n",
            Importance::Low,
            "What ends a line. \\n, \\r, \\t, \\0, \\\\ and \\xHH are understood. With \\n a \\r before it is dropped too.",
        )
        .validate(Validator::NonEmpty)
        .optional(
            "max.line.bytes",
            ConfigType::Int,
            "1048576",
            Importance::Low,
            "The longest line taken, in bytes; a longer one is a bad line.",
        )
        .validate(size(256 << 20))
        .optional(
            "on.bad.line",
            ConfigType::String,
            "fail",
            Importance::Medium,
            "What to do with a line that cannot become a record: too long, not of the encoding, or not JSON. \"fail\" stops the task before it, \
             \"skip\" passes over it, logs where it is and counts it in the metric bad_lines.",
        )
        .one_of(&["fail", "skip"])
        .optional(
            "rescan.interval.ms",
            ConfigType::Long,
            "5000",
            Importance::Low,
            "How often to look at the file unasked, in milliseconds. Changes are noticed at once where the file system reports them; network \
             file systems do not.",
        )
        .validate(Validator::Range {
            min: Some(10),
            max: Some(3_600_000),
        })
}

impl Settings {
    /// Reads `config`, which has passed [`config_def`].
    pub fn read(config: &Config) -> Result<Self, ConfigProblem> {
        let is = |key: &str, value: &str| config.str(key).eq_ignore_ascii_case(value);
        let delimiter = unescape(config.str("delimiter")).ok_or_else(|| ConfigProblem {
            key: "delimiter".into(),
            value: config.get("delimiter").map(str::to_owned),
            message: "holds a \\ that begins none of \\n, \\r, \\t, \\0, \\\\ and \\xHH".into(),
        })?;
        let encoding = match () {
            () if is("encoding", "utf-8-lossy") => Encoding::Utf8Lossy,
            () if is("encoding", "iso-8859-1") => Encoding::Latin1,
            () if is("encoding", "binary") => Encoding::Binary,
            () => Encoding::Utf8,
        };
        Ok(Self {
            file: PathBuf::from(config.str("file")),
            topic: config.str("topic").to_owned(),
            batch_size: config.usize("batch.size"),
            start_at_end: is("start.position", "end"),
            delimiter,
            encoding,
            format: if is("format", "json") {
                Format::Json
            } else {
                Format::Line
            },
            max_line: config.usize("max.line.bytes"),
            skip_bad_lines: is("on.bad.line", "skip"),
            rescan: config.millis("rescan.interval.ms"),
        })
    }
}

impl Settings {
    /// Whether zero bytes at the beginning of a file can only be a hole, left by a writer that does not append.
    pub fn zeros_are_holes(&self) -> bool {
        self.encoding != Encoding::Binary && !self.delimiter.contains(&0)
    }
}

/// The bytes that `text` spells; none where an escape is unknown.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            (_, true) => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'0' => 0,
                b'\\' => b'\\',
                b'x' => {
                    let digit = |byte: u8| char::from(byte).to_digit(16);
                    (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
                }
                _ => return None,
            },
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, ConfigProblem> {
        let map = [("file", "/var/log/a"), ("topic", "t")].iter().chain(pairs);
        let map = map
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Settings::read(&Config::new(config_def(), map).expect("a valid configuration"))
    }

    #[test]
    fn defaults_and_escapes() {
        let plain = settings(&[]).unwrap();
        assert_eq!((plain.batch_size, plain.delimiter), (2000, b"\n".to_vec()));
        assert_eq!(settings(&[("delimiter", "\\r\\n")]).unwrap().delimiter, b"\r\n");
        assert_eq!(
            settings(&[("delimiter", "|\\x1e\\0")]).unwrap().delimiter,
            b"|\x1e\0"
        );
        let problem = settings(&[("delimiter", "\\q")]).unwrap_err();
        assert!(problem.to_string().contains("delimiter"), "{problem}");
    }

    #[test]
    fn every_fault_at_once() {
        let map = [("batch.size", "0"), ("encoding", "utf-9"), ("topic", "t")];
        let map = map
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let problems = Config::new(config_def(), map).unwrap_err();
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["file", "batch.size", "encoding"]);
        assert!(
            problems[2].to_string().contains("did you mean"),
            "{}",
            problems[2]
        );
    }
}
