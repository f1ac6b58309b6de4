//! Dates, times, timestamps and intervals, in the forms of `DateStyle=ISO`, `IntervalStyle=iso_8601`, `TimeZone=UTC`.
//!
//! Infinity: a date is the least or greatest 32-bit integer; a timestamp is [`INFINITY`] or [`NEGATIVE_INFINITY`], the
//! numbers that PostgreSQL's JDBC driver made customary; a timestamp with time zone is `infinity` or `-infinity`.

use std::fmt;

use tidewater_plugin_api::ValueWriter;

use super::{Fit, Unfit, utf8};

/// The timestamp `infinity`, in milliseconds and in microseconds alike.
pub(crate) const INFINITY: i64 = 9_223_372_036_825_200_000;
/// The timestamp `-infinity`.
pub(crate) const NEGATIVE_INFINITY: i64 = -9_223_372_036_832_400_000;

const MICROS_PER_DAY: i64 = 86_400_000_000;
const NOT_DATE: Unfit = Unfit::Type("it is not a date in ISO style");
const NOT_TIME: Unfit = Unfit::Type("it is not a time in ISO style");
const NOT_INTERVAL: Unfit = Unfit::Type("it is not an interval in ISO style that the type can hold");
const BEYOND: Unfit = Unfit::Type("64 bits of microseconds cannot hold it (time.precision.mode=connect can)");

/// What is left of a text.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Takes a number of `min` to `max` digits.
    fn digits(&mut self, min: usize, max: usize) -> Option<i64> {
        let count = self
            .0
            .iter()
            .take(max)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if count < min {
            return None;
        }
        let value = self.0[..count]
            .iter()
            .fold(0, |value, byte| value * 10 + i64::from(byte - b'0'));
        self.0 = &self.0[count..];
        Some(value)
    }

    /// Takes `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let next = self.0.first() == Some(&byte);
        if next {
            self.0 = &self.0[1..];
        }
        next
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// A year, month and day.
    fn date(&mut self) -> Option<(i64, i64, i64)> {
        let year = self.digits(4, 7)?;
        self.expect(b'-')?;
        let month = self.digits(2, 2)?;
        self.expect(b'-')?;
        let day = self.digits(2, 2)?;
        ((1..=12).contains(&month) && (1..=31).contains(&day)).then_some((year, month, day))
    }

    /// Microseconds since midnight; 24:00:00 is a time too.
    fn time(&mut self) -> Option<i64> {
        let hour = self.digits(2, 2)?;
        self.expect(b':')?;
        let minute = self.digits(2, 2)?;
        self.expect(b':')?;
        let second = self.digits(2, 2)?;
        let micros = if self.take(b'.') { self.fraction()? } else { 0 };
        (hour <= 24 && minute < 60 && second <= 60)
            .then_some((hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
    }

    /// One to six digits after a point, in millionths.
    fn fraction(&mut self) -> Option<i64> {
        let before = self.0.len();
        let value = self.digits(1, 6)?;
        let digits = before - self.0.len();
        Some(value * 10_i64.pow(6 - digits as u32))
    }

    /// Whether the year counts before Christ; nothing may be left afterwards.
    fn era(&mut self) -> Option<bool> {
        match self.0 {
            b"" => Some(false),
            b" BC" => Some(true),
            _ => None,
        }
    }
}

/// Days from 1970-01-01 to the day of the proleptic Gregorian calendar. Years count from a March, so that leap days end
/// them, in eras of 400 years.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The year as astronomers count: 1 BC is 0.
fn astronomical(year: i64, before_christ: bool) -> i64 {
    if before_christ { 1 - year } else { year }
}

/// Days since 1970.
pub(crate) fn date(text: &[u8]) -> Result<i32, Unfit> {
    match text {
        b"infinity" => return Ok(i32::MAX),
        b"-infinity" => return Ok(i32::MIN),
        _ => {}
    }
    let mut rest = Rest(text);
    let (year, month, day) = rest.date().ok_or(NOT_DATE)?;
    let year = astronomical(year, rest.era().ok_or(NOT_DATE)?);
    i32::try_from(days_since_1970(year, month, day)).map_err(|_| NOT_DATE)
}

/// Microseconds since midnight.
pub(crate) fn time(text: &[u8]) -> Result<i64, Unfit> {
    let mut rest = Rest(text);
    rest.time().filter(|_| rest.0.is_empty()).ok_or(NOT_TIME)
}

/// Writes a time with its own offset as ISO 8601 does: `12:00:00+02:00`, `12:00:00Z`.
pub(crate) fn time_with_zone(text: &[u8], out: &mut ValueWriter<'_>) -> Fit {
    let at = text
        .iter()
        .position(|byte| matches!(byte, b'+' | b'-'))
        .ok_or(NOT_TIME)?;
    let (clock, offset) = text.split_at(at);
    time(clock)?;
    let mut rest = Rest(&offset[1..]);
    rest.digits(2, 2).ok_or(NOT_TIME)?;
    while !rest.0.is_empty() {
        rest.expect(b':')
            .and_then(|()| rest.digits(2, 2))
            .ok_or(NOT_TIME)?;
    }
    let open = out.begin();
    out.raw(clock);
    match offset {
        b"+00" => out.raw(b"Z"),
        [_, _, _] => {
            out.raw(offset);
            out.raw(b":00");
        }
        _ => out.raw(offset),
    }
    out.end(open);
    Ok(())
}

/// Days since 1970 and microseconds of the day; the infinities as none and their numbers.
fn timestamp(text: &[u8]) -> Result<Result<(i64, i64), i64>, Unfit> {
    match text {
        b"infinity" => return Ok(Err(INFINITY)),
        b"-infinity" => return Ok(Err(NEGATIVE_INFINITY)),
        _ => {}
    }
    let mut rest = Rest(text);
    let parts = rest.date().and_then(|date| {
        rest.expect(b' ')?;
        Some((date, rest.time()?))
    });
    let ((year, month, day), micros) = parts.ok_or(NOT_DATE)?;
    let year = astronomical(year, rest.era().ok_or(NOT_DATE)?);
    Ok(Ok((days_since_1970(year, month, day), micros)))
}

/// Microseconds since 1970.
pub(crate) fn timestamp_micros(text: &[u8]) -> Result<i64, Unfit> {
    match timestamp(text)? {
        Ok((days, micros)) => days
            .checked_mul(MICROS_PER_DAY)
            .and_then(|days| days.checked_add(micros))
            .ok_or(BEYOND),
        Err(infinity) => Ok(infinity),
    }
}

/// Milliseconds since 1970, rounded down.
pub(crate) fn timestamp_millis(text: &[u8]) -> Result<i64, Unfit> {
    match timestamp(text)? {
        Ok((days, micros)) => Ok(days * (MICROS_PER_DAY / 1000) + micros / 1000),
        Err(infinity) => Ok(infinity),
    }
}

/// Writes a timestamp in UTC as ISO 8601 does, with `digits` of the second's fraction. Years before 0000 and after 9999
/// have a sign; 1 BC is 0000.
pub(crate) fn timestamp_with_zone(text: &[u8], digits: usize, out: &mut ValueWriter<'_>) -> Fit {
    if matches!(text, b"infinity" | b"-infinity") {
        out.string(utf8(text)?);
        return Ok(());
    }
    let (zoned, before_christ) = match text.strip_suffix(b" BC") {
        Some(zoned) => (zoned, true),
        None => (text, false),
    };
    let local = zoned
        .strip_suffix(b"+00")
        .ok_or(Unfit::Type("it is not a timestamp in UTC in ISO style"))?;
    timestamp(local)?.map_err(|_| NOT_DATE)?;
    // The parse has made sure of the form: a year, a dash, and so on up to one space.
    let dash = local.iter().position(|&byte| byte == b'-').ok_or(NOT_DATE)?;
    let space = local.iter().position(|&byte| byte == b' ').ok_or(NOT_DATE)?;
    let open = out.begin();
    if before_christ || dash > 4 {
        let year = astronomical(Rest(&local[..dash]).digits(4, 7).ok_or(NOT_DATE)?, before_christ);
        let text = match year {
            0 => "0000".to_owned(),
            ..0 => format!("-{:04}", -year),
            _ => format!("+{year}"),
        };
        out.raw(text.as_bytes());
    } else {
        out.raw(&local[..dash]);
    }
    out.raw(&local[dash..space]);
    out.raw(b"T");
    let clock = &local[space + 1..];
    let (clock, fraction) = clock.split_at(clock.len().min(8));
    out.raw(clock);
    let fraction = fraction.strip_prefix(b".").unwrap_or_default();
    if digits.max(fraction.len()) > 0 {
        out.raw(b".");
        out.raw(fraction);
        out.raw(&b"000000"[..digits.clamp(fraction.len(), 6) - fraction.len()]);
    }
    out.raw(b"Z");
    out.end(open);
    Ok(())
}

/// An interval, in the parts that PostgreSQL keeps apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interval {
    months: i64,
    days: i64,
    micros: i64,
}

impl Interval {
    /// Microseconds, a month taken as 30.4375 days.
    pub(crate) fn approximate_micros(self) -> Result<i64, Unfit> {
        let months = self.months.checked_mul(2_629_800_000_000);
        let days = self.days.checked_mul(MICROS_PER_DAY);
        months
            .zip(days)
            .and_then(|(months, days)| months.checked_add(days)?.checked_add(self.micros))
            .ok_or(NOT_INTERVAL)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (years, months, days) = (self.months / 12, self.months % 12, self.days);
        let seconds = self.micros / 1_000_000;
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let fraction = (self.micros % 1_000_000).abs();
        let sign = if self.micros < 0 && seconds == 0 && fraction != 0 {
            "-"
        } else {
            ""
        };
        write!(f, "P{years}Y{months}M{days}DT{hours}H{minutes}M{sign}{seconds}")?;
        if fraction != 0 {
            write!(f, ".{}", format!("{fraction:06}").trim_end_matches('0'))?;
        }
        f.write_str("S")
    }
}

/// An interval such as `P1Y2M-3DT4H5M6.7S`; each part may have its own sign.
pub(crate) fn interval(text: &[u8]) -> Result<Interval, Unfit> {
    parse_interval(text).ok_or(NOT_INTERVAL)
}

fn parse_interval(text: &[u8]) -> Option<Interval> {
    let mut rest = Rest(text.strip_prefix(b"P")?);
    let mut interval = Interval::default();
    let mut in_time = false;
    while !rest.0.is_empty() {
        if rest.take(b'T') {
            in_time = true;
            continue;
        }
        let sign = if rest.take(b'-') { -1 } else { 1 };
        let whole = rest.digits(1, 18)?;
        let fraction = if rest.take(b'.') { rest.fraction()? } else { 0 };
        let (unit, after) = rest.0.split_first()?;
        rest.0 = after;
        let part = |scale: i64| whole.checked_mul(scale)?.checked_mul(sign);
        let total = match (in_time, unit) {
            (false, b'Y' | b'M') => &mut interval.months,
            (false, b'W' | b'D') => &mut interval.days,
            (true, b'H' | b'M' | b'S') => &mut interval.micros,
            _ => return None,
        };
        let value = match (in_time, unit) {
            (false, b'Y') => part(12)?,
            (false, b'W') => part(7)?,
            (false, _) => part(1)?,
            (true, b'H') => part(3_600_000_000)?,
            (true, b'M') => part(60_000_000)?,
            (true, _) => part(1_000_000)?.checked_add(sign * fraction)?,
        };
        *total = total.checked_add(value)?;
    }
    Some(interval)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zoned(text: &str, digits: usize) -> Result<String, Unfit> {
        let mut buffer = Vec::new();
        timestamp_with_zone(text.as_bytes(), digits, &mut ValueWriter::new(&mut buffer))?;
        Ok(String::from_utf8(buffer[4..].to_vec()).unwrap())
    }

    #[test]
    fn dates_of_all_ages() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("0001-12-31 BC", -719_163),
            ("4714-11-24 BC", -2_440_588),
            ("5874897-12-31", 2_145_042_905),
            ("infinity", i32::MAX),
            ("-infinity", i32::MIN),
        ] {
            assert_eq!(date(text.as_bytes()), Ok(days), "{text}");
        }
        for bad in [
            "",
            "2000-1-1",
            "2000-01-01 AD",
            "2000-13-01",
            "2000/01/01",
            "99999999-01-01",
        ] {
            assert!(date(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_to_midnight_and_with_offsets() {
        assert_eq!(time(b"24:00:00"), Ok(MICROS_PER_DAY));
        assert_eq!(time(b"01:02:03.4"), Ok(3_723_400_000));
        for (text, iso) in [
            ("12:00:00+00", "12:00:00Z"),
            ("12:00:00.5-07:30", "12:00:00.5-07:30"),
            ("24:00:00+02", "24:00:00+02:00"),
        ] {
            let mut buffer = Vec::new();
            time_with_zone(text.as_bytes(), &mut ValueWriter::new(&mut buffer)).unwrap();
            assert_eq!(std::str::from_utf8(&buffer[4..]), Ok(iso));
        }
    }

    #[test]
    fn timestamps_at_their_ends() {
        assert_eq!(
            timestamp_micros(b"1970-01-02 00:00:00.000001"),
            Ok(MICROS_PER_DAY + 1)
        );
        assert_eq!(timestamp_millis(b"1969-12-31 23:59:59.9999"), Ok(-1));
        assert_eq!(timestamp_micros(b"infinity"), Ok(INFINITY));
        assert_eq!(timestamp_micros(b"294276-12-31 23:59:59.999999"), Err(BEYOND));
        assert_eq!(
            timestamp_millis(b"294276-12-31 23:59:59.999999"),
            Ok(9_224_318_015_999_999)
        );
        assert_eq!(
            zoned("294276-12-31 23:59:59.999999+00", 6).unwrap(),
            "+294276-12-31T23:59:59.999999Z"
        );
        assert_eq!(
            zoned("0044-03-15 12:00:00+00 BC", 6).unwrap(),
            "-0043-03-15T12:00:00.000000Z"
        );
        assert_eq!(
            zoned("0001-01-01 00:00:00+00 BC", 0).unwrap(),
            "0000-01-01T00:00:00Z"
        );
        assert_eq!(
            zoned("2024-05-06 07:08:09.1+00", 3).unwrap(),
            "2024-05-06T07:08:09.100Z"
        );
        assert_eq!(zoned("-infinity", 6).unwrap(), "-infinity");
    }

    #[test]
    fn intervals_with_signs_of_their_own() {
        let parse = |text: &str| interval(text.as_bytes()).unwrap();
        assert_eq!(parse("P1Y2M-3DT4H5M6.7S").to_string(), "P1Y2M-3DT4H5M6.7S");
        assert_eq!(parse("PT0S").to_string(), "P0Y0M0DT0H0M0S");
        assert_eq!(parse("PT-0.5S").to_string(), "P0Y0M0DT0H0M-0.5S");
        assert_eq!(parse("P1M").approximate_micros(), Ok(2_629_800_000_000));
        assert_eq!(parse("P178000000Y").approximate_micros(), Err(NOT_INTERVAL));
        for bad in ["", "1 day", "P", "PT1", "P1H", "PTM"] {
            assert!(interval(bad.as_bytes()).is_err() || bad == "P", "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut buffer = Vec::new();
            let mut out = ValueWriter::new(&mut buffer);
            let _ = (date(&text), time(&text), timestamp_micros(&text), timestamp_millis(&text), interval(&text));
            let _ = time_with_zone(&text, &mut out);
            let _ = timestamp_with_zone(&text, 6, &mut out);
        }

        #[test]
        fn text_of_the_right_letters_never_panics(text in "[-+PTYMWDHS0-9:. BC]{0,60}") {
            let mut buffer = Vec::new();
            let mut out = ValueWriter::new(&mut buffer);
            let text = text.as_bytes();
            let _ = (date(text), time(text), timestamp_micros(text), timestamp_millis(text));
            let _ = interval(text).map(|interval| (interval.approximate_micros(), interval.to_string()));
            let _ = time_with_zone(text, &mut out);
            let _ = timestamp_with_zone(text, 3, &mut out);
        }
    }
}
