//! The string converter: text as UTF-8; any other value as the text of its JSON.

use std::sync::{Arc, LazyLock};

use tidewater_plugin_api::json::{DecimalFormat, write_value};
use tidewater_plugin_api::{Schema, SchemaRef, Type, ValueRef, ValueWriter};

use super::{ConvertError, Converted, Converter};

static TEXT: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(Type::String).optional()));

/// Text as UTF-8.
#[derive(Debug)]
pub struct StringConverter;

#[async_trait::async_trait]
impl Converter for StringConverter {
    fn to_topic(
        &mut self,
        schema: Option<&SchemaRef>,
        value: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<bool, ConvertError> {
        let schema = schema.map(|schema| &**schema);
        let Some(value) = value else { return Ok(false) };
        match ValueRef::decode(schema, value).map_err(|error| ConvertError(error.to_string()))? {
            ValueRef::Null => return Ok(false),
            ValueRef::String(text) => out.extend_from_slice(text.as_bytes()),
            other => write_value(other, schema, DecimalFormat::Numeric, out)
                .map_err(|error| ConvertError(error.to_string()))?,
        }
        Ok(true)
    }

    fn to_frame(&mut self, bytes: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Converted, ConvertError> {
        let Some(bytes) = bytes else {
            return Ok(Converted {
                schema: Some(TEXT.clone()),
                present: false,
            });
        };
        let text = std::str::from_utf8(bytes).map_err(|error| {
            ConvertError(format!(
                "the string converter takes UTF-8 only, and these bytes are not: {error}"
            ))
        })?;
        let mut writer = ValueWriter::new(out);
        writer.present();
        writer.string(text);
        Ok(Converted {
            schema: Some(TEXT.clone()),
            present: true,
        })
    }
}
