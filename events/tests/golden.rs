//! What is stored is read for ever: a golden file for each type and version, and the generated documents.
//!
//! After a deliberate change: `SWARM_UPDATE_GENERATED=1 cargo test -p swarm-events --test golden` writes the generated
//! documents anew. Golden files are written by hand and never change once released.

use std::{fs, path::Path};

use serde_json::Value;
use swarm_events::{
    Body, Input, Timestamp, read,
    read::read_with,
    schema,
    upcast::{UPCASTERS, Upcaster},
};

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn golden(stem: &str) -> (String, Value) {
    let path = folder("golden").join(format!("{stem}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut file: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{stem}: {e}"));
    (
        file["nats_subject"].as_str().expect("a subject").to_owned(),
        file["event"].take(),
    )
}

#[test]
fn each_type_reads_its_golden_file_and_writes_it_again() {
    for kind in Body::TYPES {
        let (subject, event) = golden(kind.name);
        let bytes = serde_json::to_vec(&event).expect("JSON");
        let Input::Event(recorded) = read(42, Timestamp::from_micros(1), &subject, &bytes) else {
            panic!(
                "{}: {:?}",
                kind.name,
                read(42, Timestamp::from_micros(1), &subject, &bytes)
            );
        };
        assert_eq!(recorded.event.body.type_name(), kind.name);
        assert_eq!(recorded.subject.to_string(), subject);
        let written: Value =
            serde_json::from_slice(&recorded.event.to_json().expect("JSON")).expect("JSON");
        assert_eq!(
            written, event,
            "{} is not written as it is stored",
            kind.name
        );
    }
}

#[test]
fn each_golden_file_belongs_to_a_type() {
    for entry in fs::read_dir(folder("golden")).expect("the folder") {
        let name = entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("UTF-8");
        let stem = name.strip_suffix(".json").expect("JSON files only");
        assert!(
            Body::TYPES.iter().any(|t| t.name == stem) || UPCASTERS.iter().any(|u| u.from == stem),
            "{stem} is no type (an old version needs an upcaster)"
        );
    }
}

fn newest(mut name: &'static str) -> &'static str {
    while let Some(step) = UPCASTERS.iter().find(|u| u.from == name) {
        name = step.to;
    }
    name
}

#[test]
fn each_old_version_reads_its_golden_file_as_the_newest() {
    for old in UPCASTERS {
        let (subject, event) = golden(old.from);
        let bytes = serde_json::to_vec(&event).expect("JSON");
        let Input::Event(recorded) = read(42, Timestamp::from_micros(1), &subject, &bytes) else {
            panic!(
                "{}: {:?}",
                old.from,
                read(42, Timestamp::from_micros(1), &subject, &bytes)
            );
        };
        let newest = newest(old.to);
        assert_eq!(recorded.event.body.type_name(), newest);
        let written: Value =
            serde_json::from_slice(&recorded.event.to_json().expect("JSON")).expect("JSON");
        let mut expected = event.clone();
        expected["type"] = newest.into();
        // What the newer version has beside it is at its default.
        let newer = written["data"].as_object().expect("an object");
        for (name, value) in expected["data"].as_object().expect("an object") {
            // A topology was a word before it stood with its options.
            let with_options = newer[name].get(name) == Some(value);
            assert!(
                with_options || contains(&newer[name], value),
                "{}: {name}",
                old.from
            );
        }
    }
}

fn contains(newer: &Value, older: &Value) -> bool {
    newer == older
        || older.as_object().is_some_and(|older| {
            older
                .iter()
                .all(|(name, value)| contains(&newer[name], value))
        })
}

#[test]
fn golden_data_is_valid_by_the_checked_in_schema() {
    for kind in Body::TYPES {
        let document = schema::data_schema(kind.name).expect("a schema");
        let validator =
            jsonschema::validator_for(&document).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
        let (_, event) = golden(kind.name);
        let errors: Vec<String> = validator
            .iter_errors(&event["data"])
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", kind.name);
    }
}

fn assert_generated(path: &Path, value: &Value) {
    let text = serde_json::to_string_pretty(value).expect("JSON") + "\n";
    if std::env::var_os("SWARM_UPDATE_GENERATED").is_some() {
        fs::write(path, text).expect("written");
        return;
    }
    let stored = fs::read_to_string(path).unwrap_or_default();
    assert!(
        stored == text,
        "{} is out of date: run with SWARM_UPDATE_GENERATED=1",
        path.display()
    );
}

#[test]
fn generated_documents_are_up_to_date() {
    for kind in Body::TYPES {
        let document = schema::data_schema(kind.name).expect("a schema");
        assert_generated(
            &folder("schemas").join(format!("{}.json", kind.name)),
            &document,
        );
    }
    assert_generated(&folder("asyncapi.json"), &schema::asyncapi());
}

#[test]
fn an_old_version_is_read_through_its_upcasters() {
    // Two steps from a shape that never was: v0a called the assignment `token`, v0b gave progress as parts of one.
    let upcasters = [
        Upcaster {
            from: "swarm.task.progressed.v0a",
            to: "swarm.task.progressed.v0b",
            convert: |mut data| {
                let token = data["token"].take();
                data["assignment"] = token;
                Ok(data)
            },
        },
        Upcaster {
            from: "swarm.task.progressed.v0b",
            to: "swarm.task.progressed.v1",
            convert: |mut data| {
                let parts = data["parts"]
                    .as_str()
                    .and_then(|p| p.strip_suffix('%')?.parse::<u8>().ok());
                data["percent"] = parts.ok_or("parts must be a percentage")?.into();
                Ok(data)
            },
        },
    ];
    let (subject, mut event) = golden("swarm.task.progressed.v1");
    event["type"] = "swarm.task.progressed.v0a".into();
    event["data"] = serde_json::json!({"token": 40, "incarnation": 1, "parts": "25%"});
    let read_it = |event: &Value| {
        read_with(
            &upcasters,
            1,
            Timestamp::ZERO,
            &subject,
            &serde_json::to_vec(event).expect("JSON"),
        )
    };
    let Input::Event(recorded) = read_it(&event) else {
        panic!("not read")
    };
    let Body::TaskProgressed(progressed) = recorded.event.body else {
        panic!("another type")
    };
    assert_eq!((progressed.assignment, progressed.percent), (40, Some(25)));

    event["data"]["parts"] = "much".into();
    let Input::Unreadable(unreadable) = read_it(&event) else {
        panic!("must not be read")
    };
    assert_eq!(
        unreadable.problem.to_string(),
        "data: parts must be a percentage"
    );
}
