//! YAML files, in and out.

use std::{io::Read, path::Path};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::exit::{Failure, Outcome};

/// Largest file, in bytes: a swarm with a thousand groups of agents has less.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a file as `T`; `-` is stdin.
///
/// # Errors
/// It cannot be read, is no YAML, or has another shape: by the field.
pub fn read<T: DeserializeOwned>(file: &Path) -> Outcome<T> {
    let name = file.display().to_string();
    let failed = |error: std::io::Error| Failure::failed(format!("cannot read {name}: {error}"));
    let mut text = String::new();
    let source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(failed)?)
    };
    let mut source = source.take(FILE_BYTES_MAX + 1);
    source.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{name} has more than {FILE_BYTES_MAX} bytes: split it");
        return Err(Failure::usage(message));
    }
    parsed(&name, &text)
}

/// Reads `text` as `T`; `name` is the file's.
///
/// # Errors
/// As [`read`].
pub fn parsed<T: DeserializeOwned>(name: &str, text: &str) -> Outcome<T> {
    // Without this `y`, `no` and `on` would be no texts, as in YAML 1.1.
    let options = serde_saphyr::options! { strict_booleans: true };
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Failure::usage(format!("{name} is no YAML: {error}")))?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." {
            String::new()
        } else {
            format!(" {path}:")
        };
        Failure::usage(format!("{name}:{field} {}", error.inner()))
    })
}

/// A value as YAML.
///
/// # Errors
/// Never in practice: JSON can always be written.
pub fn written(value: &Value) -> Outcome<String> {
    serde_saphyr::to_string(value)
        .map_err(|error| Failure::failed(format!("cannot be written as YAML: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::Code;

    #[test]
    fn what_is_written_is_read_again_whatever_it_looks_like() {
        let value = json!({"no": "yes", "number": "007", "list": [1, 2.5, true, null, "null", "- x", "a: b", "#c", "", " x "],
            "nested": {"deep": [{"a": []}, {}]}, "text": "two\nlines\n", "umlaut": "ü", "large": 18_446_744_073_709_551_615_u64});
        let text = written(&value).expect("YAML");
        assert_eq!(parsed::<Value>("test", &text).expect(&text), value);
    }

    #[test]
    fn only_true_and_false_are_no_texts() {
        let value: Value = parsed("t.yaml", "[y, no, on, true, false]").expect("YAML");
        assert_eq!(value, json!(["y", "no", "on", true, false]));
    }

    #[test]
    fn a_mistake_is_named_by_the_file_and_the_place() {
        for (text, part) in [
            ("a: [1", "t.yaml"),
            ("a: 1\na: 2", "line 2"),
            ("a: b: c", "t.yaml"),
        ] {
            let failure = parsed::<Value>("t.yaml", text).expect_err(text);
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.message.contains(part), "{failure}");
        }
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let limit = usize::try_from(FILE_BYTES_MAX).expect("small");
        let text = |length: usize| format!("a: {}", "x".repeat(length - 3));
        std::fs::write(file.path(), text(limit)).expect("written");
        assert!(read::<Value>(file.path()).is_ok());
        std::fs::write(file.path(), text(limit + 1)).expect("written");
        assert_eq!(
            read::<Value>(file.path()).expect_err("too large").code,
            Code::Usage
        );
        let missing = read::<Value>(Path::new("/nowhere/x.yaml")).expect_err("missing");
        assert_eq!(missing.code, Code::Failed);
    }
}
