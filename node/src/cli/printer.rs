//! How answers are printed: tables for people, JSON for programs.
use serde_json::Value;

/// Prints rows with a header, columns as wide as they need to be.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|text| text.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut text = line(&mut header.iter().copied());
    for row in rows {
        text.push('\n');
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A field of a JSON object as people read it: texts without quotes, nothing as `-`.
pub fn field(value: &Value, name: &str) -> String {
    text(value.get(name).unwrap_or(&Value::Null))
}

/// A JSON value as people read it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// Prints JSON, or a table of the named fields of each object of a list.
pub fn print_list(list: &Value, json: bool, columns: &[(&str, &str)], empty: &str) {
    if json {
        println!("{list:#}");
        return;
    }
    let rows: Vec<Vec<String>> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| columns.iter().map(|(_, name)| field(item, name)).collect())
        .collect();
    if rows.is_empty() {
        println!("{empty}");
    } else {
        let header: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
        println!("{}", table(&header, &rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let rows = [vec!["till-1".to_owned(), "complete".to_owned()], vec!["a".to_owned(), "queued".to_owned()]];
        insta::assert_snapshot!(table(&["HOST", "STAGE"], &rows), @r"
        HOST    STAGE
        till-1  complete
        a       queued
        ");
    }
}
