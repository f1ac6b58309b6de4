//! From a record to a line of JSON.

use tidewater_plugin_api::json::{DecimalFormat, write_string, write_value};
use tidewater_plugin_api::value::DecodeError;
use tidewater_plugin_api::{Record, SchemaRef, ValueRef};

/// Appends the value of `record` as a line.
pub fn write_value_line(
    record: &Record<'_>,
    decimals: DecimalFormat,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    write(record.value()?, record.value_schema(), decimals, out)?;
    out.push(b'\n');
    Ok(())
}

/// Appends all of `record` as a line.
pub fn write_record_line(
    record: &Record<'_>,
    decimals: DecimalFormat,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    out.extend_from_slice(b"{\"topic\":");
    write_string(record.topic(), out);
    out.extend_from_slice(b",\"partition\":");
    write_number(record.partition().map(i64::from), out);
    out.extend_from_slice(b",\"offset\":");
    write_number(record.offset().map(|offset| offset as i64), out);
    out.extend_from_slice(b",\"timestamp\":");
    write_number(record.timestamp(), out);
    out.extend_from_slice(b",\"key\":");
    write(record.key()?, record.key_schema(), decimals, out)?;
    out.extend_from_slice(b",\"value\":");
    write(record.value()?, record.value_schema(), decimals, out)?;
    // A list, since several headers may share a name.
    let mut before: &[u8] = b",\"headers\":[{\"key\":";
    for header in record.headers() {
        let header = header?;
        out.extend_from_slice(before);
        write_string(header.name, out);
        out.extend_from_slice(b",\"value\":");
        write(header.value, header.schema, decimals, out)?;
        before = b"},{\"key\":";
    }
    if before.starts_with(b"}") {
        out.extend_from_slice(b"}]");
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

fn write(
    value: ValueRef<'_>,
    schema: Option<&SchemaRef>,
    decimals: DecimalFormat,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    write_value(value, schema.map(|schema| &**schema), decimals, out)
}

fn write_number(number: Option<i64>, out: &mut Vec<u8>) {
    match number {
        Some(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidewater_plugin_api::{Field, Frame, FrameBuilder, Schema, Type, Value, logical};

    use tidewater_plugin_api::frame::SchemaCache;

    use super::*;

    fn record() -> Frame {
        let amount = Schema::new(Type::Bytes)
            .named(logical::DECIMAL)
            .parameter("scale", "2");
        let schema: SchemaRef = Schema::structure(vec![
            Field::new("id", Schema::new(Type::Int64)),
            Field::new("note", Schema::new(Type::String).optional()),
            Field::new("amount", amount),
        ])
        .into();
        let value = Value::Struct(vec![
            Value::Int64(7),
            Value::String("two\nlines \"quoted\"".into()),
            Value::Bytes(vec![0x04, 0xd2].into()),
        ]);
        let text: SchemaRef = Arc::new(Schema::new(Type::String));
        let mut batch = FrameBuilder::new();
        let topic = batch.topic("shop.orders").unwrap();
        let (value_id, key_id) = (batch.schema(&schema).unwrap(), batch.schema(&text).unwrap());
        let mut record = batch.record(topic);
        record
            .key_value(key_id, Some(&text), &Value::String("k".into()))
            .unwrap();
        record.value_value(value_id, Some(&schema), &value).unwrap();
        record
            .header("trace", key_id, Some(&text), Some(&Value::String("a".into())))
            .unwrap();
        record.header("trace", key_id, Some(&text), None).unwrap();
        record.timestamp(1_700_000_000_000);
        record.partition(3);
        record.offset(42);
        record.push().unwrap();
        batch.record(topic).push().unwrap();
        Frame::parse(batch.finish(), &mut SchemaCache::default()).unwrap()
    }

    #[test]
    fn a_value_is_one_line() {
        let mut out = Vec::new();
        for record in record().records() {
            write_value_line(&record, DecimalFormat::Numeric, &mut out).unwrap();
        }
        let expected = "{\"id\":7,\"note\":\"two\\nlines \\\"quoted\\\"\",\"amount\":12.34}\nnull\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_record_with_all_its_parts() {
        let mut out = Vec::new();
        for record in record().records() {
            write_record_line(&record, DecimalFormat::Base64, &mut out).unwrap();
        }
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let first = serde_json::json!({
            "topic": "shop.orders", "partition": 3, "offset": 42, "timestamp": 1_700_000_000_000_i64, "key": "k",
            "value": {"id": 7, "note": "two\nlines \"quoted\"", "amount": "BNI="},
            "headers": [{"key": "trace", "value": "a"}, {"key": "trace", "value": null}],
        });
        let second = serde_json::json!({
            "topic": "shop.orders", "partition": null, "offset": null, "timestamp": null, "key": null, "value": null,
        });
        assert_eq!(lines, [first, second]);
    }
}
