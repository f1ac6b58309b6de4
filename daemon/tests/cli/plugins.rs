//! `tidewater plugins`.

use crate::folder::{Folder, plugin};

#[test]
fn the_classes_of_the_installed_plugins() {
    let folder = Folder::with(&[]);
    let ended = folder.run(&["plugins"]).code(0);
    for class in ["file-source", "file-sink"] {
        let row = ended
            .stdout
            .lines()
            .find(|line| line.starts_with(class))
            .expect("a row of its own");
        assert!(row.contains("libtidewater_connector_file.so"), "{row}");
    }
    assert!(
        !ended.stdout.contains('\u{1b}'),
        "no colour where no terminal is: {}",
        ended.stdout
    );

    let json = folder.run(&["plugins", "--json"]).code(0).json();
    let classes: Vec<_> = json["classes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|class| &class["class"])
        .collect();
    assert_eq!(classes, ["file-sink", "file-source"]);
    assert_eq!(json["classes"][1]["kind"], "source");
}

#[test]
fn the_keys_of_a_class_by_its_name_or_an_alias() {
    let folder = Folder::with(&[]);
    let by_name = folder
        .run(&["plugins", "file-source"])
        .code(0)
        .prints("topic")
        .prints("(required)")
        .prints("tasks.max");
    let by_alias = folder.run(&["plugins", "FileStreamSource"]).code(0);
    assert_eq!(by_name.stdout, by_alias.stdout);
    let json = folder.run(&["plugins", "file-source", "--json"]).code(0).json();
    let file = json["keys"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|key| key["name"] == "file")
        .expect("there");
    assert_eq!(
        (&file["required"], &file["type"]),
        (&true.into(), &"STRING".into())
    );
    assert!(
        json["common_keys"]
            .as_array()
            .is_some_and(|keys| !keys.is_empty())
    );
}

#[test]
fn a_class_that_is_not_there_names_the_nearest() {
    Folder::with(&[])
        .run(&["plugins", "file-snik"])
        .code(2)
        .complains("did you mean file-sink?");
}

#[test]
fn a_file_that_is_no_plugin_is_refused_with_its_reason() {
    let folder = Folder::with(&[("libnot.so", "#!/bin/sh\necho no\n")]);
    let not = folder.path("libnot.so");
    let paths = ["--plugin-path", not.to_str().expect("UTF-8"), "--plugin-path"];
    let args: Vec<&str> = ["plugins"]
        .into_iter()
        .chain(paths)
        .chain([plugin().to_str().expect("UTF-8").to_owned().leak() as &str])
        .collect();
    let ended = folder.run(&args).code(0).prints("REFUSED").prints("file-sink");
    let row = ended
        .stdout
        .lines()
        .find(|line| line.contains("libnot.so"))
        .expect("a row of its own");
    assert!(row.len() > not.to_string_lossy().len() + 10, "a reason: {row}");
}

#[test]
fn without_any_plugin_the_environment_lacks_something() {
    let folder = Folder::with(&[]);
    std::fs::create_dir(folder.path("empty")).expect("made");
    folder
        .run(&["plugins", "--plugin-path", "empty"])
        .code(3)
        .complains("no plugin could be loaded from empty");
}
