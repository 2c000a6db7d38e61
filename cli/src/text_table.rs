//! Rows as aligned text for a terminal.

/// Longest cell that is shown whole.
const CELL_CHARS_MAX: usize = 60;

/// Renders a head and rows, columns two blanks apart. Control characters are shown as escapes, so that stored text
/// cannot move the cursor of whoever looks at it.
pub fn render(head: &[String], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.chain(head.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    std::iter::once(line(head)).chain(rows.iter().map(|row| line(row))).collect()
}

fn visible(cell: &str) -> String {
    let mut text: String =
        cell.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
    if text.chars().count() > CELL_CHARS_MAX {
        text = text.chars().take(CELL_CHARS_MAX - 1).chain("…".chars()).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_escapes_show() {
        let rows = [vec!["user".to_owned(), "é\u{1b}[31m".to_owned()], vec!["o".to_owned(), "x".repeat(80)]];
        let text = render(&["kind".to_owned(), "key".to_owned()], &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "kind  key");
        assert_eq!(lines[1], "user  é\\u{1b}[31m");
        assert!(lines[2].starts_with("o     xxx") && lines[2].ends_with('…'));
    }
}
