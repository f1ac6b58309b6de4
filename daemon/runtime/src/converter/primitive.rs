//! The converters of booleans and numbers: Kafka's own encodings, big-endian.

use std::sync::{Arc, LazyLock};

use tidewater_plugin_api::{Schema, SchemaRef, Type, ValueRef, ValueWriter};

use super::{ConvertError, Converted, Converter, Encoded};

/// A type that Kafka has an encoding of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Primitive {
    Boolean,
    Short,
    Integer,
    Long,
    Float,
    Double,
}

impl Primitive {
    const ALL: [Self; 6] = [
        Self::Boolean,
        Self::Short,
        Self::Integer,
        Self::Long,
        Self::Float,
        Self::Double,
    ];

    fn ty(self) -> Type {
        match self {
            Self::Boolean => Type::Bool,
            Self::Short => Type::Int16,
            Self::Integer => Type::Int32,
            Self::Long => Type::Int64,
            Self::Float => Type::Float32,
            Self::Double => Type::Float64,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Boolean => "org.apache.kafka.connect.converters.BooleanConverter",
            Self::Short => "org.apache.kafka.connect.converters.ShortConverter",
            Self::Integer => "org.apache.kafka.connect.converters.IntegerConverter",
            Self::Long => "org.apache.kafka.connect.converters.LongConverter",
            Self::Float => "org.apache.kafka.connect.converters.FloatConverter",
            Self::Double => "org.apache.kafka.connect.converters.DoubleConverter",
        }
    }

    /// The schema of what is read: optional, as a topic may hold nulls.
    fn schema(self) -> &'static SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 6]> = LazyLock::new(|| {
            Primitive::ALL.map(|primitive| Arc::new(Schema::new(primitive.ty()).optional()))
        });
        &SCHEMAS[self as usize]
    }
}

/// Values of one type in Kafka's encoding.
#[derive(Debug)]
pub struct PrimitiveConverter(Primitive);

impl PrimitiveConverter {
    /// The converter of values of this type.
    pub fn new(primitive: Primitive) -> Self {
        Self(primitive)
    }

    fn exactly<const N: usize>(&self, bytes: &[u8]) -> Result<[u8; N], ConvertError> {
        bytes.try_into().map_err(|_| {
            ConvertError(format!(
                "a value of type {} is {N} bytes, and here are {}; what wrote the topic used another converter",
                self.0.ty().name(),
                bytes.len()
            ))
        })
    }
}

#[async_trait::async_trait]
impl Converter for PrimitiveConverter {
    fn class(&self) -> &'static str {
        self.0.class()
    }

    fn to_topic<'a>(
        &mut self,
        schema: Option<&'a SchemaRef>,
        value: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<&'a [u8]>, ConvertError> {
        let Some(value) = value else { return Ok(None) };
        match (self.0, ValueRef::decode(schema.map(|schema| &**schema), value)?) {
            (_, ValueRef::Null) => return Ok(None),
            (Primitive::Boolean, ValueRef::Bool(truth)) => scratch.push(u8::from(truth)),
            (Primitive::Short, ValueRef::Int16(number)) => scratch.extend_from_slice(&number.to_be_bytes()),
            (Primitive::Integer, ValueRef::Int32(number)) => scratch.extend_from_slice(&number.to_be_bytes()),
            (Primitive::Long, ValueRef::Int64(number)) => scratch.extend_from_slice(&number.to_be_bytes()),
            (Primitive::Float, ValueRef::Float32(number)) => scratch.extend_from_slice(&number.to_be_bytes()),
            (Primitive::Double, ValueRef::Float64(number)) => {
                scratch.extend_from_slice(&number.to_be_bytes());
            }
            (_, other) => {
                return Err(ConvertError(format!(
                    "the converter takes values of type {} only, and this is of type {}; use the converter of that type, or json",
                    self.0.ty().name(),
                    other.kind()
                )));
            }
        }
        Ok(Some(scratch))
    }

    fn to_frame<'a>(
        &mut self,
        bytes: Option<&'a [u8]>,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Converted<'a>, ConvertError> {
        let schema = Some(self.0.schema().clone());
        let Some(bytes) = bytes else {
            return Ok(Converted { schema, value: None });
        };
        let mut writer = ValueWriter::new(scratch);
        writer.present();
        match self.0 {
            Primitive::Boolean => match self.exactly::<1>(bytes)? {
                [0] => writer.bool(false),
                [1] => writer.bool(true),
                [other] => {
                    return Err(ConvertError(format!(
                        "a boolean is the byte 0 or 1, and this is {other}; what wrote the topic used another converter"
                    )));
                }
            },
            Primitive::Short => writer.i16(i16::from_be_bytes(self.exactly(bytes)?)),
            Primitive::Integer => writer.i32(i32::from_be_bytes(self.exactly(bytes)?)),
            Primitive::Long => writer.i64(i64::from_be_bytes(self.exactly(bytes)?)),
            Primitive::Float => writer.f32(f32::from_be_bytes(self.exactly(bytes)?)),
            Primitive::Double => writer.f64(f64::from_be_bytes(self.exactly(bytes)?)),
        }
        Ok(Converted {
            schema,
            value: Some(Encoded::Whole(scratch)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{topic_bytes, value_of};
    use super::*;
    use tidewater_plugin_api::Value;

    #[test]
    fn values_are_encoded_as_kafka_does_and_read_back() {
        use Primitive::{Boolean, Double, Float, Integer, Long, Short};
        let table: [(Primitive, Value, &[u8]); 10] = [
            (Boolean, Value::Bool(true), &[1]),
            (Boolean, Value::Bool(false), &[0]),
            (Short, Value::Int16(-2), &[0xff, 0xfe]),
            (Short, Value::Int16(258), &[1, 2]),
            (Integer, Value::Int32(0x0102_0304), &[1, 2, 3, 4]),
            (Integer, Value::Int32(i32::MIN), &[0x80, 0, 0, 0]),
            (Long, Value::Int64(-1), &[0xff; 8]),
            (Long, Value::Int64(1), &[0, 0, 0, 0, 0, 0, 0, 1]),
            (Float, Value::Float32(1.5), &[0x3f, 0xc0, 0, 0]),
            (Double, Value::Float64(-2.0), &[0xc0, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (primitive, value, bytes) in table {
            let converter = &mut PrimitiveConverter::new(primitive);
            let required = Arc::new(Schema::new(primitive.ty()));
            for schema in [None, Some(&required), Some(primitive.schema())] {
                let out = topic_bytes(converter, schema, &value).unwrap();
                assert_eq!(out.as_deref(), Some(bytes), "{primitive:?}");
            }
            assert_eq!(
                value_of(converter, Some(bytes)),
                Ok((Some(primitive.schema().clone()), value))
            );
            assert_eq!(
                value_of(converter, None),
                Ok((Some(primitive.schema().clone()), Value::Null))
            );
            for schema in [None, Some(primitive.schema())] {
                assert_eq!(topic_bytes(converter, schema, &Value::Null), Ok(None));
            }
        }
    }

    #[test]
    fn what_is_of_another_type_or_length_is_refused() {
        for primitive in Primitive::ALL {
            let converter = &mut PrimitiveConverter::new(primitive);
            let name = primitive.ty().name();
            for value in [Value::String("1".into()), Value::Int8(1)] {
                let error = topic_bytes(converter, None, &value).unwrap_err();
                assert!(
                    error.0.contains(name) && error.0.contains(value.kind()),
                    "{error}"
                );
            }
            let error = value_of(converter, Some(&[0; 3])).unwrap_err();
            assert!(error.0.contains(name) && error.0.contains('3'), "{error}");
            assert!(value_of(converter, Some(&[])).is_err());
        }
        let error = value_of(&mut PrimitiveConverter::new(Primitive::Boolean), Some(&[2])).unwrap_err();
        assert!(error.0.contains("this is 2"), "{error}");
    }
}
