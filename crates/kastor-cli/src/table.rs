//! Tables without lines: the first column to the left, the columns that hold numbers to the right, every cell made harmless.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table as Layout};

use crate::neutral::neutral;

/// A table that is being filled.
pub(crate) struct Table(Layout);

impl Table {
    /// A table without a header.
    pub(crate) fn new() -> Table {
        let mut layout = Layout::new();
        layout.load_style(NOTHING);
        Table(layout)
    }

    /// A table whose first line is a header.
    pub(crate) fn with_header(header: &[&str]) -> Table {
        let mut table = Table::new();
        table.0.set_header(header);
        table
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().map(|cell| neutral(&cell).into_owned()));
    }

    /// The lines, header first, with the columns that `is_number` names to the right.
    pub(crate) fn lines(mut self, is_number: impl Fn(usize) -> bool) -> Vec<String> {
        for (number, column) in self.0.column_iter_mut().enumerate() {
            column.set_padding((u16::from(number > 0), 1));
            if is_number(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.0.lines().collect()
    }
}
