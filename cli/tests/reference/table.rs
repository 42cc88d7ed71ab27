//! Markdown tables.

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table(String);

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        let mut table = Self(String::new());
        table.row(headings);
        table.row(&vec!["---"; headings.len()]);
        table
    }

    pub(crate) fn row(&mut self, cells: &[&str]) {
        for cell in cells {
            self.0.push_str("| ");
            self.0.push_str(&cell.replace('|', "\\|").replace('\n', " "));
            self.0.push(' ');
        }
        self.0.push_str("|\n");
    }

    pub(crate) fn text(&self) -> String {
        self.0.clone()
    }
}
