use tidewater_plugin_api::Field;

use super::*;

fn text_of(value: &Value, schema: Option<&Schema>) -> String {
    let (mut encoded, mut out) = (Vec::new(), String::new());
    value.encode(schema, &mut encoded).expect("it fits");
    write(
        ValueRef::decode(schema, &encoded).expect("it decodes"),
        schema,
        &mut out,
    )
    .expect("it is written");
    out
}

/// The type of a datum as `map<string,int16>`; `-` without a schema.
fn shape(schema: Option<&SchemaRef>) -> String {
    let Some(schema) = schema else { return "-".into() };
    let optional = if schema.optional { "?" } else { "" };
    let base = match &schema.ty {
        Type::Array(element) => format!("array<{}>", shape(Some(element))),
        Type::Map(key, value) => format!("map<{},{}>", shape(Some(key)), shape(Some(value))),
        other => other.name().to_owned(),
    };
    let meaning = schema.name.as_deref().and_then(|name| name.rsplit('.').next());
    format!(
        "{base}{}{optional}",
        meaning.map(|name| format!(":{name}")).unwrap_or_default()
    )
}

#[test]
fn text_takes_the_type_that_fits_it() {
    let s = |text: &str| Value::String(text.into());
    let table = [
        ("null", "-", Value::Null),
        (" null ", "-", Value::Null),
        ("nullx", "string", s("nullx")),
        ("true", "boolean", Value::Bool(true)),
        ("false", "boolean", Value::Bool(false)),
        ("True", "string", s("True")),
        ("42", "int8", Value::Int8(42)),
        (" 42 ", "int8", Value::Int8(42)),
        ("+7", "int8", Value::Int8(7)),
        ("-128", "int8", Value::Int8(-128)),
        ("128", "int16", Value::Int16(128)),
        ("32767", "int16", Value::Int16(32767)),
        ("32768", "int32", Value::Int32(32768)),
        ("2147483648", "int64", Value::Int64(2_147_483_648)),
        (
            "-9223372036854775808",
            "int64",
            Value::Int64(-9_223_372_036_854_775_808),
        ),
        ("1.0", "int8", Value::Int8(1)),
        ("1e3", "int16", Value::Int16(1000)),
        ("1.5", "float", Value::Float32(1.5)),
        ("1.5e300", "double", Value::Float64(1.5e300)),
        (".5", "string", s(".5")),
        ("1.2.3", "string", s("1.2.3")),
        ("-", "string", s("-")),
        ("NaN", "string", s("NaN")),
        ("", "string", s("")),
        ("  ", "string", s("  ")),
        ("hello, world", "string", s("hello, world")),
        ("\"42\"", "string", s("\"42\"")),
        ("42,43", "string", s("42,43")),
        ("1970-01-02", "int32:Date", Value::Int32(1)),
        ("1969-12-31", "int32:Date", Value::Int32(-1)),
        ("1970-13-02", "string", s("1970-13-02")),
        ("00:00:01.500Z", "int32:Time", Value::Int32(1500)),
        ("1970-01-01T00:00:01.500Z", "int64:Timestamp", Value::Int64(1500)),
        (
            "[1, 2,3]",
            "array<int8>",
            Value::Array(vec![Value::Int8(1), Value::Int8(2), Value::Int8(3)]),
        ),
        (
            "[1,300]",
            "array<int16>",
            Value::Array(vec![Value::Int16(1), Value::Int16(300)]),
        ),
        (
            "[1,1.5]",
            "array<float>",
            Value::Array(vec![Value::Float32(1.0), Value::Float32(1.5)]),
        ),
        (
            "[1,null]",
            "array<int8?>",
            Value::Array(vec![Value::Int8(1), Value::Null]),
        ),
        (
            "[\"foo\",\"a\\\"b\\\\\"]",
            "array<string>",
            Value::Array(vec![s("foo"), s("a\"b\\")]),
        ),
        (
            "[\"foo\",13344]",
            "-",
            Value::Array(vec![s("foo"), Value::Int16(13344)]),
        ),
        (
            "[\"foo\",1970-01-02]",
            "-",
            Value::Array(vec![s("foo"), s("1970-01-02")]),
        ),
        ("[null]", "-", Value::Array(vec![Value::Null])),
        ("[]", "-", Value::Array(vec![])),
        ("[1,]", "array<int8>", Value::Array(vec![Value::Int8(1)])),
        (
            "[1970-01-01T00:00:00.001Z , 1970-01-01T00:00:00.002Z]",
            "array<int64:Timestamp>",
            Value::Array(vec![Value::Int64(1), Value::Int64(2)]),
        ),
        (
            "[\"1970-01-02\"]",
            "array<int32:Date>",
            Value::Array(vec![Value::Int32(1)]),
        ),
        (
            "[[1],[2]]",
            "array<array<int8>>",
            Value::Array(vec![
                Value::Array(vec![Value::Int8(1)]),
                Value::Array(vec![Value::Int8(2)]),
            ]),
        ),
        (
            "{ \"foo\" : 12345 , \"bar\" : 0,  \"baz\" : -4321 }  ",
            "map<string,int16>",
            Value::Map(vec![
                (s("foo"), Value::Int16(12345)),
                (s("bar"), Value::Int16(0)),
                (s("baz"), Value::Int16(-4321)),
            ]),
        ),
        (
            "{\"foo\":\"bar\",\"baz\":3456}",
            "-",
            Value::Map(vec![(s("foo"), s("bar")), (s("baz"), Value::Int16(3456))]),
        ),
        ("{}", "-", Value::Map(vec![])),
        // What is no list or map is text, whole.
        ("[1", "string", s("[1")),
        ("[1 2]", "string", s("[1 2]")),
        ("[,1]", "string", s("[,1]")),
        ("[foo]", "string", s("[foo]")),
        ("[1] and more", "string", s("[1] and more")),
        ("[\"open", "string", s("[\"open")),
        ("{null:1}", "string", s("{null:1}")),
        ("{\"a\" 1}", "string", s("{\"a\" 1}")),
        ("{a:1}", "string", s("{a:1}")),
    ];
    for (text, ty, value) in table {
        let mut datum = read(text);
        assert_eq!(shape(datum.schema()), ty, "{text}");
        assert_eq!(datum.value().expect(text), &value, "{text}");
    }
    assert_eq!(
        shape(read("123456789012345678901234567890").schema()),
        "bytes:Decimal"
    );
}

#[test]
fn values_are_written_as_connect_writes_them() {
    let s = |text: &str| Value::String(text.into());
    let row = Schema::structure(vec![
        Field::new("id", Schema::new(Type::Int32)),
        Field::new("name", Schema::new(Type::String).optional()),
    ]);
    let date = |ty: Type, name: &str| Some(Schema::new(ty).named(name));
    let decimal = Schema::new(Type::Bytes)
        .named(logical::DECIMAL)
        .parameter("scale", "2");
    let table = [
        (s("plain \"text\""), None, "plain \"text\""),
        (Value::Bool(true), None, "true"),
        (Value::Int64(-5), None, "-5"),
        (Value::Float32(1.0), None, "1.0"),
        (Value::Float64(1e10), None, "1.0E10"),
        (Value::Float64(f64::NAN), None, "NaN"),
        (Value::Bytes(Bytes::from_static(b"\x01\x02")), None, "AQI="),
        (
            Value::Bytes(Bytes::from_static(&[0x30, 0x39])),
            Some(decimal),
            "123.45",
        ),
        (
            Value::Int32(1),
            date(Type::Int32, logical::CONNECT_DATE),
            "1970-01-02",
        ),
        (
            Value::Int32(1500),
            date(Type::Int32, logical::CONNECT_TIME),
            "00:00:01.500Z",
        ),
        (
            Value::Int64(1500),
            date(Type::Int64, logical::CONNECT_TIMESTAMP),
            "1970-01-01T00:00:01.500Z",
        ),
        // Debezium's types are numbers to Connect.
        (Value::Int32(1), date(Type::Int32, logical::DATE), "1"),
        (
            Value::Array(vec![s("a\"b\\"), Value::Null, Value::Int8(1)]),
            None,
            "[\"a\\\"b\\\\\",null,1]",
        ),
        (
            Value::Map(vec![(s("k"), Value::Bytes(Bytes::from_static(b"\x01")))]),
            None,
            "{\"k\":\"AQ==\"}",
        ),
        (
            Value::Struct(vec![Value::Int32(7), s("x")]),
            Some(row),
            "{\"id\":7,\"name\":\"x\"}",
        ),
    ];
    for (value, schema, text) in table {
        assert_eq!(text_of(&value, schema.as_ref()), text);
    }
}

#[test]
fn what_is_written_reads_back() {
    for text in [
        "[1,300]",
        "[\"a\\\"b\\\\\",\"x,y]\"]",
        "{\"foo\":12345,\"b:ar\":0}",
        "[[1],[2]]",
        "[\"foo\",13344,null]",
        "{1:\"a\",2:\"b\"}",
        "[1970-01-02,1970-01-03]",
        "true",
        "1.5",
    ] {
        let mut datum = read(text);
        let schema = datum.schema().cloned();
        let value = datum.value().expect(text);
        assert_eq!(text_of(value, schema.as_deref()), text);
    }
}
