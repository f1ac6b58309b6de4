//! What is loaded, what is refused, and what the refusal says.

mod support;

use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};

use support::{handmade, in_time, load, patched, plugin, registry};
use tidewater_plugin_api::ConnectorKind;
use tidewater_plugin_api::abi::{ABI_MAJOR, PluginHeader, TARGET};
use tidewater_plugin_host::LoadError;

/// The one reason why `path` is refused, as a person reads it.
#[track_caller]
fn refusal(path: &Path) -> String {
    let loaded = registry(vec![path.to_owned()]);
    let mut report = loaded.registry.scan();
    assert!(report.loaded.is_empty(), "it must not be loaded");
    assert_eq!(report.refused.len(), 1, "{:?}", report.refused);
    let (refused, error) = report.refused.remove(0);
    assert_eq!(refused, path);
    error.to_string()
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} should say {part:?}");
    }
}

fn write(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).expect("a file can be written");
    path
}

#[test]
fn a_plugin_says_what_it_is() {
    let loaded = load(&["puppet"]);
    let report = loaded.registry.scan();
    assert_eq!(
        report.loaded.len(),
        1,
        "a second scan finds the same content and loads nothing"
    );
    let info = &report.loaded[0];
    assert_eq!(
        (info.name.as_str(), info.version.as_str()),
        ("tidewater-puppet", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(info.path, plugin("puppet"));
    let classes = loaded.registry.classes();
    let names: Vec<_> = classes
        .iter()
        .map(|spec| (spec.class.as_str(), spec.kind))
        .collect();
    assert_eq!(
        names,
        [
            ("puppet-sink", ConnectorKind::Sink),
            ("puppet-source", ConnectorKind::Source)
        ]
    );
    assert_eq!(
        classes[0].config.find("at").expect("a key").documentation,
        "The call that does it."
    );
    let by_alias = loaded
        .registry
        .find("com.example.PuppetSourceConnector")
        .expect("an alias");
    assert_eq!(by_alias.spec().class, "puppet-source");
}

#[test]
fn an_unknown_class_is_answered_with_the_nearest() {
    let loaded = load(&["puppet"]);
    let error = loaded
        .registry
        .find("pupet-sink")
        .expect_err("there is no such class");
    assert_eq!(error.nearest.first().map(String::as_str), Some("puppet-sink"));
    assert_says(
        &error.to_string(),
        &["\"pupet-sink\"", "did you mean \"puppet-sink\"?", "puppet-source"],
    );
    let java = loaded
        .registry
        .find("org.other.PuppetSinkConnector")
        .expect_err("there is no such class");
    assert_eq!(java.nearest[0], "com.example.PuppetSinkConnector");
    let none = registry(Vec::new())
        .registry
        .find("x")
        .expect_err("nothing is installed");
    assert_says(&none.to_string(), &["none", "--plugin-path"]);
}

#[test]
fn every_bad_file_is_refused_for_its_own_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let good = fs::read(plugin("puppet")).expect("the plugin can be read");

    assert_says(
        &refusal(&at.join("nowhere.so")),
        &["nothing at this path", "--plugin-path"],
    );
    assert_says(&refusal(&write(at, "empty.so", b"")), &["empty"]);
    assert_says(
        &refusal(&write(at, "text.so", b"GROUP ( libc.so.6 )\n/* a script */")),
        &["text file", "GROUP ( libc.so.6 )"],
    );
    assert_says(
        &refusal(&write(at, "noise.so", &[0xde, 0xad, 0, 1, 2])),
        &["not an ELF", "de, ad"],
    );
    assert_says(&refusal(Path::new("/bin/sh")), &["executable", "cdylib"]);
    assert_says(
        &refusal(&std::env::current_exe().expect("a path")),
        &["executable"],
    );
    assert_says(
        &refusal(&libm()),
        &["shared library but no Tidewater plugin", "export_plugin!"],
    );
    for length in [5, 63, 64, 200, 4096, good.len() / 2, good.len() - 1] {
        let text = refusal(&write(at, "cut.so", &good[..length]));
        assert_says(&text, &["cut short"]);
    }

    // An object file, and one for another machine: the type and machine in the ELF header.
    let mut object = good.clone();
    object[16] = 1;
    assert_says(
        &refusal(&write(at, "object.so", &object)),
        &["type 1", "not a shared library"],
    );
    let mut foreign = good.clone();
    foreign[18] = 21;
    assert_says(
        &refusal(&write(at, "foreign.so", &foreign)),
        &["built for", std::env::consts::ARCH],
    );
    let mut narrow = good;
    narrow[4] = 1;
    assert_says(&refusal(&write(at, "narrow.so", &narrow)), &["32-bit"]);
}

/// A library of the system's that is no plugin: one that this very process has open.
fn libm() -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").expect("Linux tells what is mapped");
    let library = |name: &str| {
        let line = maps
            .lines()
            .find(|line| line.rsplit('/').next().is_some_and(|file| file.starts_with(name)))?;
        Some(PathBuf::from(&line[line.find('/')?..]))
    };
    let libc = library("libc.so")
        .or_else(|| library("libc-"))
        .expect("the C library is mapped");
    let libm = libc.with_file_name("libm.so.6");
    assert!(libm.exists(), "libm is beside libc");
    libm
}

#[test]
fn a_header_that_does_not_fit_is_refused_before_any_code_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let refuse = |offset: usize, bytes: &[u8]| refusal(&patched(folder.path(), "puppet", &[(offset, bytes)]));

    let major = ABI_MAJOR + 1;
    assert_says(
        &refuse(offset_of!(PluginHeader, abi_major), &major.to_ne_bytes()),
        &[
            "ABI 2",
            "this daemon speaks ABI 1",
            "rebuild it with tidewater-plugin-api 0.1",
        ],
    );
    // A header of a later major version may look different behind its versions.
    let header = patched(
        folder.path(),
        "puppet",
        &[
            (offset_of!(PluginHeader, abi_major), &9u16.to_ne_bytes()),
            (offset_of!(PluginHeader, required_features), &[0xff; 200]),
        ],
    );
    assert_says(&refusal(&header), &["ABI 9"]);
    assert_says(
        &refuse(
            offset_of!(PluginHeader, required_features),
            &0x10u64.to_ne_bytes(),
        ),
        &["features", "0x10", "update the daemon"],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, panic_unwind), &[0]),
        &["panic = \"abort\"", "panic = \"unwind\""],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, panic_unwind), &[7]),
        &["damaged", "panic strategy"],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, ptr_width), &[32]),
        &["32 bits", "64"],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, target), b"x86_64-unknown-linux-musl\0"),
        &["x86_64-unknown-linux-musl", TARGET],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, magic), b"TWPLUGOUT"),
        &["damaged"],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, header_size), &16u32.to_ne_bytes()),
        &["damaged", "16 bytes"],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, header_size), &u32::MAX.to_ne_bytes()),
        &["damaged"],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, name), &[0; 64]),
        &["damaged", "names no plugin"],
    );
    assert_says(
        &refuse(offset_of!(PluginHeader, entry), b"tidewater_plugin_v1_gone\0"),
        &["does not export", "_gone"],
    );
}

#[test]
fn a_plugin_that_fails_while_it_is_loaded_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refuse = |conduct: &str| refusal(&handmade(folder.path(), conduct));
    assert_says(&refuse("declines"), &["declines", "ABI 1.1"]);
    assert_says(
        &refuse("small-table"),
        &["function table", "40 bytes, at least 48"],
    );
    assert_says(&refuse("no-submit"), &["function table", "no submit"]);
    assert_says(&refuse("garbage-description"), &["description is not understood"]);
    assert_says(
        &refuse("nameless-class"),
        &["description is not understood", "no name"],
    );
    assert_says(
        &refuse("silent-failure"),
        &["failed to describe itself", "status 77"],
    );
    // The SDK catches a panic in the author's spec(), and says where it was.
    assert_says(
        &refusal(&plugin("unspeakable")),
        &["told to panic in spec", "unspeakable.rs:"],
    );
}

#[tokio::test]
async fn a_later_minor_version_is_loaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut later = [0; 64];
    later[..11].copy_from_slice(b"later-minor");
    let path = patched(
        folder.path(),
        "handmade",
        &[
            (offset_of!(PluginHeader, name), &later),
            (offset_of!(PluginHeader, abi_minor), &7u16.to_ne_bytes()),
        ],
    );
    let loaded = registry(vec![path]);
    assert!(
        loaded.registry.scan().refused.is_empty(),
        "minor versions only append"
    );
    // An opcode that a plugin does not know is told as such.
    let task = loaded.handmade("x");
    in_time(task.start()).await.expect("it starts");
    let error = in_time(task.metrics()).await.expect_err("it has none");
    assert_says(
        &error.to_string(),
        &["does not know how to metrics", "handmade-source"],
    );
    in_time(task.stop(support::PATIENCE)).await.expect("it stops");
}

#[test]
fn a_folder_is_searched_for_libraries_and_the_first_class_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    for (from, to) in [
        ("puppet", "a_puppet.so"),
        ("puppet", "b_puppet_again.so"),
        ("second", "c_second.so"),
    ] {
        fs::copy(plugin(from), at.join(to)).expect("it can be copied");
    }
    fs::copy(libm(), at.join("d_libm.so")).expect("it can be copied");
    fs::copy(libm(), at.join("e_tidewater_libm.so")).expect("it can be copied");
    fs::write(at.join("readme.txt"), "not looked at").expect("it can be written");
    fs::write(at.join("f_broken.so"), "").expect("it can be written");
    fs::create_dir(at.join("g_folder.so")).expect("it can be made");

    let loaded = registry(vec![at.to_owned(), at.join("missing")]);
    let report = loaded.registry.scan();
    let names: Vec<_> = report.loaded.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(
        names,
        ["tidewater-puppet", "tidewater-second"],
        "the same content is loaded once"
    );
    let refused: Vec<_> = report
        .refused
        .iter()
        .map(|(path, error)| (path.file_name().expect("a name").to_str().expect("UTF-8"), error))
        .collect();
    assert!(
        matches!(
            refused[..],
            [
                ("c_second.so", LoadError::DuplicateClass { .. }),
                ("e_tidewater_libm.so", LoadError::NoPlugin),
                ("f_broken.so", LoadError::Empty),
                ("missing", LoadError::NotFound),
            ]
        ),
        "a library that claims nothing is passed over: {refused:?}"
    );
    assert_says(
        &refused[0].1.to_string(),
        &["\"puppet-sink\"", "already taken", "a_puppet.so"],
    );
    // The class that was first stays; the second plugin's other class is there.
    assert_eq!(
        loaded.registry.find("puppet-sink").expect("it is there").plugin(),
        "tidewater-puppet"
    );
    assert_eq!(
        loaded
            .registry
            .find("unmakeable-source")
            .expect("it is there")
            .plugin(),
        "tidewater-second"
    );
    // A folder that is meant as a file.
    let as_file = registry(vec![at.join("g_folder.so")]);
    assert!(
        as_file.registry.scan().refused.is_empty(),
        "a folder is searched, whatever its name"
    );
}

#[tokio::test]
async fn two_plugins_work_side_by_side_each_with_its_own_runtime() {
    let loaded = load(&["puppet", "handmade"]);
    let source = loaded.source(&[]);
    let other = loaded.handmade("garbage-frame");
    in_time(source.start()).await.expect("it starts");
    in_time(other.start()).await.expect("it starts");
    let (polled, broken) = in_time(async { tokio::join!(source.poll(), other.poll()) }).await;
    assert_eq!(polled.expect("a frame").len(), 3);
    let broken = broken.expect_err("no frame");
    assert_eq!((&*broken.plugin, &*broken.class), ("handmade", "handmade-source"));
    in_time(source.stop(support::PATIENCE)).await.expect("it stops");
    in_time(other.stop(support::PATIENCE)).await.expect("it stops");
}

#[tokio::test]
async fn a_library_overwritten_in_place_while_it_is_loaded_does_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("libpuppet.so");
    fs::copy(plugin("puppet"), &path).expect("it can be copied");
    let loaded = registry(vec![path.clone()]);
    assert!(loaded.registry.scan().refused.is_empty());
    let task = loaded.source(&[]);
    in_time(task.start()).await.expect("it starts");

    // The very file, not a new one under its name: pages not yet read would come from the new content.
    let length = fs::metadata(&path).expect("it is there").len() as usize;
    fs::write(&path, vec![0xcc; length]).expect("it can be overwritten");
    assert_eq!(in_time(task.poll()).await.expect("a frame").len(), 3);
    let another = loaded.sink(&[]);
    in_time(another.start()).await.expect("it starts");
    in_time(another.put(support::frame(10, 10)))
        .await
        .expect("it is put");
    in_time(task.stop(support::PATIENCE)).await.expect("it stops");
    in_time(another.stop(support::PATIENCE)).await.expect("it stops");

    // What is there now is another content, and is judged anew.
    assert!(matches!(
        loaded.registry.scan().refused[..],
        [(_, LoadError::NotElf { .. })]
    ));
    // A new version under the old name is another plugin; the old one stays, and keeps its class.
    fs::remove_file(&path).expect("it can be removed");
    fs::copy(plugin("second"), &path).expect("it can be copied");
    let report = loaded.registry.scan();
    assert_eq!(report.loaded.len(), 2);
    assert!(
        matches!(report.refused[..], [(_, LoadError::DuplicateClass { .. })]),
        "{:?}",
        report.refused
    );
}

#[test]
fn a_damaged_copy_is_made_again() {
    let loaded = load(&["puppet"]);
    let cache = loaded.folder.path().join("cache");
    let copy = fs::read_dir(&cache)
        .expect("it is there")
        .next()
        .expect("a copy")
        .expect("an entry")
        .path();
    let expected = fs::read(plugin("puppet")).expect("the plugin can be read");
    assert_eq!(fs::read(&copy).expect("it can be read"), expected);

    // As a machine that lost its power may leave it; unlinked first, since this process has it open.
    fs::remove_file(&copy).expect("it can be removed");
    fs::write(&copy, b"torn").expect("it can be written");
    let again = tidewater_plugin_host::PluginRegistry::new(tidewater_plugin_host::PluginDirs {
        search: vec![plugin("puppet")],
        cache_dir: cache,
    });
    assert_eq!(again.scan().loaded.len(), 1);
    assert_eq!(fs::read(&copy).expect("it can be read"), expected);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "file", b"");
    let registry = tidewater_plugin_host::PluginRegistry::new(tidewater_plugin_host::PluginDirs {
        search: vec![plugin("puppet")],
        cache_dir: file.join("cache"),
    });
    let report = registry.scan();
    assert_says(
        &report.refused[0].1.to_string(),
        &["private copy", file.to_str().expect("UTF-8")],
    );
}
