//! From PostgreSQL's text to typed values: one decoder for the snapshot and the stream, so that the two agree by
//! construction.
//!
//! - [`choose`]: which codec and which schema a column gets, from its type;
//! - [`number`], [`temporal`], [`bits`], [`mod@array`], [`hstore`]: the formats, each in its file.
//!
//! A codec never guesses: text that its schema cannot hold (NaN in a decimal, a two-dimensional value in an array) is
//! [`Unfit`], and the caller sends the column as text from then on, so nothing is lost and nothing stops.

pub(crate) mod array;
pub(crate) mod bits;
pub(crate) mod choose;
pub(crate) mod hstore;
pub(crate) mod number;
pub(crate) mod temporal;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use tidewater_plugin_api::ValueWriter;

use super::settings::BinaryMode;

/// How a column's text becomes a value of its schema.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Codec {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    /// As PostgreSQL writes it.
    Text,
    /// Text that stands among these labels.
    Enum(Vec<String>),
    /// Unscaled bytes at this scale.
    Decimal {
        scale: i32,
    },
    /// A struct of scale and unscaled bytes.
    VariableDecimal,
    /// `$1,234.50`, as unscaled bytes at this scale.
    MoneyDecimal {
        scale: i32,
    },
    /// `$1,234.50`, as `1234.50`.
    MoneyText {
        scale: i32,
    },
    /// `$1,234.50`, as a double.
    MoneyDouble {
        scale: i32,
    },
    Bytea(BinaryMode),
    /// `bit(1)`.
    Bit,
    /// `bit(n)`, least significant first.
    Bits,
    /// Days since 1970.
    Date,
    /// Milliseconds since midnight.
    TimeMillis,
    /// Microseconds since midnight.
    TimeMicros,
    TimeTz,
    /// Milliseconds since 1970.
    TimestampMillis,
    /// Microseconds since 1970.
    TimestampMicros,
    /// ISO 8601 with this many digits of the second's fraction.
    TimestampTz {
        digits: usize,
    },
    /// Microseconds, months taken as 30.4375 days.
    IntervalMicros,
    /// ISO 8601.
    IntervalText,
    HstoreJson,
    HstoreMap,
    /// A list without dimensions beyond the first.
    Array {
        element: Box<Codec>,
        delimiter: u8,
    },
}

/// Why a value cannot be written as its column's schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The type cannot hold it; the reason, for people.
    Type(&'static str),
    /// An enum's label that was not there when the schema was made.
    Label,
    /// A null where the schema has none.
    Null,
    /// Bytes that are no UTF-8, from a database of encoding SQL_ASCII.
    Encoding,
}

/// What a codec makes of a value.
pub(crate) type Fit = Result<(), Unfit>;

impl Codec {
    /// Writes the value that PostgreSQL writes as `text`. After an error the output holds a part of it: drop the record.
    pub(crate) fn write(&self, text: &[u8], out: &mut ValueWriter<'_>) -> Fit {
        match self {
            Codec::Text => out.string(utf8(text)?),
            Codec::Int32 => out.i32(number::integer(text)?),
            Codec::Int64 => out.i64(number::integer(text)?),
            Codec::Int16 => out.i16(number::integer(text)?),
            Codec::Bool => out.bool(match text {
                b"t" => true,
                b"f" => false,
                _ => return Err(Unfit::Type("it is neither t nor f")),
            }),
            Codec::Float32 => out.f32(number::float(text)?),
            Codec::Float64 => out.f64(number::float(text)?),
            Codec::Enum(labels) => {
                let label = utf8(text)?;
                if !labels.iter().any(|known| known == label) {
                    return Err(Unfit::Label);
                }
                out.string(label);
            }
            Codec::Decimal { scale } => number::decimal(text, *scale, out)?,
            Codec::VariableDecimal => number::variable_decimal(text, out)?,
            Codec::MoneyDecimal { scale } => {
                number::decimal(number::money(text, *scale)?.as_bytes(), *scale, out)?;
            }
            Codec::MoneyText { scale } => out.string(&number::money(text, *scale)?),
            Codec::MoneyDouble { scale } => out.f64(number::float(number::money(text, *scale)?.as_bytes())?),
            Codec::Bytea(mode) => write_bytea(text, *mode, out)?,
            Codec::Bit => out.bool(match text {
                b"1" => true,
                b"0" => false,
                _ => return Err(Unfit::Type("it is not one bit")),
            }),
            Codec::Bits => bits::bits(text, out)?,
            Codec::Date => out.i32(temporal::date(text)?),
            Codec::TimeMillis => out.i32((temporal::time(text)? / 1000) as i32), // a day has 86,400,000
            Codec::TimeMicros => out.i64(temporal::time(text)?),
            Codec::TimeTz => temporal::time_with_zone(text, out)?,
            Codec::TimestampMillis => out.i64(temporal::timestamp_millis(text)?),
            Codec::TimestampMicros => out.i64(temporal::timestamp_micros(text)?),
            Codec::TimestampTz { digits } => temporal::timestamp_with_zone(text, *digits, out)?,
            Codec::IntervalMicros => out.i64(temporal::interval(text)?.approximate_micros()?),
            Codec::IntervalText => match temporal::interval(text) {
                Ok(interval) => out.string(&interval.to_string()),
                // PostgreSQL 17 knows infinite ones.
                Err(_) if text == b"infinity" || text == b"-infinity" => out.string(utf8(text)?),
                Err(unfit) => return Err(unfit),
            },
            Codec::HstoreJson => hstore::json(text, out)?,
            Codec::HstoreMap => hstore::map(text, out)?,
            Codec::Array { element, delimiter } => array::write(text, element, *delimiter, out)?,
        }
        Ok(())
    }

    /// Whether the type has room for something that stands for a value PostgreSQL did not send.
    pub(crate) fn has_placeholder(&self) -> bool {
        match self {
            Codec::Text
            | Codec::Enum(_)
            | Codec::HstoreJson
            | Codec::HstoreMap
            | Codec::MoneyText { .. }
            | Codec::IntervalText
            | Codec::Bytea(_) => true,
            Codec::Array { element, .. } => **element == Codec::Text,
            _ => false,
        }
    }

    /// Writes what stands for a value that PostgreSQL did not send, where the type
    /// [has room](Self::has_placeholder) for it.
    pub(crate) fn write_placeholder(&self, placeholder: &str, out: &mut ValueWriter<'_>) {
        match self {
            Codec::Bytea(BinaryMode::Bytes) => out.bytes(placeholder.as_bytes()),
            Codec::Bytea(BinaryMode::Base64) => out.string(&STANDARD.encode(placeholder)),
            Codec::Bytea(BinaryMode::Base64UrlSafe) => out.string(&URL_SAFE.encode(placeholder)),
            Codec::Bytea(BinaryMode::Hex) => {
                let open = out.begin();
                for byte in placeholder.bytes() {
                    out.raw(format!("{byte:02x}").as_bytes());
                }
                out.end(open);
            }
            Codec::HstoreMap => {
                let open = out.begin_counted(1);
                out.string(placeholder);
                out.present();
                out.string(placeholder);
                out.end(open);
            }
            Codec::Array { .. } => {
                let open = out.begin_counted(1);
                out.present();
                out.string(placeholder);
                out.end(open);
            }
            _ => out.string(placeholder),
        }
    }
}

/// `bytes` as text.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, Unfit> {
    std::str::from_utf8(bytes).map_err(|_| Unfit::Encoding)
}

fn write_bytea(text: &[u8], mode: BinaryMode, out: &mut ValueWriter<'_>) -> Fit {
    match mode {
        BinaryMode::Hex => {
            bits::hex(text)?;
            out.string(utf8(&text[2..])?);
        }
        BinaryMode::Bytes => {
            let open = out.begin();
            bits::hex_into(text, |chunk| out.raw(chunk))?;
            out.end(open);
        }
        BinaryMode::Base64 => out.string(&STANDARD.encode(bits::hex(text)?)),
        BinaryMode::Base64UrlSafe => out.string(&URL_SAFE.encode(bits::hex(text)?)),
    }
    Ok(())
}
