//! `swarm topology template`

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::set::OptionArgs;
use crate::{
    api::Api,
    commands::create::KINDS,
    connection::ServerArgs,
    exit::{Code, Failure, Outcome},
    output::{self, Column, Format},
    yaml,
};

/// Commands on templates.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// List the templates, the system's first
    List,
    /// Show a template
    Show(NameArgs),
    /// Save a topology under a name; one that is there is replaced
    Save(SaveArgs),
    /// Delete a template; swarms keep their topology
    Delete(NameArgs),
    /// Write templates as YAML
    Export(ExportArgs),
    /// Save the templates of a YAML file
    Import(ImportArgs),
}

/// A template.
#[derive(clap::Args, Debug)]
pub struct NameArgs {
    /// Its name
    pub name: String,
}

/// Arguments of `swarm topology template save`.
#[derive(clap::Args, Debug)]
pub struct SaveArgs {
    /// Its name, 1 to 50 characters
    pub name: String,
    /// Which topology
    #[arg(long, value_parser = PossibleValuesParser::new(KINDS), conflicts_with = "from")]
    pub topology: Option<String>,
    /// That of this swarm, with its options as they are
    #[arg(long, value_name = "SWARM")]
    pub from: Option<String>,
    /// Options
    #[command(flatten)]
    pub options: OptionArgs,
    /// What it is
    #[arg(long)]
    pub description: Option<String>,
    /// What it is good for
    #[arg(long)]
    pub best_for: Option<String>,
}

/// Arguments of `swarm topology template export`.
#[derive(clap::Args, Debug)]
pub struct ExportArgs {
    /// Which; the organization's own if none is named
    pub names: Vec<String>,
    /// Where to [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Arguments of `swarm topology template import`.
#[derive(clap::Args, Debug)]
pub struct ImportArgs {
    /// The file; - is stdin
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
}

const COLUMNS: [Column; 5] = [
    ("NAME", "/name"),
    ("TOPOLOGY", "/topology_type"),
    ("SYSTEM", "/is_system"),
    ("BEST FOR", "/best_for"),
    ("DESCRIPTION", "/description"),
];

/// Runs a command on templates.
pub async fn run(command: Command, server: &ServerArgs, output: Format) -> Outcome {
    let api = crate::commands::api(server)?;
    match command {
        Command::List => output.list(&all(&api).await?, &COLUMNS),
        Command::Show(args) => output.object(&api.get(&path(&args.name), &[]).await?),
        Command::Save(args) => output.object(&save(&api, args).await?),
        Command::Delete(args) => output.object(&api.delete(&path(&args.name)).await?),
        Command::Export(args) => export(&api, args).await,
        Command::Import(args) => import(&api, &args, output).await,
    }
}

async fn all(api: &Api) -> Outcome<Vec<Value>> {
    api.list("/v1/topologies", &[], None).await
}

/// Where a template is. Names are people's.
pub fn path(name: &str) -> String {
    let mut path = "/v1/topologies/".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

async fn save(api: &Api, args: SaveArgs) -> Outcome<Value> {
    let mut body = Map::new();
    let mut options = args.options.merged()?;
    let mut topology = args.topology.map(Value::String);
    if let Some(swarm) = &args.from {
        let id = api.swarm_id(swarm).await?;
        let shape = api.get(&format!("/v1/swarms/{id}/topology"), &[]).await?;
        topology = Some(shape["topology"].clone());
        let mut whole = shape["configuration"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        whole.extend(options);
        options = whole;
    }
    body.extend(topology.map(|topology| ("topology".to_owned(), topology)));
    if !options.is_empty() {
        body.insert("configuration".to_owned(), Value::Object(options));
    }
    for (name, value) in [
        ("description", args.description),
        ("best_for", args.best_for),
    ] {
        body.extend(value.map(|value| (name.to_owned(), Value::String(value))));
    }
    if body.is_empty() {
        return Err(Failure::usage(
            "nothing to save: give --topology, --from, --set, --config, --description or --best-for",
        ));
    }
    api.put(&path(&args.name), &Value::Object(body)).await
}

async fn export(api: &Api, args: ExportArgs) -> Outcome {
    let mut templates = Vec::new();
    if args.names.is_empty() {
        templates = all(api).await?;
        templates.retain(|template| template["is_system"] != true);
    }
    for name in &args.names {
        templates.push(api.get(&path(name), &[]).await?);
    }
    let text = yaml::written(&document(&templates))?;
    match args.file {
        None => output::line(&text),
        Some(file) => std::fs::write(&file, text)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display()))),
    }
}

/// Templates as they stand in a file, in the form of the product's requirements.
fn document(templates: &[Value]) -> Value {
    let entries = templates.iter().map(|template| {
        let mut entry = Map::new();
        entry.insert("topology".to_owned(), template["topology_type"].clone());
        for name in ["description", "best_for"] {
            if !template[name].is_null() {
                entry.insert(name.to_owned(), template[name].clone());
            }
        }
        entry.insert("config".to_owned(), template["configuration"].clone());
        let name = template["name"].as_str().unwrap_or_default().to_owned();
        (name, Value::Object(entry))
    });
    let entries: Map<String, Value> = entries.collect();
    json!({ "topologies": entries })
}

/// A template in a file.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    topology: String,
    description: Option<String>,
    best_for: Option<String>,
    #[serde(default)]
    config: Map<String, Value>,
}

/// A file of templates.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    topologies: std::collections::BTreeMap<String, Entry>,
}

async fn import(api: &Api, args: &ImportArgs, output: Format) -> Outcome {
    let file: File = yaml::read(&args.file)?;
    let mut saved = Vec::new();
    for (name, entry) in file.topologies {
        let named = |failure: Failure| {
            let done = saved.len();
            let message = format!("topologies.{name}: {failure}; {done} were saved before it");
            Failure {
                code: failure.code,
                message,
            }
        };
        let path = path(&name);
        let before = match api.get(&path, &[]).await {
            Err(failure) if failure.code == Code::NotFound => None,
            found => Some(found.map_err(named)?),
        };
        let body = replacing(&entry, before.as_ref());
        saved.push(api.put(&path, &body).await.map_err(named)?);
    }
    output.list(&saved, &COLUMNS)
}

/// A file says all of a template: what it does not name has its default, whatever was saved before.
fn replacing(entry: &Entry, before: Option<&Value>) -> Value {
    let mut config = entry.config.clone();
    if let Some(before) = before.filter(|before| before["topology_type"] == *entry.topology) {
        for name in before["configuration"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
        {
            config.entry(name.clone()).or_insert(Value::Null);
        }
    }
    json!({"topology": entry.topology, "description": entry.description, "best_for": entry.best_for, "configuration": config})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_exported_is_read_again() {
        let template = json!({"name": "no", "topology_type": "ring", "description": null, "best_for": "a: b #c",
            "configuration": {"order": "sequential", "token_timeout_ms": 5000, "skip_unhealthy": true}, "is_system": false});
        let text = yaml::written(&document(&[template])).expect("YAML");
        let file: File = yaml::parsed("test", &text).expect(&text);
        let entry = &file.topologies["no"];
        assert_eq!(
            (entry.topology.as_str(), entry.best_for.as_deref()),
            ("ring", Some("a: b #c"))
        );
        assert_eq!(entry.config["token_timeout_ms"], 5_000);
        assert_eq!(entry.config["skip_unhealthy"], true);
    }

    #[test]
    fn a_file_says_all_of_a_template() {
        let text = "topologies: {t: {topology: ring, config: {order: load}}}";
        let file: File = yaml::parsed("test", text).expect(text);
        let entry = &file.topologies["t"];
        let before = json!({"topology_type": "ring", "configuration": {"order": "sequential", "token_timeout_ms": 9}});
        let body = replacing(entry, Some(&before));
        assert_eq!(
            body["configuration"],
            json!({"order": "load", "token_timeout_ms": null})
        );
        assert_eq!(body["description"], Value::Null);
        let other = json!({"topology_type": "mesh", "configuration": {"routing": "targeted"}});
        for before in [None, Some(&other)] {
            assert_eq!(
                replacing(entry, before)["configuration"],
                json!({"order": "load"})
            );
        }
    }

    #[test]
    fn a_file_is_refused_by_its_field() {
        for (text, field) in [
            ("topologies: 7", "topologies"),
            (
                "topologies:\n  a: {topology: ring, colour: 1}",
                "topologies.a.colour",
            ),
            ("topologies:\n  a: {config: {}}", "topologies.a"),
            (
                "topologies:\n  a: {topology: ring, config: [1]}",
                "topologies.a.config",
            ),
            ("x: 1", "x"),
        ] {
            let failure = yaml::parsed::<File>("t.yaml", text).expect_err(text);
            assert_eq!(failure.code, Code::Usage, "{failure}");
            assert!(failure.message.contains(field), "{text}: {failure}");
        }
    }

    #[test]
    fn a_name_goes_as_one_part_of_a_path() {
        assert_eq!(path("a/b c"), "/v1/topologies/a%2Fb%20c");
    }
}
