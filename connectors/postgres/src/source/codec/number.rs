//! Integers, floating-point numbers, `numeric` and `money`.

use std::str::FromStr;

use tidewater_plugin_api::ValueWriter;
use tidewater_plugin_api::json::decimal_from_str;

use super::{Fit, Unfit, utf8};

const NOT_INTEGER: Unfit = Unfit::Type("it is not an integer of the type's range");
const NOT_DECIMAL: Unfit = Unfit::Type("a decimal cannot hold it (decimal.handling.mode=string can)");

/// An integer that fits `N`.
pub(crate) fn integer<N: TryFrom<i64>>(text: &[u8]) -> Result<N, Unfit> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 {
        return Err(NOT_INTEGER);
    }
    // Counted down: the least 64-bit integer has no positive counterpart.
    let mut value: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return Err(NOT_INTEGER);
        }
        let next = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(i64::from(byte - b'0')));
        value = next.ok_or(NOT_INTEGER)?;
    }
    let value = if negative {
        value
    } else {
        value.checked_neg().ok_or(NOT_INTEGER)?
    };
    N::try_from(value).map_err(|_| NOT_INTEGER)
}

/// A floating-point number, `NaN`, `Infinity` and `-Infinity` included.
pub(crate) fn float<F: FromStr>(text: &[u8]) -> Result<F, Unfit> {
    utf8(text)?
        .parse()
        .map_err(|_| Unfit::Type("it is not a floating-point number"))
}

/// Writes a decimal's unscaled bytes at `scale`.
pub(crate) fn decimal(text: &[u8], scale: i32, out: &mut ValueWriter<'_>) -> Fit {
    if let Some((unscaled, digits)) = small(text)
        && digits == scale
    {
        write_shortest(unscaled, out);
        return Ok(());
    }
    out.bytes(
        &plain(text)
            .and_then(|text| decimal_from_str(text, scale))
            .ok_or(NOT_DECIMAL)?,
    );
    Ok(())
}

/// Writes the struct of scale and unscaled bytes.
pub(crate) fn variable_decimal(text: &[u8], out: &mut ValueWriter<'_>) -> Fit {
    let open = out.begin();
    if let Some((unscaled, scale)) = small(text) {
        out.i32(scale);
        write_shortest(unscaled, out);
    } else {
        let text = plain(text).ok_or(NOT_DECIMAL)?;
        let scale = text
            .split_once('.')
            .map_or(0, |(_, fraction)| fraction.len() as i32);
        out.i32(scale);
        out.bytes(&decimal_from_str(text, scale).ok_or(NOT_DECIMAL)?);
    }
    out.end(open);
    Ok(())
}

/// The unscaled value and scale of a number of at most 18 digits: nearly all there are.
fn small(text: &[u8]) -> Option<(i64, i32)> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    let (mut unscaled, mut scale) = (0_i64, None);
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                unscaled = unscaled * 10 + i64::from(byte - b'0');
                scale = scale.map(|scale: i32| scale + 1);
            }
            b'.' if scale.is_none() => scale = Some(0),
            _ => return None,
        }
    }
    Some((if negative { -unscaled } else { unscaled }, scale.unwrap_or(0)))
}

/// `text` where it is digits with a sign and a point at most: the form in which PostgreSQL writes finite numbers.
fn plain(text: &[u8]) -> Option<&str> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let mut parts = digits.split(|&byte| byte == b'.');
    let (whole, fraction, more) = (parts.next()?, parts.next().unwrap_or_default(), parts.next());
    let fits = more.is_none()
        && whole.len() + fraction.len() > 0
        && whole.iter().chain(fraction).all(u8::is_ascii_digit);
    if fits {
        std::str::from_utf8(text).ok()
    } else {
        None
    }
}

/// Writes the shortest two's-complement big-endian bytes.
fn write_shortest(value: i64, out: &mut ValueWriter<'_>) {
    let bytes = value.to_be_bytes();
    // One bit more than the magnitude needs: the sign.
    let bits = 65
        - if value < 0 {
            (!value).leading_zeros()
        } else {
            value.leading_zeros()
        } as usize;
    out.bytes(&bytes[8 - bits.div_ceil(8).min(8)..]);
}

/// The plain number in `money`'s text of the locale C, such as `-$1,234.56`. The text always has two digits of a
/// fraction; the database's own locale says how many of its digits are one (`scale`).
pub(crate) fn money(text: &[u8], scale: i32) -> Result<String, Unfit> {
    let mut digits = String::with_capacity(text.len() + 2);
    let negative = text.iter().any(|byte| matches!(byte, b'-' | b'('));
    for &byte in text {
        match byte {
            b'0'..=b'9' => digits.push(char::from(byte)),
            b'-' | b'(' | b')' | b'$' | b',' | b'.' | b' ' => {}
            _ => return Err(Unfit::Type("it is not money in the locale C")),
        }
    }
    let scale = usize::try_from(scale).unwrap_or(0);
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if negative { "-" } else { "" };
    Ok(if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidewater_plugin_api::json::decimal_to_string;

    fn unscaled(text: &str, scale: i32) -> Result<Vec<u8>, Unfit> {
        let mut buffer = Vec::new();
        decimal(text.as_bytes(), scale, &mut ValueWriter::new(&mut buffer))?;
        Ok(buffer[4..].to_vec())
    }

    #[test]
    fn integers_keep_to_their_range() {
        assert_eq!(integer::<i64>(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(integer::<i64>(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(integer::<i64>(b"9223372036854775808"), Err(NOT_INTEGER));
        assert_eq!(integer::<i16>(b"-32768"), Ok(i16::MIN));
        assert_eq!(integer::<i16>(b"32768"), Err(NOT_INTEGER));
        for bad in ["", "-", "1a", "+1", " 1"] {
            assert_eq!(integer::<i32>(bad.as_bytes()), Err(NOT_INTEGER), "{bad}");
        }
    }

    #[test]
    fn decimals_that_do_not_fit_are_said_to() {
        for bad in ["NaN", "Infinity", "-Infinity", "", "-", ".", "1.2.3", "1e5"] {
            assert!(unscaled(bad, 2).is_err(), "{bad}");
        }
        assert_eq!(unscaled("1.234", 2), Err(NOT_DECIMAL));
        assert_eq!(unscaled("-12300", -2), Ok(vec![0x85]));
    }

    #[test]
    fn money_follows_the_database_s_own_digits() {
        assert_eq!(money(b"-$1,234.56", 2).unwrap(), "-1234.56");
        assert_eq!(money(b"$1,234.56", 0).unwrap(), "123456");
        assert_eq!(money(b"$0.05", 2).unwrap(), "0.05");
        assert_eq!(money(b"$0.05", 3).unwrap(), "0.005");
    }

    proptest! {
        #[test]
        fn decimals_come_back(whole in "-?[1-9][0-9]{0,40}", fraction in "[0-9]{0,30}") {
            let text = if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") };
            let scale = fraction.len() as i32;
            prop_assert_eq!(decimal_to_string(&unscaled(&text, scale).unwrap(), scale), text);
        }

        #[test]
        fn the_short_way_and_the_long_way_agree(value in any::<i64>(), scale in 0..6) {
            let text = decimal_to_string(&value.to_be_bytes(), scale);
            prop_assert_eq!(unscaled(&text, scale).unwrap(), decimal_from_str(&text, scale).unwrap());
        }

        #[test]
        fn arbitrary_text_never_panics(text in proptest::collection::vec(any::<u8>(), 0..30), scale in -5..10) {
            let mut buffer = Vec::new();
            let mut out = ValueWriter::new(&mut buffer);
            let _ = decimal(&text, scale, &mut out);
            let _ = variable_decimal(&text, &mut out);
            let _ = money(&text, scale);
            let _ = integer::<i32>(&text);
        }
    }
}
