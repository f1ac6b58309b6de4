//! Floating point numbers as text, as Java writes them and its users' data has them: `1.0`, `1.0E10`, `NaN`.

/// A single as text.
pub(crate) fn float_text(number: f32) -> String {
    text(f64::from(number), &format!("{number:e}"))
}

/// A double as text.
pub(crate) fn double_text(number: f64) -> String {
    text(number, &format!("{number:e}"))
}

/// Lays out the shortest digits that give the number back, which Rust's `scientific` form holds.
fn text(number: f64, scientific: &str) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let magnitude = number.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        // Rust's plain form has the same digits; Java always has one after the point. A float's own digits, not those of
        // the double it widens to, are in the scientific form.
        let plain = plain(scientific);
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let point = if mantissa.contains('.') { "" } else { ".0" };
    format!("{mantissa}{point}E{exponent}")
}

/// `1.25e2` as `125`.
fn plain(scientific: &str) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if exponent < 0 {
        let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
        return format!("{sign}0.{zeros}{digits}");
    }
    let point = whole.len() + exponent.unsigned_abs() as usize;
    if digits.len() <= point {
        let zeros = "0".repeat(point - digits.len());
        return format!("{sign}{digits}{zeros}");
    }
    format!("{sign}{}.{}", &digits[..point], &digits[point..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_java_writes_them() {
        let table = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (0.001, "0.001"),
            (0.000_12, "1.2E-4"),
            (123.25, "123.25"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (1.25e10, "1.25E10"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::MAX, "1.7976931348623157E308"),
        ];
        for (number, expected) in table {
            assert_eq!(double_text(number), expected);
        }
        assert_eq!(float_text(0.1), "0.1");
        assert_eq!(float_text(3.4e38), "3.4E38");
    }
}
