//! `proffer decide`: asks a node for a decision and prints it as a table.

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::cli::table;
use crate::client::{Client, Target};

/// Arguments of `proffer decide`.
#[derive(Debug, clap::Args)]
pub struct DecideArgs {
    /// For whom.
    #[arg(long)]
    customer: String,
    /// Channel name.
    #[arg(long)]
    channel: Option<String>,
    /// Placements to fill, by key or id.
    #[arg(long = "placement", conflicts_with = "activities")]
    placements: Vec<String>,
    /// Activities to fill, by key or id.
    #[arg(long = "activity")]
    activities: Vec<String>,
    /// Flow key.
    #[arg(long)]
    flow: Option<String>,
    /// Most propositions.
    #[arg(long)]
    limit: Option<u32>,
    /// Request attributes, `name=value`; the value is read as JSON where it is JSON.
    #[arg(long = "attribute", value_parser = name_value)]
    attributes: Vec<(String, Value)>,
    /// Request context, `name=value`.
    #[arg(long = "context", value_parser = name_value)]
    context: Vec<(String, Value)>,
    /// Segments to add to the profile's.
    #[arg(long = "segment")]
    segments: Vec<String>,
    /// Decide without recording or taking anything.
    #[arg(long)]
    simulate: bool,
    /// Print the answer as the node sent it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn name_value(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be name=value")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value))))
}

impl DecideArgs {
    /// Path and body of the call.
    fn call(&self) -> (&'static str, Value) {
        let mut body = Map::new();
        body.insert("customerId".into(), json!(self.customer));
        body.insert("explain".into(), json!(true));
        let given = [
            ("channel", self.channel.as_ref().map(|name| json!(name))),
            ("decisionFlowKey", self.flow.as_ref().map(|key| json!(key))),
            ("limit", self.limit.map(|limit| json!(limit))),
            ("placements", (!self.placements.is_empty()).then(|| json!(self.placements))),
            ("activities", (!self.activities.is_empty()).then(|| json!(self.activities))),
            ("segments", (!self.segments.is_empty()).then(|| json!(self.segments))),
            ("attributes", (!self.attributes.is_empty()).then(|| self.attributes.iter().cloned().collect())),
            ("context", (!self.context.is_empty()).then(|| self.context.iter().cloned().collect())),
        ];
        body.extend(given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        let path = match (self.simulate, self.activities.is_empty()) {
            (true, _) => "/simulate",
            (false, true) => "/recommend",
            (false, false) => "/decisions",
        };
        (path, Value::Object(body))
    }
}

/// Runs the command.
///
/// # Errors
/// When the node refuses or cannot be reached.
pub async fn run(args: DecideArgs) -> anyhow::Result<()> {
    let client = Client::new(args.target.clone())?;
    let (path, body) = args.call();
    let answer = client.post(path, &body).await?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?;
    } else {
        write!(out, "{}", table::decision(&client, &answer).await)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_where_they_look_like_it() {
        assert_eq!(name_value("a=1"), Ok(("a".to_owned(), json!(1))));
        assert_eq!(name_value("a=b=c"), Ok(("a".to_owned(), json!("b=c"))));
        assert!(name_value("a").is_err());
    }
}
