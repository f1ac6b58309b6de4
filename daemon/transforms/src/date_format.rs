//! Patterns of Java's `SimpleDateFormat`, in UTC and in English, for the transforms whose configurations hold them.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;

const DAY_MILLIS: i64 = 86_400_000;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// A pattern, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DateFormat {
    pattern: String,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Literal(String),
    Field(Unit, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Era,
    Year,
    Month,
    Day,
    DayOfYear,
    DayName,
    DayNumber,
    HalfDay,
    Hour24,
    Hour1To24,
    Hour12,
    Hour0To11,
    Minute,
    Second,
    Millis,
    ZoneName,
    ZoneRfc822,
    ZoneIso,
}

impl Unit {
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'G' => Unit::Era,
            'y' => Unit::Year,
            'M' | 'L' => Unit::Month,
            'd' => Unit::Day,
            'D' => Unit::DayOfYear,
            'E' => Unit::DayName,
            'u' => Unit::DayNumber,
            'a' => Unit::HalfDay,
            'H' => Unit::Hour24,
            'k' => Unit::Hour1To24,
            'h' => Unit::Hour12,
            'K' => Unit::Hour0To11,
            'm' => Unit::Minute,
            's' => Unit::Second,
            'S' => Unit::Millis,
            'z' => Unit::ZoneName,
            'Z' => Unit::ZoneRfc822,
            'X' => Unit::ZoneIso,
            _ => return None,
        })
    }

    fn is_number(self, count: usize) -> bool {
        match self {
            Unit::Month => count < 3,
            Unit::Era | Unit::DayName | Unit::HalfDay | Unit::ZoneName | Unit::ZoneRfc822 | Unit::ZoneIso => {
                false
            }
            _ => true,
        }
    }
}

impl DateFormat {
    /// Reads a pattern; the error says what in it is not known.
    pub(crate) fn new(pattern: &str) -> Result<Self, String> {
        let mut items = Vec::new();
        let mut literal = String::new();
        let mut rest = pattern.chars().peekable();
        while let Some(letter) = rest.next() {
            if letter == '\'' {
                if rest.next_if_eq(&'\'').is_some() {
                    literal.push('\'');
                } else {
                    quoted(&mut rest, &mut literal)?;
                }
            } else if letter.is_ascii_alphabetic() {
                let mut count = 1;
                while rest.next_if_eq(&letter).is_some() {
                    count += 1;
                }
                let unit = Unit::of(letter).ok_or_else(|| {
                    format!(
                        "the letter {letter} is not supported; the letters are G y M L d D E u a H k h K m s S z Z X, and other \
                         text stands in single quotes"
                    )
                })?;
                if unit == Unit::ZoneIso && count > 3 {
                    return Err("X stands at most three times".into());
                }
                if !literal.is_empty() {
                    items.push(Item::Literal(std::mem::take(&mut literal)));
                }
                // Wider than anything, and no text a pattern could make us allocate.
                items.push(Item::Field(unit, count.min(32)));
            } else {
                literal.push(letter);
            }
        }
        if !literal.is_empty() {
            items.push(Item::Literal(literal));
        }
        Ok(Self {
            pattern: pattern.to_owned(),
            items,
        })
    }

    /// The pattern as it was written.
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Appends the time `millis` after 1970 in UTC; none where it lies beyond the years -9999 to 9999.
    pub(crate) fn format(&self, millis: i64, out: &mut String) -> Option<()> {
        let time = civil(millis)?;
        for item in &self.items {
            match item {
                Item::Literal(text) => out.push_str(text),
                Item::Field(unit, count) => write_field(*unit, *count, time, out),
            }
        }
        Some(())
    }

    /// The time that `text` begins with, in milliseconds after 1970; the error says what does not fit. What follows is
    /// ignored, as Java does.
    pub(crate) fn parse(&self, text: &str) -> Result<i64, String> {
        let mut parts = Parts::default();
        let mut rest = text;
        for (index, item) in self.items.iter().enumerate() {
            match item {
                Item::Literal(literal) => {
                    rest = rest
                        .strip_prefix(literal.as_str())
                        .ok_or_else(|| format!("{literal:?} is expected after {}", read(text, rest)))?;
                }
                Item::Field(unit, count) => {
                    // Digits that follow one another without a mark are told apart by their number.
                    let abuts =
                        matches!(self.items.get(index + 1), Some(Item::Field(next, n)) if next.is_number(*n));
                    let width = abuts.then_some(*count);
                    rest = parts.read(*unit, *count, width, rest).ok_or_else(|| {
                        format!("no {} is found after {}", unit_name(*unit), read(text, rest))
                    })?;
                }
            }
        }
        parts.millis()
    }
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, literal: &mut String) -> Result<(), String> {
    loop {
        match rest.next() {
            Some('\'') if rest.next_if_eq(&'\'').is_some() => literal.push('\''),
            Some('\'') => return Ok(()),
            Some(letter) => literal.push(letter),
            None => return Err("a single quote has no partner".into()),
        }
    }
}

/// How much was read, without telling what.
fn read(text: &str, rest: &str) -> String {
    match text.len() - rest.len() {
        0 => "the beginning".into(),
        read => format!("the first {read} bytes"),
    }
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Era => "era",
        Unit::Year => "year",
        Unit::Month => "month",
        Unit::Day | Unit::DayOfYear => "day",
        Unit::DayName | Unit::DayNumber => "day of the week",
        Unit::HalfDay => "AM or PM",
        Unit::Hour24 | Unit::Hour1To24 | Unit::Hour12 | Unit::Hour0To11 => "hour",
        Unit::Minute => "minute",
        Unit::Second => "second",
        Unit::Millis => "millisecond",
        Unit::ZoneName | Unit::ZoneRfc822 | Unit::ZoneIso => "time zone (UTC, GMT, Z or an offset)",
    }
}

/// The date and time in UTC.
fn civil(millis: i64) -> Option<DateTime> {
    let timestamp = Timestamp::from_millisecond(millis).ok()?;
    Some(timestamp.to_zoned(TimeZone::UTC).datetime())
}

fn write_field(unit: Unit, count: usize, time: DateTime, out: &mut String) {
    let number = |number: i64, width: usize| format!("{number:0width$}");
    let hour = i64::from(time.hour());
    let text = match unit {
        Unit::Era => if time.year() > 0 { "AD" } else { "BC" }.to_owned(),
        Unit::Year => {
            let year = i64::from(time.year());
            let year = if year > 0 { year } else { 1 - year };
            if count == 2 {
                number(year % 100, 2)
            } else {
                number(year, count)
            }
        }
        Unit::Month if count >= 3 => {
            let name = MONTHS[usize::from(time.month().unsigned_abs()) - 1];
            if count == 3 { &name[..3] } else { name }.to_owned()
        }
        Unit::Month => number(time.month().into(), count),
        Unit::Day => number(time.day().into(), count),
        Unit::DayOfYear => number(time.day_of_year().into(), count),
        Unit::DayName => {
            let name = DAYS[usize::from(weekday(time).unsigned_abs()) - 1];
            if count <= 3 { &name[..3] } else { name }.to_owned()
        }
        Unit::DayNumber => number(weekday(time).into(), count),
        Unit::HalfDay => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        Unit::Hour24 => number(hour, count),
        Unit::Hour1To24 => number(if hour == 0 { 24 } else { hour }, count),
        Unit::Hour12 => number(if hour % 12 == 0 { 12 } else { hour % 12 }, count),
        Unit::Hour0To11 => number(hour % 12, count),
        Unit::Minute => number(time.minute().into(), count),
        Unit::Second => number(time.second().into(), count),
        Unit::Millis => number(time.millisecond().into(), count),
        Unit::ZoneName if count < 4 => "UTC".to_owned(),
        Unit::ZoneName => "Coordinated Universal Time".to_owned(),
        Unit::ZoneRfc822 => "+0000".to_owned(),
        Unit::ZoneIso => "Z".to_owned(),
    };
    out.push_str(&text);
}

fn weekday(time: DateTime) -> i8 {
    let weekday: Weekday = time.weekday();
    weekday.to_monday_one_offset()
}

/// What a text has told so far.
#[derive(Default)]
struct Parts {
    before_christ: bool,
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: Option<i64>,
    half_day_hour: Option<i64>,
    afternoon: bool,
    minute: i64,
    second: i64,
    millis: i64,
    offset_minutes: i64,
}

impl Parts {
    /// Reads one field from the start of `text`; what is left.
    fn read<'a>(&mut self, unit: Unit, count: usize, width: Option<usize>, text: &'a str) -> Option<&'a str> {
        match unit {
            Unit::Era => {
                let (index, rest) = word(&["AD", "BC"], 2, text)?;
                self.before_christ = index == 1;
                return Some(rest);
            }
            Unit::Month if count >= 3 => {
                let (index, rest) = word(&MONTHS, 3, text)?;
                self.month = Some(index as i64 + 1);
                return Some(rest);
            }
            Unit::DayName => return word(&DAYS, 3, text).map(|(_, rest)| rest),
            Unit::HalfDay => {
                let (index, rest) = word(&["AM", "PM"], 2, text)?;
                self.afternoon = index == 1;
                return Some(rest);
            }
            Unit::ZoneName | Unit::ZoneRfc822 | Unit::ZoneIso => {
                let (minutes, rest) = zone(text)?;
                self.offset_minutes = minutes;
                return Some(rest);
            }
            _ => {}
        }
        let (number, digits, rest) = number(text, width)?;
        match unit {
            Unit::Year if count <= 2 && digits == 2 => self.year = Some(full_year(number)),
            Unit::Year => self.year = Some(number),
            Unit::Month => self.month = Some(number),
            Unit::Day => self.day = Some(number),
            Unit::DayOfYear => self.day_of_year = Some(number),
            Unit::Hour24 => self.hour = Some(number),
            Unit::Hour1To24 => self.hour = Some(number % 24),
            Unit::Hour12 | Unit::Hour0To11 => self.half_day_hour = Some(number % 12),
            Unit::Minute => self.minute = number,
            Unit::Second => self.second = number,
            // Up to three digits are milliseconds; more can only be meant as a finer fraction of the second.
            Unit::Millis if digits <= 3 => self.millis = number,
            Unit::Millis => self.millis = number / 10_i64.checked_pow(u32::try_from(digits - 3).ok()?)?,
            _ => {}
        }
        Some(rest)
    }

    fn millis(&self) -> Result<i64, String> {
        let beyond = |what: &str| format!("there is no such {what}");
        let mut year = self.year.unwrap_or(1970);
        if self.before_christ {
            year = 1 - year;
        }
        let year = i16::try_from(year).map_err(|_| beyond("year"))?;
        let small = |number: i64| i8::try_from(number).map_err(|_| beyond("date"));
        let date = match self.day_of_year {
            Some(day) if self.month.is_none() && self.day.is_none() => {
                let day = i16::try_from(day).map_err(|_| beyond("date"))?;
                let first = Date::new(year, 1, 1).map_err(|_| beyond("year"))?;
                first
                    .with()
                    .day_of_year(day)
                    .build()
                    .map_err(|_| beyond("date"))?
            }
            _ => {
                let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
                Date::new(year, small(month)?, small(day)?).map_err(|_| beyond("date"))?
            }
        };
        let afternoon = if self.afternoon { 12 } else { 0 };
        let hour = self
            .hour
            .or(self.half_day_hour.map(|hour| hour + afternoon))
            .unwrap_or(afternoon);
        // A leap second is the first of the next minute.
        if !(0..=24).contains(&hour) || !(0..=59).contains(&self.minute) || !(0..=60).contains(&self.second) {
            return Err(beyond("time of day"));
        }
        let midnight = date
            .to_zoned(TimeZone::UTC)
            .map_err(|_| beyond("date"))?
            .timestamp()
            .as_millisecond();
        let minutes = hour * 60 + self.minute - self.offset_minutes;
        Ok(midnight + (minutes * 60 + self.second) * 1000 + self.millis)
    }
}

/// The number at the start of `text`, how many digits it has, and what is left.
fn number(text: &str, width: Option<usize>) -> Option<(i64, usize, &str)> {
    let text = text.trim_start();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let digits = width.map_or(digits, |width| width.min(digits)).min(18);
    let number = text[..digits].parse().ok()?;
    Some((number, digits, &text[digits..]))
}

/// The position of the word that `text` starts with, whole or by its first `short` letters.
fn word<'a>(words: &[&str], short: usize, text: &'a str) -> Option<(usize, &'a str)> {
    let starts = |prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let whole = words.iter().position(|word| starts(word));
    if let Some(index) = whole {
        return Some((index, &text[words[index].len()..]));
    }
    let index = words.iter().position(|word| starts(&word[..short]))?;
    Some((index, &text[short..]))
}

/// The offset in minutes of the zone that `text` starts with.
fn zone(text: &str) -> Option<(i64, &str)> {
    let (named, rest) = match word(&["UTC", "GMT", "UT"], 2, text) {
        Some((_, rest)) => (true, rest),
        None => (false, text),
    };
    if !named && let Some(rest) = text.strip_prefix(['Z', 'z']) {
        return Some((0, rest));
    }
    let sign = match rest.as_bytes().first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ if named => return Some((0, rest)),
        _ => return None,
    };
    let (hours, after) = two_digits(&rest[1..])?;
    let after_colon = after.strip_prefix(':').unwrap_or(after);
    let (minutes, after) = two_digits(after_colon).unwrap_or((0, after));
    (hours <= 23 && minutes <= 59).then_some((sign * (hours * 60 + minutes), after))
}

fn two_digits(text: &str) -> Option<(i64, &str)> {
    let digits = text.get(..2)?;
    let all = digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((all.then(|| digits.parse().ok())??, &text[2..]))
}

/// The year of two digits: from 80 years ago to 20 years ahead, as in Java.
fn full_year(two_digits: i64) -> i64 {
    let now = i64::from(Timestamp::now().to_zoned(TimeZone::UTC).year());
    let first = now - 80;
    let year = first - first.rem_euclid(100) + two_digits;
    if year < first { year + 100 } else { year }
}

/// Days after 1970 as `2020-01-31`.
pub(crate) fn iso_date(days: i64) -> Option<String> {
    let time = civil(days.checked_mul(DAY_MILLIS)?)?;
    Some(time.date().to_string())
}

/// Milliseconds after midnight as `23:59:59.999Z`.
pub(crate) fn iso_time(millis: i64) -> Option<String> {
    let time = civil(millis)?;
    Some(format!(
        "{:02}:{:02}:{:02}.{:03}Z",
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    ))
}

/// Milliseconds after 1970 as `2020-01-31T23:59:59.999Z`.
pub(crate) fn iso_timestamp(millis: i64) -> Option<String> {
    let time = civil(millis)?;
    Some(format!("{}T{}", time.date(), iso_time(millis)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2021-03-09T07:05:04.030Z, a Tuesday.
    const TIME: i64 = 1_615_273_504_030;

    #[test]
    fn times_are_written_as_java_writes_them() {
        let table = [
            ("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", "2021-03-09T07:05:04.030Z"),
            ("yyyyMMdd", "20210309"),
            ("y yy yyy yyyyy", "2021 21 2021 02021"),
            ("M MM MMM MMMM L", "3 03 Mar March 3"),
            ("d dd D DDD", "9 09 68 068"),
            ("E EEE EEEE u", "Tue Tue Tuesday 2"),
            ("H HH k K h hh a", "7 07 7 7 7 07 AM"),
            ("S SS SSS SSSSSS", "30 30 030 000030"),
            ("z zzzz Z X XXX", "UTC Coordinated Universal Time +0000 Z Z"),
            ("G", "AD"),
            ("'o''clock' '' yyyy", "o'clock ' 2021"),
            ("yyyy/MM/dd HH:mm", "2021/03/09 07:05"),
        ];
        for (pattern, expected) in table {
            let mut text = String::new();
            let format = DateFormat::new(pattern).expect(pattern);
            format.format(TIME, &mut text).expect("in range");
            assert_eq!(text, expected, "{pattern}");
        }
    }

    #[test]
    fn times_are_read_back() {
        let table = [
            ("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", "2021-03-09T07:05:04.030Z", TIME),
            ("yyyy-MM-dd'T'HH:mm:ss.SSSX", "2021-03-09T08:05:04.030+01", TIME),
            (
                "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
                "2021-03-09T08:35:04.030+01:30",
                TIME,
            ),
            ("yyyy-MM-dd HH:mm:ss.SSS Z", "2021-03-09 01:05:04.030 -0600", TIME),
            (
                "yyyy-MM-dd HH:mm:ss.SSS z",
                "2021-03-09 08:05:04.030 GMT+01:00",
                TIME,
            ),
            ("yyyyMMddHHmmssSSS", "20210309070504030", TIME),
            (
                "EEE, d MMM yyyy hh:mm:ss.SSS a",
                "Tue, 9 mar 2021 07:05:04.030 am",
                TIME,
            ),
            ("yyyy-MM-dd HH:mm:ss.SSSSSS", "2021-03-09 07:05:04.030999", TIME),
            (
                "yyyy-MM-dd",
                "2021-03-09T07:05",
                TIME - TIME.rem_euclid(DAY_MILLIS),
            ),
            ("yyyy DDD", "2021 068", TIME - TIME.rem_euclid(DAY_MILLIS)),
            ("dd.MM.yy", "09.03.21", TIME - TIME.rem_euclid(DAY_MILLIS)),
            ("yyyy", "1969", -365 * DAY_MILLIS),
            ("HH:mm", "01:30", 5_400_000),
        ];
        for (pattern, text, expected) in table {
            let format = DateFormat::new(pattern).expect(pattern);
            assert_eq!(format.parse(text), Ok(expected), "{pattern}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_without_its_text() {
        let table = [
            ("yyyy-MM-dd", "2021/03/09", "\"-\" is expected"),
            ("yyyy-MM-dd", "2021-02-30", "no such date"),
            ("HH:mm", "25:00", "no such time"),
            ("MMM", "Foo", "no month"),
            ("X", "Europe/Paris", "no time zone"),
            ("yyyy", "", "no year"),
            ("yyyy", "99999", "no such year"),
        ];
        for (pattern, text, expected) in table {
            let error = DateFormat::new(pattern).expect(pattern).parse(text);
            assert!(error.as_ref().is_err_and(|e| e.contains(expected)), "{error:?}");
        }
        for pattern in ["yyyy-MM-ddTHH", "'open", "YYYY", "XXXX"] {
            assert!(DateFormat::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn times_beyond_the_calendar_have_no_text() {
        let format = DateFormat::new("yyyy").expect("a pattern");
        for millis in [i64::MIN, i64::MAX] {
            assert_eq!(format.format(millis, &mut String::new()), None);
            assert_eq!(iso_timestamp(millis), None);
            assert_eq!(iso_date(millis), None);
        }
    }
}
