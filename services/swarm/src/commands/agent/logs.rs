//! `swarm agent logs`

use serde_json::Value;

use super::{AgentArgs, one};
use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{self, Format},
    sse,
};

/// Arguments of `swarm agent logs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Which
    #[command(flatten)]
    pub which: AgentArgs,
    /// The last lines that there are
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub lines: u32,
    /// Go on with what it writes from now on, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
}

/// Prints what an agent's process wrote; as JSON one object per line.
pub(super) async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let (api, path) = one(server, &args.which).await?;
    let path = format!("{path}/logs?lines={}", args.lines);
    if !args.follow {
        let told = api.get(&path, &[]).await?;
        dropped(&told["dropped"]);
        for line in told["items"].as_array().map_or(&[][..], Vec::as_slice) {
            output::line(&render(line, output))?;
        }
        return Ok(());
    }
    let mut events = sse::follow(api, format!("{path}&follow=true"), None);
    while let Some(event) = events.recv().await {
        let event = event?;
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else {
            continue;
        };
        match event.event.as_deref() {
            Some("dropped") => dropped(&data["dropped"]),
            _ => output::line(&render(&data, output))?,
        }
    }
    Ok(())
}

/// Says on stderr that lines are missing: what is on stdout is the agent's own.
fn dropped(count: &Value) {
    if let Some(count) = count.as_u64().filter(|count| *count > 0) {
        eprintln!("swarm: {count} earlier lines were not kept");
    }
}

fn render(line: &Value, output: Format) -> String {
    if output == Format::Json {
        return line.to_string();
    }
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    format!("{}  {:<6}  {}", text("at"), text("stream"), text("text"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_names_its_time_and_its_stream() {
        let line = json!({"at": "now", "stream": "stderr", "text": "it hurts"});
        assert_eq!(render(&line, Format::Table), "now  stderr  it hurts");
        assert_eq!(render(&line, Format::Json), line.to_string());
    }
}
