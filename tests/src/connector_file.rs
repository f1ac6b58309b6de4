//! Connector files for tests: flat keys, written as JSON, with this machine's servers filled in.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::error::Result;
use crate::postgres::{Postgres, SUPERUSER};
use crate::shop;
use crate::work_dir::WorkDir;

/// A connector's configuration.
#[derive(Debug, Clone)]
pub struct ConnectorFile {
    name: String,
    keys: Map<String, Value>,
}

impl ConnectorFile {
    /// A connector of this name and class.
    pub fn new(name: &str, class: &str) -> Self {
        Self {
            name: name.to_owned(),
            keys: Map::new(),
        }
        .with("name", name)
        .with("connector.class", class)
    }

    /// Captures the shop from `server` under the topic prefix `shop`, JSON with schemas.
    pub fn shop_source(server: &Postgres) -> Self {
        Self::new("shop-source", "postgres-source")
            .with("database.hostname", "127.0.0.1")
            .with("database.port", server.port())
            .with("database.user", SUPERUSER)
            .with("database.password", server.password())
            .with("database.dbname", shop::DATABASE)
            .with("topic.prefix", "shop")
            .with("plugin.name", "pgoutput")
            .with("slot.name", "tidewater_shop")
            .with("publication.name", "tidewater_shop")
            .with("publication.autocreate.mode", "filtered")
            .with("table.include.list", "shop\\..*")
            .with("include.unknown.datatypes", true)
            .with("interval.handling.mode", "string")
            .json()
    }

    /// Mirrors the shop's topics into `server`, exactly once.
    pub fn shop_mirror(server: &Postgres) -> Self {
        Self::new("shop-mirror", "postgres-sink")
            .with("topics.regex", "shop\\.shop\\..*")
            .with(
                "connection.url",
                format!("jdbc:postgresql://127.0.0.1:{}/{}", server.port(), shop::DATABASE),
            )
            .with("connection.username", SUPERUSER)
            .with("connection.password", server.password())
            .with("insert.mode", "upsert")
            .with("pk.mode", "record_key")
            .with("delete.enabled", true)
            .with("auto.create", true)
            .with("table.name.format", "${source.schema}.${source.table}")
            .json()
    }

    /// Writes the shop's topics into a file, one whole record a line.
    pub fn shop_lines(file: &std::path::Path) -> Self {
        Self::new("shop-lines", "file-sink")
            .with("topics.regex", "shop\\.shop\\..*")
            .with("file", file.display().to_string())
            .with("format", "record")
            .json()
    }

    /// JSON with schemas for keys and values: a sink of rows must know a timestamp from a number.
    #[must_use]
    pub fn json(self) -> Self {
        self.converter("json")
    }

    /// This converter, with schemas, for keys and values.
    #[must_use]
    pub fn converter(self, name: &str) -> Self {
        let file = self.with("key.converter", name).with("value.converter", name);
        let keys = ["key.converter.schemas.enable", "value.converter.schemas.enable"];
        match name {
            "json" => keys.into_iter().fold(file, |file, key| file.with(key, true)),
            _ => keys.into_iter().fold(file, Self::without),
        }
    }

    /// Sets a key.
    #[must_use]
    #[allow(
        clippy::needless_pass_by_value,
        reason = "numbers and text alike are given in place"
    )]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.keys.insert(key.to_owned(), Value::String(value.to_string()));
        self
    }

    /// Takes a key out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.keys.remove(key);
        self
    }

    /// Writes it into the folder `connectors` of `work`, over what was there, and answers its path.
    pub fn write(&self, work: &WorkDir) -> Result<PathBuf> {
        let text = Value::Object(self.keys.clone()).to_string();
        work.write(format!("connectors/{}.json", self.name), &text)
    }
}
