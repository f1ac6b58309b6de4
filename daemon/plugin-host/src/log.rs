//! Events of plugins, in the daemon's log: under the module of the plugin they come from, so that filters such as
//! `info,tidewater_connector_postgres=debug` work, and with their fields as fields.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, OnceLock};

use parking_lot::Mutex;
use serde_json::{Map, Value as Json};
use tracing::callsite::{Callsite, Identifier};
use tracing::field::{FieldSet, Value};
use tracing::metadata::{Kind, LevelFilter};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, dispatcher};

/// An event as a plugin sent it.
pub(crate) struct PluginEvent<'a> {
    pub(crate) plugin: &'a str,
    pub(crate) level: u32,
    pub(crate) target: &'a str,
    pub(crate) message: &'a str,
    /// A JSON object, or nothing.
    pub(crate) fields: &'a [u8],
    pub(crate) connector: &'a str,
    pub(crate) task: Option<u32>,
}

/// The fields that every event of a plugin has.
const OWN_FIELDS: [&str; 4] = ["message", "plugin", "connector", "task"];
/// Further fields that stand as fields; more are written into the message.
const MORE_FIELDS: usize = 12;
/// Places in plugins whose shape is remembered. `tracing` wants them to live for ever, so there is a bound.
const MAX_PLACES: usize = 2048;

/// The most verbose level that the daemon's log takes now, as the ABI counts.
pub(crate) fn max_level() -> u32 {
    match LevelFilter::current().into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}

/// Writes an event to the log.
pub(crate) fn write(event: &PluginEvent<'_>) {
    let level = match event.level {
        0 | 1 => Level::ERROR,
        2 => Level::WARN,
        3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    };
    if level > LevelFilter::current() {
        return;
    }
    let fields: Map<String, Json> = serde_json::from_slice(event.fields).unwrap_or_default();
    let mut message = event.message.to_owned();
    let mut more: Vec<String> = fields.keys().take(MORE_FIELDS).cloned().collect();
    let Some(place) = Place::of(level, event.target, &mut more) else {
        return;
    };
    let metadata = place.metadata();
    // What has no field of its own is told all the same.
    for (name, value) in fields.iter().filter(|(name, _)| !more.contains(name)) {
        // Writing to a string does not fail.
        let _ = write!(message, " {name}={value}");
    }

    dispatcher::get_default(|dispatch| {
        if !dispatch.enabled(metadata) {
            return;
        }
        let set = metadata.fields();
        let named = set.iter().collect::<Vec<_>>();
        let Some(first) = named.first() else {
            return;
        };
        let connector = (!event.connector.is_empty()).then_some(event.connector);
        let task = event.task.map(u64::from);
        let others: Vec<_> = more.iter().map(|name| fields.get(name).map(loggable)).collect();
        // In the order of OWN_FIELDS, then as the place has them. What is left over stays empty.
        let own: [Option<&dyn Value>; OWN_FIELDS.len()] = [
            Some(&message),
            Some(&event.plugin),
            connector.as_ref().map(|value| value as &dyn Value),
            task.as_ref().map(|value| value as &dyn Value),
        ];
        let mut values = [(first, None); OWN_FIELDS.len() + MORE_FIELDS];
        let all = own.into_iter().chain(others.iter().map(Option::as_deref));
        for ((slot, field), value) in values.iter_mut().zip(&named).zip(all) {
            *slot = (field, value);
        }
        dispatch.event(&Event::new(metadata, &set.value_set(&values)));
    });
}

fn loggable(value: &Json) -> Box<dyn Value> {
    match value {
        Json::Bool(value) => Box::new(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Box::new(value),
            (None, Some(value)) => Box::new(value),
            (None, None) => Box::new(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Box::new(text.clone()),
        other => Box::new(other.to_string()),
    }
}

/// Where in a plugin events come from, as `tracing` wants it: for ever.
struct Place(OnceLock<Metadata<'static>>);

type PlaceKey = (Level, String, Vec<String>);

impl Place {
    /// The place with these fields. Where there is no room for one more, the one without `fields`, which are then emptied;
    /// none where there is no room even for that.
    fn of(level: Level, target: &str, fields: &mut Vec<String>) -> Option<&'static Self> {
        static PLACES: LazyLock<Mutex<HashMap<PlaceKey, &'static Place>>> = LazyLock::new(Mutex::default);
        let mut places = PLACES.lock();
        let mut key = (level, target.to_owned(), fields.clone());
        if let Some(place) = places.get(&key) {
            return Some(place);
        }
        if places.len() >= MAX_PLACES {
            fields.clear();
            key = (level, "tidewater::plugin".to_owned(), Vec::new());
            if let Some(place) = places.get(&key) {
                return Some(place);
            }
            if places.len() >= MAX_PLACES + 5 {
                return None;
            }
        }
        let place = Self::leak(level, &key.1, &key.2);
        places.insert(key, place);
        Some(place)
    }

    fn leak(level: Level, target: &str, fields: &[String]) -> &'static Self {
        let names: Vec<&'static str> = OWN_FIELDS
            .into_iter()
            .chain(fields.iter().map(|name| -> &'static str {
                // One that has the name of ours is told apart.
                let name = if OWN_FIELDS.contains(&name.as_str()) {
                    format!("plugin.{name}")
                } else {
                    name.clone()
                };
                Box::leak(name.into_boxed_str())
            }))
            .collect();
        let target: &'static str = Box::leak(target.to_owned().into_boxed_str());
        let place: &'static Self = Box::leak(Box::new(Self(OnceLock::new())));
        let fields = FieldSet::new(Box::leak(names.into_boxed_slice()), Identifier(place));
        place.0.get_or_init(|| {
            Metadata::new(
                "plugin event",
                target,
                level,
                None,
                None,
                None,
                fields,
                Kind::EVENT,
            )
        });
        place
    }
}

impl Callsite for Place {
    // It is asked for each event anew: the daemon's filters may change.
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        static UNSET: LazyLock<Metadata<'static>> = LazyLock::new(|| {
            static NONE: Place = Place(OnceLock::new());
            Metadata::new(
                "plugin event",
                "tidewater::plugin",
                Level::ERROR,
                None,
                None,
                None,
                FieldSet::new(&[], Identifier(&NONE)),
                Kind::EVENT,
            )
        });
        self.0.get().unwrap_or_else(|| &UNSET)
    }
}
