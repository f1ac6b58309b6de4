//! Dates, times and timestamps as Postgres reads them: any year it knows, BC, 24:00 and the infinities.

use super::text::TextError;

/// What Debezium sends for a timestamp of `infinity` and `-infinity`, in microseconds since 1970: the values of the
/// PostgreSQL JDBC driver.
const INFINITE_MICROS: (i64, i64) = (9_223_372_036_825_200_000, -9_223_372_036_832_400_000);
/// The same as ISO 8601 text, up to where writers differ in trailing zeros.
const INFINITE_ZONED: (&str, &str) = ("+294247-01-10T04:00:25.2", "-290308-12-21T19:59:27.6");

const INFINITY: &[u8] = b"infinity";
const NEGATIVE_INFINITY: &[u8] = b"-infinity";
const SECONDS_OF_DAY: i64 = 86_400;

/// Appends the date that is `days` after 1970-01-01; the ends of the range are the infinities.
pub fn write_date(days: i32, out: &mut Vec<u8>) {
    match days {
        i32::MAX => out.extend_from_slice(INFINITY),
        i32::MIN => out.extend_from_slice(NEGATIVE_INFINITY),
        days => {
            if write_year_month_day(days.into(), out) {
                out.extend_from_slice(b" BC");
            }
        }
    }
}

/// Appends the time `value` units after midnight, of which `per_second` make a second.
pub fn write_time(value: i64, per_second: i64, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let value = value.unsigned_abs();
    let per_second = per_second.unsigned_abs();
    write_clock(value / per_second, value % per_second, per_second, out);
}

/// Appends the timestamp `value` units after 1970-01-01 00:00, of which `per_second` make a second.
pub fn write_timestamp(value: i64, per_second: i64, out: &mut Vec<u8>) {
    let (infinity, negative_infinity) = INFINITE_MICROS;
    let is = |infinity: i64, end: i64| match per_second {
        1_000_000 => value == infinity || value == end,
        // Some writers send the microseconds here, too; as milliseconds they would be no year at all.
        1_000 => value == infinity / 1000 || value == infinity || value == end,
        _ => value == end,
    };
    if is(infinity, i64::MAX) {
        return out.extend_from_slice(INFINITY);
    }
    if is(negative_infinity, i64::MIN) {
        return out.extend_from_slice(NEGATIVE_INFINITY);
    }
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let before_christ = write_year_month_day(seconds.div_euclid(SECONDS_OF_DAY), out);
    out.push(b' ');
    write_clock(
        seconds.rem_euclid(SECONDS_OF_DAY).unsigned_abs(),
        fraction.unsigned_abs(),
        per_second.unsigned_abs(),
        out,
    );
    if before_christ {
        out.extend_from_slice(b" BC");
    }
}

/// Appends an ISO 8601 timestamp with offset, whose years may carry a sign, as Java writes it.
pub fn write_zoned_timestamp(text: &str, out: &mut Vec<u8>) -> Result<(), TextError> {
    if text.starts_with(INFINITE_ZONED.0) {
        out.extend_from_slice(INFINITY);
    } else if text.starts_with(INFINITE_ZONED.1) {
        out.extend_from_slice(NEGATIVE_INFINITY);
    } else if let Some(positive) = text.strip_prefix('+') {
        out.extend_from_slice(positive.as_bytes());
    } else if text.starts_with("-i") {
        out.extend_from_slice(text.as_bytes());
    } else if text.starts_with('-') || text.starts_with("0000-") {
        // ISO's year 0 is 1 BC, its year -1 is 2 BC.
        let (year, rest) = text
            .trim_start_matches('-')
            .split_once('-')
            .ok_or_else(|| TextError(format!("{text:?} is no timestamp")))?;
        let year: u32 = year
            .parse()
            .map_err(|_| TextError(format!("{text:?} has no year that can be read")))?;
        write_padded(u64::from(year) + 1, 4, out);
        out.push(b'-');
        out.extend_from_slice(rest.as_bytes());
        out.extend_from_slice(b" BC");
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    Ok(())
}

/// Appends the date `days` after 1970-01-01 and tells whether it lies before Christ.
fn write_year_month_day(days: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = civil(days);
    let before_christ = year <= 0;
    write_padded(
        (if before_christ { 1 - year } else { year }).unsigned_abs(),
        4,
        out,
    );
    out.push(b'-');
    write_padded(month, 2, out);
    out.push(b'-');
    write_padded(day, 2, out);
    before_christ
}

/// Year, month and day in the proleptic Gregorian calendar. Eras of 400 years repeat exactly, and a year that begins in
/// March has its leap day at its end.
fn civil(days: i64) -> (i64, u64, u64) {
    const DAYS_OF_ERA: i64 = 146_097;
    let shifted = days + 719_468; // days since 0000-03-01
    let era = shifted.div_euclid(DAYS_OF_ERA);
    let day_of_era = shifted.rem_euclid(DAYS_OF_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month.unsigned_abs(), day.unsigned_abs())
}

fn write_clock(seconds: u64, fraction: u64, per_second: u64, out: &mut Vec<u8>) {
    write_padded(seconds / 3600, 2, out);
    out.push(b':');
    write_padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    write_padded(seconds % 60, 2, out);
    if fraction > 0 {
        out.push(b'.');
        write_padded(fraction, per_second.ilog10() as usize, out);
    }
}

fn write_padded(number: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number).as_bytes();
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (2_932_897, "10000-01-01"),
            (-719_528, "0001-01-01 BC"),
            (-719_162, "0001-01-01"),
            (-2_440_588, "4714-11-24 BC"),
            (2_145_042_905, "5874897-12-31"),
            (i32::MAX, "infinity"),
            (i32::MIN, "-infinity"),
        ] {
            assert_eq!(text(|out| write_date(days, out)), expected);
        }
    }

    #[test]
    fn times() {
        for (value, per_second, expected) in [
            (0, 1_000, "00:00:00"),
            (86_400_000_000, 1_000_000, "24:00:00"),
            (86_399_999_999, 1_000_000, "23:59:59.999999"),
            (1_001, 1_000, "00:00:01.001"),
            (1_000_000_001, 1_000_000_000, "00:00:01.000000001"),
        ] {
            assert_eq!(text(|out| write_time(value, per_second, out)), expected);
        }
    }

    #[test]
    fn timestamps() {
        const MICRO: i64 = 1_000_000;
        for (value, per_second, expected) in [
            (-1, MICRO, "1969-12-31 23:59:59.999999"),
            (1_582_934_400_123, 1_000, "2020-02-29 00:00:00.123"),
            (-62_167_219_200_000_000, MICRO, "0001-01-01 00:00:00 BC"),
            (9_223_372_036_854_775_806, MICRO, "294247-01-10 04:00:54.775806"),
            (9_223_372_036_825_200_000, MICRO, "infinity"),
            (-9_223_372_036_832_400_000, MICRO, "-infinity"),
            (9_223_372_036_825_200, 1_000, "infinity"),
            (-9_223_372_036_832_400_000, 1_000, "-infinity"),
            (i64::MIN, 1_000_000_000, "-infinity"),
        ] {
            assert_eq!(text(|out| write_timestamp(value, per_second, out)), expected);
        }
    }

    #[test]
    fn zoned_timestamps() {
        for (given, expected) in [
            ("2020-02-29T01:02:03.5Z", "2020-02-29T01:02:03.5Z"),
            ("+10000-01-01T00:00:00Z", "10000-01-01T00:00:00Z"),
            ("0000-06-01T00:00:00Z", "0001-06-01T00:00:00Z BC"),
            ("-0043-03-15T12:00:00+01:00", "0044-03-15T12:00:00+01:00 BC"),
            ("+294247-01-10T04:00:25.200Z", "infinity"),
            ("-290308-12-21T19:59:27.6Z", "-infinity"),
            ("infinity", "infinity"),
            ("-infinity", "-infinity"),
        ] {
            assert_eq!(text(|out| write_zoned_timestamp(given, out).unwrap()), expected);
        }
        assert!(write_zoned_timestamp("-x", &mut Vec::new()).is_err());
    }
}
