//! A plain table: columns as wide as their widest cell, two spaces between, no lines.

/// A table on its way to be printed.
#[derive(Clone, Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(headings: Vec<&'static str>) -> Self {
        Table { headings, rows: Vec::new() }
    }

    /// Adds a row. Control characters in a cell, which could play tricks with a terminal, are shown as `?`, and an empty
    /// cell as `-`.
    pub fn row(&mut self, cells: Vec<String>) {
        let plain = |cell: String| match cell.as_str() {
            "" => "-".to_owned(),
            _ => cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        };
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, one line for each row.
    pub fn render(&self) -> String {
        let headings: Vec<String> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&headings).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..headings.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}
