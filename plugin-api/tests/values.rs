//! Values and schemas, through the frame's encoding and through JSON, come out as they went in; bytes that are none give
//! errors.

mod generated;

use generated::{encoded, pair, schema, untyped, walk_value};
use proptest::prelude::*;
use tidewater_plugin_api::json::{
    DecimalFormat, decimal_from_str, decimal_to_string, read_value, schema_from_json, schema_to_json,
    write_value,
};
use tidewater_plugin_api::value::MAX_DEPTH;
use tidewater_plugin_api::{Schema, Type, Value, ValueRef};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn typed_values_roundtrip((schema, value) in pair()) {
        let bytes = encoded(Some(&schema), &value);
        let read = ValueRef::decode(Some(&schema), &bytes).and_then(|read| read.to_value()).expect("it is one");
        prop_assert_eq!(encoded(Some(&schema), &read), bytes);
    }

    #[test]
    fn untyped_values_roundtrip(value in untyped()) {
        let bytes = encoded(None, &value);
        let read = ValueRef::decode(None, &bytes).and_then(|read| read.to_value()).expect("it is one");
        prop_assert_eq!(encoded(None, &read), bytes);
    }

    #[test]
    fn json_roundtrips_exactly((schema, value) in pair()) {
        let bytes = encoded(Some(&schema), &value);
        let mut text = Vec::new();
        let read = ValueRef::decode(Some(&schema), &bytes).expect("it is one");
        write_value(read, Some(&schema), DecimalFormat::Base64, &mut text).expect("it can be written");
        let mut again = Vec::new();
        read_value(&text, Some(&schema), &mut again)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
        prop_assert_eq!(again, bytes, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn schemas_roundtrip_through_json(schema in schema(), name in ".{1,9}", version in any::<i32>()) {
        let mut named = (*schema).clone().named(name).version(version).parameter("scale", "2");
        named.doc = Some("for people".into());
        let read = schema_from_json(&schema_to_json(&named, None)).expect("it is one");
        prop_assert_eq!(read, named);
    }

    #[test]
    fn arbitrary_bytes_are_no_harm(schema in schema(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for schema in [Some(&*schema), None] {
            if let Ok(value) = ValueRef::decode(schema, &bytes) {
                walk_value(schema, value);
            }
            let _ = read_value(&bytes, schema, &mut Vec::new());
        }
    }

    #[test]
    fn mutated_values_are_no_harm(
        (schema, value) in pair(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(Some(&schema), &value);
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let cut = cut.index(bytes.len() + 1);
        for bytes in [&bytes[..], &bytes[..cut]] {
            if let Ok(value) = ValueRef::decode(Some(&schema), bytes) {
                walk_value(Some(&schema), value);
            }
        }
    }

    #[test]
    fn a_part_of_a_value_is_an_error_or_shorter((schema, value) in pair()) {
        let bytes = encoded(Some(&schema), &value);
        for end in 0..bytes.len() {
            let read = ValueRef::decode(Some(&schema), &bytes[..end]).and_then(|read| read.to_value());
            prop_assert!(read.is_err(), "{end} of {} bytes of {value:?} gave {read:?}", bytes.len());
        }
    }

    #[test]
    fn a_value_of_another_schema_does_not_encode_or_is_the_same((schema, _) in pair(), (_, value) in pair()) {
        let mut out = Vec::new();
        if value.encode(Some(&schema), &mut out).is_ok() {
            let read = ValueRef::decode(Some(&schema), &out).and_then(|read| read.to_value()).expect("it is one");
            prop_assert_eq!(encoded(Some(&schema), &read), out);
        }
    }

    #[test]
    fn decimals_roundtrip_through_text(number in any::<i128>(), scale in 0..40i32) {
        let text = decimal_to_string(&number.to_be_bytes(), scale);
        let unscaled = decimal_from_str(&text, scale).expect("it is a decimal");
        prop_assert_eq!(decimal_to_string(&unscaled, scale), text.clone());
        let mut wide = [if unscaled[0] >= 0x80 { 0xff } else { 0 }; 16];
        wide[16 - unscaled.len()..].copy_from_slice(&unscaled);
        prop_assert_eq!(i128::from_be_bytes(wide), number, "{}", text);
    }

    #[test]
    fn arbitrary_text_is_no_harm_as_a_decimal(text in "[-+]?[0-9é]{0,5}[.]?[0-9é]{0,5}(e-?[0-9]{0,3})?", scale in any::<i32>()) {
        for scale in [scale, scale % 8] {
            let _ = decimal_from_str(&text, scale);
        }
    }
}

#[test]
fn decimals_read_as_people_write_them() {
    assert_eq!(decimal_to_string(&[0x30, 0x39], 2), "123.45");
    assert_eq!(decimal_to_string(&[0xff], 3), "-0.001");
    assert_eq!(decimal_to_string(&[], 0), "0");
    assert_eq!(decimal_from_str("-0.001", 3), Some(vec![0xff]));
    assert_eq!(decimal_from_str("1.5", 3), Some(vec![0x05, 0xdc]));
    assert_eq!(decimal_from_str("1.0005", 3), None, "a digit would be lost");
    for text in [
        "", ".", "-", "+.", "1..2", "1.2.3", "1-2", ".-5", "abc", "1e", "0x10", ".é", "é",
    ] {
        assert_eq!(decimal_from_str(text, 2), None, "{text:?}");
    }
}

/// Walking values is recursive: what is nested too deep must be refused before the stack ends.
#[test]
fn a_value_nested_too_deep_is_refused() {
    let mut hostile = Vec::new();
    for depth in 0..100_000u32 {
        // An array of one element, whose lengths are as long as they may be.
        hostile.push(10);
        hostile.extend_from_slice(&((99_999 - depth) * 9 + 4).to_le_bytes());
        hostile.extend_from_slice(&1u32.to_le_bytes());
    }
    hostile.truncate(hostile.len() - 9);
    if let Ok(value) = ValueRef::decode(None, &hostile) {
        assert!(value.to_value().is_err());
        walk_value(None, value);
    }
    let json = "[".repeat(100_000);
    assert!(read_value(json.as_bytes(), None, &mut Vec::new()).is_err());
    let mut schema = serde_json::json!({"type": "string"});
    for _ in 0..=MAX_DEPTH {
        schema = serde_json::json!({"type": "array", "items": schema});
    }
    assert!(schema_from_json(&schema).is_err());
}

#[test]
fn a_count_that_lies_allocates_nothing() {
    // An array that states 4 billion elements and has none.
    let mut bytes = 4u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    let schema = Schema::array(Schema::new(Type::Int64));
    let value = ValueRef::decode(Some(&schema), &bytes).expect("only walking it tells");
    assert!(value.to_value().is_err());
}

#[test]
fn defaults_fill_what_is_missing() {
    let schema = Schema::structure(vec![
        tidewater_plugin_api::Field::new("a", Schema::new(Type::Int32).default_value(Value::Int32(7))),
        tidewater_plugin_api::Field::new("b", Schema::new(Type::String).optional()),
    ]);
    let mut out = Vec::new();
    read_value(br#"{"unknown": [1, {}]}"#, Some(&schema), &mut out).expect("nothing else is required");
    let read = ValueRef::decode(Some(&schema), &out)
        .and_then(|read| read.to_value())
        .expect("it is one");
    assert_eq!(read, Value::Struct(vec![Value::Int32(7), Value::Null]));
    assert!(read_value(br#"{"a": 1, "a": 2}"#, Some(&schema), &mut Vec::new()).is_err());
}
