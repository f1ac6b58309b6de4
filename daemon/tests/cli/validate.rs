//! `tidewater validate`.

use crate::folder::Folder;

const SOURCE: &str = "connector.class = \"file-source\"\nfile = \"in.log\"\ntopic = \"lines\"\n";
const SINK: &str =
    "{\"connector.class\": \"FileStreamSink\", \"file\": \"out.jsonl\", \"topics\": \"lines\"}";

#[test]
fn valid_files_of_every_format() {
    let folder = Folder::with(&[
        ("c/a.toml", SOURCE),
        ("c/b.json", SINK),
        (
            "c/c.yaml",
            "name: lines-too\nconnector.class: file-sink\nfile: out.jsonl\ntopics.regex: li.*\n",
        ),
        ("c/d.properties", "connector.class=file-source\nfile=x\ntopic=y\n"),
    ]);
    let ended = folder.run(&["validate", "c"]).code(0).prints("lines-too");
    assert_eq!(
        ended.stdout.lines().filter(|line| line.contains(" ok ")).count(),
        4,
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stderr, "");
    // Nothing is left behind.
    assert!(!folder.path("tidewater-data").exists());
}

#[test]
fn every_fault_of_every_file_at_once() {
    let folder = Folder::with(&[
        (
            "c/a.toml",
            "connector.class = \"file-source\"\nfiel = \"in.log\"\ntopic = \"lines\"\ntasks.max = \"many\"\n",
        ),
        ("c/b.json", "{\n  \"connector.class\": \"file-snik\"\n}"),
        ("c/c.yaml", "a: [1, 2\n"),
        ("c/d.toml", SOURCE),
        ("c/notes.md", ""),
    ]);
    folder
        .run(&["validate", "c"])
        .code(2)
        .prints("error: c/a.toml:2: fiel: is no key of file-source; did you mean file?")
        .prints("error: c/a.toml:4: tasks.max = \"many\": must be a 32-bit integer")
        .prints("c/a.toml: file: is missing")
        .prints("error: c/b.json:2: connector.class = \"file-snik\": is no class of the loaded plugins; did you mean file-sink?")
        .prints("error: c/c.yaml:")
        .prints("note: c/notes.md: is passed over")
        .complains("5 errors in 3 files");
}

#[test]
fn json_for_programs() {
    let folder = Folder::with(&[(
        "a.toml",
        "connector.class = \"file-source\"\ntopic = \"t\"\nfile = \"x\"\ntopics = \"y\"\n",
    )]);
    let json = folder.run(&["validate", "--json", "a.toml"]).code(2).json();
    assert_eq!(
        (&json["errors"], &json["files"][0]["valid"]),
        (&1.into(), &false.into())
    );
    let problem = &json["files"][0]["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["key"], &problem["severity"]),
        (&4.into(), &"topics".into(), &"error".into())
    );
}

#[test]
fn references_are_resolved_but_never_shown() {
    let text = "connector.class = \"file-source\"\nfile = \"${env:IN}\"\ntopic = \"t\"\nbatch.size = \"${env:SIZE}\"\n";
    let folder = Folder::with(&[("a.toml", text)]);
    let ended = folder.run(&["validate", "a.toml"]).code(2);
    assert!(
        ended
            .stdout
            .contains("a.toml:2: file: names the environment variable IN, which is not set")
    );
    let mut command = folder.command(&["validate", "a.toml"]);
    command.env("IN", "/secret/place").env("SIZE", "s3cret");
    let ended = crate::folder::Ended::of(command.output().expect("the program starts")).code(2);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(
        said.contains("batch.size = \"${env:SIZE}\": must be a 32-bit integer"),
        "{said}"
    );
    assert!(
        !said.contains("s3cret") && !said.contains("/secret/place"),
        "{said}"
    );
}

#[test]
fn what_is_not_in_this_version_is_refused_and_not_ignored() {
    let text = format!("{SOURCE}\"offsets.storage.topic\" = \"mine\"\n");
    let folder = Folder::with(&[("a.toml", &text)]);
    folder
        .run(&["validate", "a.toml"])
        .code(2)
        .prints("a.toml:4: offsets.storage.topic: is not available in this version");
}

#[test]
fn every_fault_of_a_transform_is_told_with_its_whole_key() {
    let text = format!("{SOURCE}transforms = \"route\"\n\"transforms.route.type\" = \"RegexRuoter\"\n");
    let folder = Folder::with(&[("a.toml", &text)]);
    folder
        .run(&["validate", "a.toml"])
        .code(2)
        .prints("a.toml:5: transforms.route.type = \"RegexRuoter\"")
        .prints("did you mean RegexRouter?");
    let text = format!("{SOURCE}transforms = \"route\"\n\"transforms.route.type\" = \"RegexRouter\"\n");
    folder.write("a.toml", &text);
    folder
        .run(&["validate", "a.toml"])
        .code(2)
        .prints("transforms.route.regex: is missing")
        .prints("transforms.route.replacement: is missing");
}

#[test]
fn a_toml_key_that_continues_another_is_explained() {
    let text = format!("{SOURCE}value.converter = \"json\"\nvalue.converter.schemas.enable = false\n");
    let folder = Folder::with(&[("a.toml", &text)]);
    folder
        .run(&["validate", "a.toml"])
        .code(2)
        .prints("a.toml:5:")
        .prints("must be in quotes");
}

#[test]
fn connect_asks_the_class() {
    let folder = Folder::with(&[("a.toml", SOURCE), ("b.json", SINK)]);
    let bad = "connector.class = \"file-sink\"\nfile = \"/no/such/folder/out.jsonl\"\ntopics = \"t\"\n";
    folder.write("bad.toml", bad);
    folder.run(&["validate", "bad.toml"]).code(0);
    folder
        .run(&["validate", "--connect", "bad.toml"])
        .code(2)
        .prints("/no/such/folder");
    folder.run(&["validate", "--connect", "a.toml", "b.json"]).code(0);
}

#[test]
fn nothing_to_check_is_a_mistake() {
    let folder = Folder::with(&[]);
    std::fs::create_dir(folder.path("empty")).expect("made");
    folder
        .run(&["validate", "nowhere.toml"])
        .code(2)
        .prints("nowhere.toml: cannot be read: No such file");
    folder
        .run(&["validate", "empty"])
        .code(2)
        .prints("empty: is an empty directory");
    folder.run(&["validate"]).code(2).complains("Usage");
}
