//! Tables and lists for people, on a terminal in colour (never with `NO_COLOR`), and JSON for programs.

use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, ContentArrangement, Table, presets};
use tidewater_runtime::config::{Problem, Severity};

const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default().bold();
const QUIET: Style = AnsiColor::Cyan.on_default();

/// `error: …` on stderr.
pub fn say_error(message: &str) {
    // Nobody is left to tell where stderr is gone.
    let _ = writeln!(anstream::stderr(), "{BAD}error{BAD:#}: {message}");
}

/// One line a problem: `error: file:line: key = "value" message`.
pub fn write_problem(out: &mut impl io::Write, problem: &Problem) -> io::Result<()> {
    let (style, word) = match problem.severity {
        Severity::Error => (BAD, "error"),
        Severity::Warning => (DOUBTFUL, "warning"),
        Severity::Note => (QUIET, "note"),
    };
    writeln!(out, "{style}{word}{style:#}: {problem}")
}

/// Problems on stderr.
pub fn say_problems(problems: &[Problem]) {
    let mut out = anstream::stderr().lock();
    for problem in problems {
        // As in `say_error`.
        let _ = write_problem(&mut out, problem);
    }
}

/// A table without lines, which `cut`, `grep` and people can read. On a terminal it keeps to its width.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(header.map(Cell::new));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// JSON on stdout, indented.
pub fn print_json(value: &serde_json::Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// `1 file`, `2 files`.
pub fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}
