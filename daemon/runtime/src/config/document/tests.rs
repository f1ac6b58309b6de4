use super::*;

fn parse(format: Format, text: &str) -> Vec<(String, Option<String>, u32)> {
    let entries = format.parse(text.as_bytes()).expect("the text is valid");
    let mut flat: Vec<_> = entries
        .into_iter()
        .map(|entry| (entry.key, entry.value, entry.place.line))
        .collect();
    flat.sort();
    flat
}

fn faults(format: Format, text: &str) -> Vec<(Option<u32>, Option<u32>, String)> {
    let faults = format.parse(text.as_bytes()).expect_err("the text has a fault");
    faults
        .into_iter()
        .map(|fault| {
            (
                fault.place.map(|p| p.line),
                fault.place.map(|p| p.column),
                fault.message,
            )
        })
        .collect()
}

fn row(key: &str, value: &str, line: u32) -> (String, Option<String>, u32) {
    (key.to_owned(), Some(value.to_owned()), line)
}

#[test]
fn every_format_reads_nested_and_flat_keys_with_their_lines() {
    let expected = |lines: [u32; 4]| {
        vec![
            row("database.hostname", "db", lines[0]),
            row("database.port", "5432", lines[1]),
            row("table.include.list", "public.a,public.b", lines[2]),
            row("tombstones.on.delete", "true", lines[3]),
        ]
    };
    let toml = "tombstones.on.delete = true\n\"table.include.list\" = [\"public.a\",\n \"public.b\"]\n\
                [database]\nhostname = \"db\"\nport = 5432\n";
    assert_eq!(parse(Format::Toml, toml), expected([5, 6, 2, 1]));
    let yaml = "database:\n  hostname: db\n  port: 5432\ntable.include.list:\n  - public.a\n  - public.b\n\
                tombstones.on.delete: true\n";
    assert_eq!(parse(Format::Yaml, yaml), expected([2, 3, 4, 7]));
    let json = "{\n\"database\": {\"hostname\": \"db\",\n\"port\": 5432},\n\"table.include.list\": [\"public.a\", \
                \"public.b\"],\n\"tombstones.on.delete\": true}";
    assert_eq!(parse(Format::Json, json), expected([2, 3, 4, 5]));
    let properties = "# a comment\ndatabase.hostname=db\ndatabase.port: 5432\n\
                      table.include.list=public.a,\\\n   public.b\ntombstones.on.delete true\n";
    assert_eq!(parse(Format::Properties, properties), expected([2, 3, 4, 6]));
}

#[test]
fn scalars_keep_the_text_they_were_written_with() {
    assert_eq!(
        parse(Format::Yaml, "a: 0123\nb: 1.10\nc: yes\nd: '~'\ne: \"x: y\"\n"),
        [
            row("a", "0123", 1),
            row("b", "1.10", 2),
            row("c", "yes", 3),
            row("d", "~", 4),
            row("e", "x: y", 5)
        ]
    );
    assert_eq!(
        parse(Format::Toml, "a = 1_000\nb = 1.50\nc = 0x10\nd = 2024-01-02\n"),
        [
            row("a", "1000", 1),
            row("b", "1.50", 2),
            row("c", "16", 3),
            row("d", "2024-01-02", 4)
        ]
    );
    assert_eq!(
        parse(Format::Json, "{\"a\": 1.50, \"b\": 1e3}"),
        [row("a", "1.50", 1), row("b", "1e3", 1)]
    );
}

#[test]
fn yaml_aliases_stand_for_what_they_name_and_null_is_no_text() {
    assert_eq!(
        parse(Format::Yaml, "a: &host db.example\nb: *host\nc:\nd: ~\n"),
        [
            row("a", "db.example", 1),
            row("b", "db.example", 2),
            ("c".into(), None, 3),
            ("d".into(), None, 4)
        ]
    );
}

#[test]
fn a_hostile_file_is_refused_before_it_fills_the_memory_or_the_stack() {
    let mut bomb = vec!["a0: &a0 [x,x,x,x,x,x,x,x,x,x]".to_owned()];
    for level in 1..9 {
        let previous = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push(format!("a{level}: &a{level} [{previous}]"));
    }
    assert!(
        faults(Format::Yaml, &bomb.join("\n"))[0]
            .2
            .contains("too many values")
    );
    for (format, text) in [
        (Format::Yaml, "[".repeat(1_000_000)),
        (Format::Json, "[".repeat(1_000_000)),
        (Format::Json, "{\"a\":".repeat(1_000_000)),
        (Format::Toml, format!("a = {}", "[".repeat(1_000_000))),
    ] {
        faults(format, &text);
    }
}

#[test]
fn syntax_errors_have_a_line_and_a_column() {
    let (line, column, message) = faults(Format::Json, "{\n  \"a\": 1,\n  \"b\" 2\n}").remove(0);
    assert_eq!((line, column), (Some(3), Some(7)), "{message}");
    assert!(message.starts_with("is not valid JSON: "), "{message}");
    assert!(faults(Format::Json, "{\"a\": 1,}")[0].2.contains("railing comma"));
    assert!(
        faults(Format::Json, "[1]")[0]
            .2
            .contains("must hold a JSON object")
    );
    assert!(faults(Format::Json, "")[0].2.contains("is empty"));

    let (line, column, message) = faults(Format::Toml, "a = 1\nb = = 2\n").remove(0);
    assert_eq!((line, column), (Some(2), Some(5)), "{message}");

    let (line, _, message) = faults(Format::Yaml, "a: 1\nb: [1, 2\nc: 3\n").remove(0);
    assert!(line >= Some(2), "{message}");
    assert!(message.starts_with("is not valid YAML: "), "{message}");
    assert!(faults(Format::Yaml, "just text")[0].2.contains("YAML mapping"));
    assert!(
        faults(Format::Yaml, "a: 1\n---\nb: 2\n")[0]
            .2
            .contains("second YAML document")
    );

    let (line, _, message) = faults(Format::Properties, "a=1\nb=\\uZZZZ\n").remove(0);
    assert_eq!(line, Some(2), "{message}");
}

#[test]
fn a_toml_key_that_continues_another_is_explained() {
    let faults = faults(
        Format::Toml,
        "value.converter = \"json\"\nvalue.converter.schemas.enable = false\n",
    );
    assert_eq!(faults[0].0, Some(2));
    assert!(faults[0].2.contains("must be in quotes"), "{}", faults[0].2);
    let quoted = "value.converter = \"json\"\n\"value.converter.schemas.enable\" = false\n";
    assert_eq!(parse(Format::Toml, quoted).len(), 2);
}

#[test]
fn a_key_given_twice_is_refused_in_every_format() {
    for (format, text) in [
        (Format::Json, "{\"a\": 1,\n\"a\": 2}"),
        (Format::Yaml, "a: 1\na: 2\n"),
        (Format::Properties, "a=1\na=2\n"),
        (Format::Toml, "a.b = 1\n\"a.b\" = 2\n"),
    ] {
        let fault = faults(format, text).remove(0);
        assert_eq!(fault.0, Some(2), "{format:?}");
        assert!(
            fault.2.contains("given twice, first in line 1"),
            "{format:?}: {}",
            fault.2
        );
    }
}

#[test]
fn lists_that_would_change_their_meaning_are_refused() {
    assert!(
        faults(Format::Toml, "a = [\"x,y\"]")[0]
            .2
            .contains("holds a comma")
    );
    assert!(
        faults(Format::Json, "{\"a\": [[1]]}")[0]
            .2
            .contains("text, numbers and booleans only")
    );
}

#[test]
fn text_that_is_not_utf_8_is_refused_but_for_properties() {
    let fault = Format::Toml
        .parse(b"a = 1\nb = \"\xff\"\n")
        .expect_err("no UTF-8")
        .remove(0);
    assert_eq!(fault.place, Some(Place { line: 2, column: 6 }));
    let entries = Format::Properties.parse(b"name=caf\xe9\n").expect("Latin-1");
    assert_eq!(entries[0].value.as_deref(), Some("caf\u{e9}"));
    let entries = Format::Properties.parse("name=café\n".as_bytes()).expect("UTF-8");
    assert_eq!(entries[0].value.as_deref(), Some("café"));
}
