//! What commands print: tables for people, JSON for programs.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::exit::{Failure, Outcome};

/// What is asked for on the command line: a graph has languages of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: the server's own JSON, nothing else on stdout.
    Json,
    /// For Graphviz (`swarm topology show`)
    Dot,
    /// For Mermaid (`swarm topology show`)
    Mermaid,
}

/// For whom to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: the server's own JSON, nothing else on stdout.
    Json,
}

/// A column: its title, and the JSON pointer of its values.
pub type Column = (&'static str, &'static str);

impl Format {
    /// The format of a command that shows no graph.
    pub fn of(output: Output) -> Outcome<Self> {
        let graph = match output {
            Output::Table => return Ok(Self::Table),
            Output::Json => return Ok(Self::Json),
            Output::Dot => "dot",
            Output::Mermaid => "mermaid",
        };
        Err(Failure::usage(format!(
            "-o {graph} is for `swarm topology show`: give table or json"
        )))
    }

    /// Prints a list: `{"items": […]}` as JSON, or one row for each item.
    pub fn list(self, items: &[Value], columns: &[Column]) -> Outcome {
        match self {
            Self::Json => line(&pretty(&serde_json::json!({ "items": items }))),
            Self::Table => line(&rows(items, columns)),
        }
    }

    /// Prints one object: as it is, or one row for each field.
    pub fn object(self, object: &Value) -> Outcome {
        match self {
            Self::Json => line(&pretty(object)),
            Self::Table => line(&fields(object)),
        }
    }
}

/// `{"items": […]}` as JSON, printed item by item: of a long list none is held.
#[derive(Default)]
pub struct Items {
    any: bool,
}

impl Items {
    /// Prints one more.
    pub fn item(&mut self, item: &Value) -> Outcome {
        let before = if self.any { ",\n" } else { "{\"items\": [\n" };
        self.any = true;
        let mut out = std::io::stdout().lock();
        Ok(write!(out, "{before}{item}")?)
    }

    /// Closes the list.
    pub fn end(&self) -> Outcome {
        line(if self.any { "\n]}" } else { "{\"items\": []}" })
    }
}

/// Prints a line; an error (a closed pipe above all) is handed up instead of a panic.
pub fn line(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn pretty(value: &Value) -> String {
    // A `Value` has string keys only, which is all that can fail.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn rows(items: &[Value], columns: &[Column]) -> String {
    let mut table = table();
    table.set_header(columns.iter().map(|(title, _)| *title));
    for item in items {
        table.add_row(
            columns
                .iter()
                .map(|(_, pointer)| item.pointer(pointer).map_or_else(String::new, cell)),
        );
    }
    table.to_string()
}

fn fields(object: &Value) -> String {
    let Value::Object(fields) = object else {
        return cell(object);
    };
    let mut table = table();
    for (name, value) in fields {
        table.add_row([name.clone(), cell(value)]);
    }
    table.to_string()
}

/// A value as it stands in a table: bare text, an empty cell for null, compact JSON for what is nested.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            texts.join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::Code;

    #[test]
    fn only_graphs_are_shown_as_graphs() {
        for (output, format) in [(Output::Table, Format::Table), (Output::Json, Format::Json)] {
            assert_eq!(Format::of(output).expect("any command"), format);
        }
        for output in [Output::Dot, Output::Mermaid] {
            assert_eq!(Format::of(output).expect_err("a graph").code, Code::Usage);
        }
    }

    #[test]
    fn a_list_has_one_row_for_each_item_in_the_order_of_the_columns() {
        let items = [
            json!({"id": "a", "status": "active", "capabilities": ["x", "y"]}),
            json!({"id": "b", "status": null, "nested": {"n": 1}}),
        ];
        let columns = [
            ("ID", "/id"),
            ("STATUS", "/status"),
            ("CAN", "/capabilities"),
            ("N", "/nested/n"),
        ];
        let text = rows(&items, &columns);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains("ID") && lines[0].contains("CAN"),
            "{text}"
        );
        assert!(
            lines[1].contains("active") && lines[1].contains("x, y"),
            "{text}"
        );
        assert!(
            lines[2].trim_end().ends_with('1') && !lines[2].contains("null"),
            "{text}"
        );
        assert_eq!(lines.len(), 3, "{text}");
    }

    #[test]
    fn an_object_has_one_row_for_each_field() {
        let text = fields(&json!({"name": "n", "configuration": {"max_agents": 3}}));
        assert!(
            text.contains("name") && text.contains(r#"{"max_agents":3}"#),
            "{text}"
        );
    }

    #[test]
    fn json_output_can_be_read_back() {
        let value = json!({"items": [{"id": 1}]});
        let read: Value = serde_json::from_str(&pretty(&value)).expect("it is JSON");
        assert_eq!(read, value);
    }
}
