//! Where the worker's settings come from.

use crate::folder::{Ended, Folder};

const SOURCE: &str = "connector.class = \"file-source\"\nfile = \"in.log\"\ntopic = \"lines\"\n";

#[test]
fn faults_of_the_settings_all_at_once_with_their_places() {
    let folder = Folder::with(&[
        ("a.toml", SOURCE),
        (
            "tidewater.toml",
            "data.dri = \"x\"\nledger.interval.ms = \"often\"\n",
        ),
    ]);
    let mut command = folder.command(&["run", "a.toml", "--log-level", "loud"]);
    command.env("TIDEWATER_BROKER_FSYNC", "perhaps");
    Ended::of(command.output().expect("the program starts"))
        .code(2)
        .complains("tidewater.toml:1: data.dri: is no setting of the worker; did you mean data.dir?")
        .complains("tidewater.toml:2: ledger.interval.ms = \"often\": must be a 64-bit integer")
        .complains("TIDEWATER_BROKER_FSYNC = \"perhaps\": must be true or false");
    folder.write("tidewater.toml", "");
    folder
        .run(&["run", "a.toml", "--log-level", "loud"])
        .code(2)
        .complains("--log-level = \"loud\": must be one of error, warn, info");
}

#[test]
fn a_settings_file_that_is_not_there_is_no_default() {
    let folder = Folder::with(&[("a.toml", SOURCE)]);
    folder
        .run(&["validate", "--config", "nowhere.toml", "a.toml"])
        .code(2)
        .complains("nowhere.toml: cannot be read: No such file");
}

#[test]
fn the_file_sets_the_converter_that_connectors_begin_with() {
    let sink = "connector.class = \"file-sink\"\nfile = \"o\"\ntopics = \"t\"\n\"value.converter.schemas.enable\" = \"no\"\n";
    let folder = Folder::with(&[
        ("a.toml", sink),
        ("tidewater.toml", "value.converter = \"avro\"\n"),
    ]);
    folder.run(&["validate", "a.toml"]).code(2).complains(
        "tidewater.toml:1: value.converter = \"avro\": must be a converter of this version: json, string, bytes,",
    );
}
