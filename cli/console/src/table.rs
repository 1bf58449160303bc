//! Tables for people: a header, a line of dashes, columns two spaces apart.
//!
//! On a terminal the one column that may shrink (labels) is cut so that a row stays a line; in a pipe nothing is cut,
//! so that `grep` sees everything. Control characters are printed visibly, never sent to the terminal.

use comfy_table::{ColumnConstraint, Row, Width, presets};

/// Spaces between two columns.
const GAP: u16 = 2;
/// The column that shrinks keeps at least this many characters, even when the row then wraps.
const SHRUNK_CHARS_MIN: u16 = 12;
/// A character that no cell holds, so that text is cut where the column ends and not at a space before it.
const NO_DELIMITER: char = '\u{1f}';

/// Rows under a header.
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    shrinks: Option<usize>,
}

impl Table {
    /// A table with these columns and no rows.
    #[must_use]
    pub fn new(header: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            header: header.into_iter().collect(),
            rows: Vec::new(),
            shrinks: None,
        }
    }

    /// Lets a column be cut when rows are wider than the terminal. A column that is not there changes nothing.
    #[must_use]
    pub fn shrinking(mut self, column: &str) -> Self {
        self.shrinks = self.header.iter().position(|name| *name == column);
        self
    }

    /// Adds a row: one cell a column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<str>>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| visible(cell.as_ref()))
                .collect(),
        );
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text that ends with a newline. `width` is the terminal's, if there is one.
    #[must_use]
    pub fn render(&self, width: Option<u16>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.force_no_tty();
        table.set_truncation_indicator("...");
        table.add_row(one_line(self.header.iter().map(|name| (*name).to_owned())));
        for row in &self.rows {
            table.add_row(one_line(row.iter().cloned()));
        }
        let mut widths = table.column_max_content_widths();
        if let (Some(column), Some(width)) = (self.shrinks, width) {
            shrink(&mut widths, column, width);
        }
        for (column, limit) in table.column_iter_mut().zip(&widths) {
            column.set_padding((0, GAP));
            column.set_delimiter(NO_DELIMITER);
            let padded = limit.saturating_add(GAP);
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(padded)));
        }
        let dashes: Vec<String> = widths
            .iter()
            .map(|width| "-".repeat(usize::from(*width)))
            .collect();
        let mut lines = table.lines().map(|line| line.trim_end().to_owned());
        let mut text = lines.next().unwrap_or_default();
        text.push('\n');
        text.push_str(&dashes.join(&" ".repeat(usize::from(GAP))));
        text.push('\n');
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn one_line(cells: impl Iterator<Item = String>) -> Row {
    let mut row = Row::new();
    for cell in cells {
        row.add_cell(comfy_table::Cell::new_owned(cell));
    }
    row.max_height(1);
    row
}

/// Takes from one column what the row has too much.
fn shrink(widths: &mut [u16], column: usize, terminal: u16) {
    let gaps =
        GAP.saturating_mul(u16::try_from(widths.len().saturating_sub(1)).unwrap_or(u16::MAX));
    let others = widths
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != column)
        .fold(gaps, |sum, (_, width)| sum.saturating_add(*width));
    if let Some(width) = widths.get_mut(column) {
        let room = terminal.saturating_sub(others).max(SHRUNK_CHARS_MIN);
        *width = (*width).min(room);
    }
}

/// The terminal's width in characters, when standard output is one.
#[must_use]
pub fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

/// Text with every character that could steer a terminal, or turn the direction of writing, written out.
#[must_use]
pub fn visible(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["Name", "Description", "Labels"]).shrinking("Labels");
        table.row(["my-redshift", "", "env=dev,team=analytics and more"]);
        table.row(["b", "Redshift cluster in us-east-1", ""]);
        table
    }

    #[test]
    fn columns_line_up_under_a_header_and_dashes() {
        assert_eq!(
            table().render(None),
            "\
Name         Description                    Labels
-----------  -----------------------------  -------------------------------
my-redshift                                 env=dev,team=analytics and more
b            Redshift cluster in us-east-1
"
        );
    }

    #[test]
    fn labels_are_cut_to_the_terminal_and_nothing_else_is() {
        assert_eq!(
            table().render(Some(60)),
            "\
Name         Description                    Labels
-----------  -----------------------------  ----------------
my-redshift                                 env=dev,team=...
b            Redshift cluster in us-east-1
"
        );
        let narrow = table().render(Some(20));
        assert!(narrow.contains("Redshift cluster in us-east-1"), "{narrow}");
        assert!(narrow.contains("env=dev,t..."), "{narrow}");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(["Name", "Labels"]);
        table.row(["日本", "x"]);
        assert_eq!(table.render(None), "Name  Labels\n----  ------\n日本  x\n");
    }

    #[test]
    fn a_strangers_tag_cannot_steer_the_terminal() {
        let mut table = Table::new(["Labels"]);
        table.row(["env=\u{1b}[2Jx\ny\u{202e}z"]);
        let text = table.render(None);
        assert!(
            text.ends_with("env=\\u{1b}[2Jx\\ny\\u{202e}z\n"),
            "{text:?}"
        );
    }

    #[test]
    fn a_table_without_rows_still_shows_its_header() {
        assert_eq!(
            Table::new(["Name", "Labels"]).render(Some(80)),
            "Name  Labels\n----  ------\n"
        );
    }
}
