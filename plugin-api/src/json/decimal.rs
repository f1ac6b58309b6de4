//! Decimals between their unscaled bytes and text.

use num_bigint::BigInt;

/// The most digits a scale or an exponent may add: more than PostgreSQL's `numeric` (16,383) or any sensible number has.
const MAX_SHIFT: u32 = 20_000;

/// The decimal number of two's-complement big-endian `unscaled` bytes and `scale`, in plain digits.
pub fn decimal_to_string(unscaled: &[u8], scale: i32) -> String {
    let digits = if unscaled.len() <= 16 {
        let mut wide = if unscaled.first().is_some_and(|byte| byte & 0x80 != 0) {
            [0xff; 16]
        } else {
            [0; 16]
        };
        wide[16 - unscaled.len()..].copy_from_slice(unscaled);
        i128::from_be_bytes(wide).to_string()
    } else {
        BigInt::from_signed_bytes_be(unscaled).to_string()
    };
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits.as_str()),
    };
    // Where plain digits would be absurdly long, as a hostile scale asks for, the exponent stays.
    if scale.unsigned_abs() > MAX_SHIFT {
        return format!("{sign}{digits}E{}", -i64::from(scale));
    }
    let shift = scale.unsigned_abs() as usize;
    if scale <= 0 {
        let zeros = if digits == "0" { 0 } else { shift };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let padded = "0".repeat((shift + 1).saturating_sub(digits.len())) + digits;
    let (whole, fraction) = padded.split_at(padded.len() - shift);
    format!("{sign}{whole}.{fraction}")
}

/// The unscaled two's-complement big-endian bytes of the decimal number in `text` at `scale`.
pub fn decimal_from_str(text: &str, scale: i32) -> Option<Vec<u8>> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let well_formed = unsigned.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !well_formed || !unsigned.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = String::with_capacity(whole.len() + fraction.len() + 8);
    digits.push_str(whole);
    digits.push_str(fraction);
    let shift = scale
        .checked_add(exponent)?
        .checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if shift > 0 {
        if shift.unsigned_abs() > MAX_SHIFT {
            return None;
        }
        digits.extend(std::iter::repeat_n('0', shift as usize));
    } else if shift < 0 {
        let sign = usize::from(digits.starts_with(['-', '+']));
        let kept = digits
            .len()
            .saturating_sub(shift.unsigned_abs() as usize)
            .max(sign);
        if digits[kept..].bytes().any(|digit| digit != b'0') {
            return None; // the number has more digits than the scale holds
        }
        digits.truncate(kept);
        if digits.len() == sign {
            digits.push('0');
        }
    }
    if digits.len() <= 38
        && let Ok(number) = digits.parse::<i128>()
    {
        return Some(shortest(&number.to_be_bytes()));
    }
    Some(digits.parse::<BigInt>().ok()?.to_signed_bytes_be())
}

fn shortest(bytes: &[u8]) -> Vec<u8> {
    let mut start = 0;
    while start + 1 < bytes.len() {
        let redundant = (bytes[start] == 0 && bytes[start + 1] < 0x80)
            || (bytes[start] == 0xff && bytes[start + 1] >= 0x80);
        if !redundant {
            break;
        }
        start += 1;
    }
    bytes[start..].to_vec()
}
