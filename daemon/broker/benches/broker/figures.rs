//! What was measured: tables for people, JSON for programs, and the aims beside what was reached.

use std::fmt;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use serde_json::{Map, Value, json};

/// The figures of one subject.
pub struct Part {
    pub name: &'static str,
    /// What was measured, and what the raw figure beside it is.
    pub how: String,
    /// The columns; those that only tell the cases apart come first.
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<Cell>>,
    pub aims: Vec<Aim>,
}

/// One figure, as it is shown and as it is.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    value: Value,
}

/// What is aimed at, and what was reached.
pub struct Aim {
    pub what: String,
    pub goal: String,
    pub reached: String,
    pub met: bool,
}

/// The rounds of one figure.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let median = match n {
            0 => f64::NAN,
            n if n % 2 == 1 => values[n / 2],
            n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
        };
        Self {
            median,
            min: values.first().copied().unwrap_or(f64::NAN),
            max: values.last().copied().unwrap_or(f64::NAN),
        }
    }

    /// The median with so many digits after the point, and the extremes.
    pub fn cell(self, digits: usize) -> Cell {
        let Self { median, min, max } = self;
        let text = if (max - min).abs() < f64::EPSILON {
            number(median, digits)
        } else {
            let (min, max) = (number(min, digits), number(max, digits));
            format!("{} ({min} to {max})", number(median, digits))
        };
        Cell {
            text,
            value: json!({"median": median, "min": min, "max": max}),
        }
    }
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            value: Value::from(text.clone()),
            text,
        }
    }

    pub fn count(count: u64) -> Self {
        Self {
            text: grouped(count),
            value: count.into(),
        }
    }

    pub fn number(value: f64, digits: usize) -> Self {
        Self {
            text: number(value, digits),
            value: value.into(),
        }
    }
}

impl Part {
    pub fn new(name: &'static str, how: impl Into<String>, columns: &[&'static str]) -> Self {
        Self {
            name,
            how: how.into(),
            columns: columns.to_vec(),
            rows: Vec::new(),
            aims: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    pub fn aim(&mut self, what: impl Into<String>, aim: impl Into<String>, reached: String, met: bool) {
        self.aims.push(Aim {
            what: what.into(),
            goal: aim.into(),
            reached,
            met,
        });
    }

    fn json(&self) -> Value {
        let row = |cells: &Vec<Cell>| -> Value {
            let fields = self.columns.iter().zip(cells);
            fields
                .map(|(column, cell)| ((*column).to_owned(), cell.value.clone()))
                .collect::<Map<_, _>>()
                .into()
        };
        let aim =
            |aim: &Aim| json!({"what": aim.what, "aim": aim.goal, "reached": aim.reached, "met": aim.met});
        json!({
            "how": self.how,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "aims": self.aims.iter().map(aim).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = table(&self.columns);
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| cell.text.clone()));
        }
        writeln!(f, "\n{}\n{}\n{table}", self.name.to_uppercase(), self.how)
    }
}

/// All figures as one object, by subject.
pub fn json(parts: &[Part]) -> Value {
    parts
        .iter()
        .map(|part| (part.name.to_owned(), part.json()))
        .collect::<Map<_, _>>()
        .into()
}

/// The aims of all parts in one table.
pub fn aims(parts: &[Part]) -> String {
    let mut table = table(&["aim", "of", "reached", ""]);
    for aim in parts.iter().flat_map(|part| &part.aims) {
        let met = if aim.met { "met" } else { "MISSED" };
        table.add_row([&aim.what, &aim.goal, &aim.reached, met]);
    }
    format!("\nAIMS\n{table}")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number as people read it.
pub fn number(value: f64, digits: usize) -> String {
    if value.is_nan() {
        "-".to_owned()
    } else if digits == 0 && value >= 1_000.0 {
        grouped(value.round() as u64)
    } else {
        format!("{value:.digits$}")
    }
}

fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A size as people say it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KB", bytes >> 10),
        1_048_576..100_000_000 => format!("{} MB", bytes >> 20),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// The duration below which `part` of the sorted ones lie, in milliseconds.
pub fn percentile_ms(sorted: &[std::time::Duration], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * part).round() as usize)
        .map_or(f64::NAN, |d| d.as_secs_f64() * 1e3)
}
