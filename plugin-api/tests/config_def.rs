//! Configurations: every fault at once, in words that help; secrets never show (invariant 8).

use proptest::prelude::*;
use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{Config, ConfigDef, ConfigMap, Importance, Secret, Validator};

fn def() -> ConfigDef {
    ConfigDef::new()
        .required("host", ConfigType::String, Importance::High, "The server.")
        .validate(Validator::NonEmpty)
        .alias("database.host")
        .optional("port", ConfigType::Int, "5432", Importance::High, "Its port.")
        .validate(Validator::Range {
            min: Some(1),
            max: Some(65_535),
        })
        .optional(
            "mode",
            ConfigType::String,
            "initial",
            Importance::Medium,
            "How to begin.",
        )
        .one_of(&["initial", "never"])
        .optional(
            "wait.ms",
            ConfigType::Long,
            "250",
            Importance::Low,
            "How long to wait.",
        )
        .optional(
            "retry",
            ConfigType::Boolean,
            "TRUE",
            Importance::Low,
            "Whether to try again.",
        )
        .nullable(
            "password",
            ConfigType::Password,
            Importance::High,
            "The password.",
        )
        .nullable("tables", ConfigType::List, Importance::High, "Which tables.")
        .nullable("slot", ConfigType::String, Importance::Low, "The slot.")
        .validate(Validator::SlotName)
        .prefix("producer.")
}

fn map(entries: &[(&str, &str)]) -> ConfigMap {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn every_fault_is_told_at_once() {
    let wrong = map(&[
        ("host", "  "),
        ("port", "70000"),
        ("mode", "initail"),
        ("retry", "yes"),
        ("slot", "My-Slot"),
    ]);
    let problems: Vec<_> = def().check(&wrong).iter().map(ToString::to_string).collect();
    let expected = [
        ["host", "must not be empty"],
        ["port", "must be between 1 and 65535"],
        ["mode", "did you mean \"initial\"?"],
        ["retry", "must be true or false"],
        ["slot", "a-z, 0-9 and _"],
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:?}");
    for (problem, parts) in problems.iter().zip(expected) {
        assert!(
            parts.iter().all(|part| problem.contains(part)),
            "{problem:?} should say {parts:?}"
        );
    }
    let missing = def().check(&ConfigMap::new());
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0]
            .to_string()
            .contains("host: is missing; a string is required: The server.")
    );
}

#[test]
fn values_are_read_by_their_type_with_defaults_and_aliases() {
    let given = map(&[
        ("database.host", " db "),
        ("password", " s3cret "),
        ("tables", "a, b,,c "),
        ("producer.x", "1"),
    ]);
    let config = Config::new(def(), given.clone()).expect("it is right");
    assert_eq!(
        (config.str("host"), config.i64("port"), config.usize("port")),
        ("db", 5432, 5432)
    );
    assert_eq!(config.millis("wait.ms"), std::time::Duration::from_millis(250));
    assert!(config.bool("retry"), "whatever the case");
    assert_eq!(config.list("tables"), ["a", "b", "c"]);
    assert_eq!(
        config.secret("password").expect("it is given").reveal(),
        " s3cret ",
        "white space may be meant"
    );
    assert_eq!(
        (config.get("slot"), config.str("slot"), config.list("slot").len()),
        (None, "", 0)
    );
    assert_eq!(
        (config.get("producer.x"), config.get("nothing")),
        (Some("1"), None)
    );
    assert_eq!(config.map(), &given);
}

#[test]
fn no_secret_shows() {
    let secret = "s3cret";
    let def = def()
        .optional("pin", ConfigType::Password, "", Importance::Low, "")
        .validate(Validator::NonEmpty);
    let config = Config::new(
        def.clone(),
        map(&[
            ("host", "db"),
            ("password", secret),
            ("pin", secret),
            ("unknown", secret),
        ]),
    );
    let config = config.expect("it is right");
    let shown = format!(
        "{config:?} {:?} {}",
        config.secret("password"),
        Secret::new(secret)
    );
    assert!(!shown.contains(secret), "{shown}");
    let problems = def.check(&map(&[("host", "db"), ("pin", " ")]));
    assert_eq!(problems[0].value.as_deref(), Some("[hidden]"));
}

proptest! {
    #[test]
    fn nothing_panics(values in prop::collection::vec(".{0,30}", 9)) {
        let keys = ["host", "port", "mode", "wait.ms", "retry", "password", "tables", "slot", "other"];
        let given: ConfigMap = keys.iter().map(|key| (*key).to_owned()).zip(values).collect();
        match Config::new(def(), given) {
            Ok(config) => for key in keys {
                let _ = (config.str(key), config.i64(key), config.usize(key), config.bool(key), config.millis(key), config.list(key));
            },
            Err(problems) => prop_assert!(problems.iter().all(|problem| !problem.message.is_empty())),
        }
    }

    #[test]
    fn definitions_roundtrip_through_json(name in ".{0,9}", doc in ".{0,20}", min in prop::option::of(any::<i64>())) {
        let def = def()
            .optional(&name, ConfigType::Long, "1", Importance::Low, &doc)
            .validate(Validator::Range { min, max: None })
            .group("Group");
        let json = serde_json::to_vec(&def).expect("it can be written");
        prop_assert_eq!(serde_json::from_slice::<ConfigDef>(&json).expect("it can be read"), def);
    }
}
