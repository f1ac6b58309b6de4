//! Metrics that plugins record as things happen.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// More than a plugin should have; a plugin that makes up names must not fill the memory (invariant 6).
const MAX_METRICS: usize = 256;
const MAX_NAME: usize = 200;

/// A metric of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginMetric {
    /// The plugin's name.
    pub plugin: String,
    /// The metric's name.
    pub name: String,
    /// Whether it only grows.
    pub is_counter: bool,
    /// Its value.
    pub value: f64,
}

/// The metrics of one plugin.
pub(crate) struct Metrics {
    names: Mutex<Vec<(String, bool)>>,
    /// The values' bits, so that recording takes no lock.
    values: Box<[AtomicU64]>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            names: Mutex::default(),
            values: std::iter::repeat_with(AtomicU64::default)
                .take(MAX_METRICS)
                .collect(),
        }
    }
}

impl Metrics {
    /// The id of the metric `name`; `u32::MAX` where there is no room.
    pub(crate) fn register(&self, name: &str, is_counter: bool) -> u32 {
        let mut names = self.names.lock();
        if let Some(known) = names.iter().position(|(known, _)| known == name) {
            return known as u32;
        }
        if names.len() >= MAX_METRICS || name.len() > MAX_NAME {
            return u32::MAX;
        }
        names.push((name.to_owned(), is_counter));
        (names.len() - 1) as u32
    }

    /// Adds to a counter, sets a gauge.
    pub(crate) fn record(&self, id: u32, value: f64) {
        let Some(is_counter) = self
            .names
            .lock()
            .get(id as usize)
            .map(|(_, is_counter)| *is_counter)
        else {
            return;
        };
        let bits = &self.values[id as usize];
        if is_counter {
            let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
            // The closure never declines.
            let _ = bits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        } else {
            bits.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    /// What stands now.
    pub(crate) fn read(&self, plugin: &str) -> Vec<PluginMetric> {
        let names = self.names.lock();
        names
            .iter()
            .zip(&self.values)
            .map(|((name, is_counter), bits)| PluginMetric {
                plugin: plugin.to_owned(),
                name: name.clone(),
                is_counter: *is_counter,
                value: f64::from_bits(bits.load(Ordering::Relaxed)),
            })
            .collect()
    }
}
