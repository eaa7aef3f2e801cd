//! `proffer demo`: a node with sample data, its decisions explained on the screen, and then still there to be asked.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::cli::{serve, table};
use crate::client::{Client, Target};
use crate::compose::{Composition, DEV_KEY, DEV_TENANT, Node};
use crate::demo::{coffee, open_bandit};

/// Arguments of `proffer demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Address of the HTTP interface; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// What to load.
    #[arg(long, value_enum, default_value = "rewards")]
    data: Data,
    /// Members to load instead of generated ones (rewards): one JSON object a line with age, gender, income, became_member_on, id.
    #[arg(long, value_name = "FILE")]
    members: Option<PathBuf>,
}

/// Sample data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Data {
    /// A coffee house's rewards programme: ten offers, a thousand members.
    Rewards,
    /// Open Bandit: 34 real items, ten thousand logged visits replayed.
    OpenBandit,
}

/// Seed of the generated members.
const SEED: u64 = 7;
/// Rows of the log that the demo replays: all.
const ROWS: usize = 10_000;

/// Runs the command.
///
/// # Errors
/// When the node cannot start or refuses the sample data.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let members = match args.members {
        Some(file) => Some(read_members(&file)?),
        None => None,
    };
    let node = Node::start(Composition::alone(args.listen)).await?;
    serve::announce(&node, true)?;
    let url = format!("http://{}", node.address());
    let client = Client::new(Target { url: url.clone(), key: DEV_KEY.to_owned(), tenant: DEV_TENANT.to_owned() })?;
    let example = match args.data {
        Data::Rewards => show_rewards(&client, members).await?,
        Data::OpenBandit => show_open_bandit(&client).await?,
    };
    writeln!(
        std::io::stdout(),
        "Still serving. Ask it yourself (Ctrl-C ends it):\n\n  curl -s {url}/api/v1/recommend?explain=true -H 'X-API-Key: {DEV_KEY}' \\\n    -H 'Content-Type: application/json' -d '{example}'\n"
    )?;
    serve::stop_signal().await?;
    node.stop().await
}

/// The members of a file. Faults name the file and the line.
fn read_members(file: &Path) -> anyhow::Result<Vec<Value>> {
    let lines = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let told = lines.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let members = told
        .map(|(line, number)| coffee::recorded_member(line).with_context(|| format!("{}:{number}", file.display())));
    let members = members.collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!members.is_empty(), "{} has no members", file.display());
    Ok(members)
}

async fn show_rewards(client: &Client, members: Option<Vec<Value>>) -> anyhow::Result<String> {
    let generated = || (0..coffee::DEMO_MEMBERS).map(|number| coffee::member(SEED, number)).collect();
    let members = members.unwrap_or_else(generated);
    coffee::load(client, &members).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "10 offers, {} members. The best offers for three of them, and why:\n", members.len())?;
    for (member, channel) in members.iter().zip(["web", "email", "mobile"]) {
        let customer = member["customerId"].as_str().context("a member has an id")?;
        let answer = client.post("/recommend?explain=true", &coffee::request(customer, channel)).await?;
        writeln!(out, "{} on {channel}: {}", customer, member["attributes"])?;
        writeln!(out, "{}", table::decision(client, &answer).await)?;
    }
    let customer = members.first().and_then(|member| member["customerId"].as_str()).context("there are members")?;
    Ok(coffee::request(customer, "web").to_string())
}

async fn show_open_bandit(client: &Client) -> anyhow::Result<String> {
    open_bandit::load(client).await?;
    let customer = open_bandit::first_customer()?;
    let answer = client.post("/recommend?explain=true", &open_bandit::request(&customer)).await?;
    writeln!(std::io::stdout(), "{}", table::decision(client, &answer).await)?;
    let progress = ProgressBar::new(ROWS as u64)
        .with_style(ProgressStyle::with_template("replaying visits {bar:30} {pos}/{len} {per_sec}")?);
    let replayed = open_bandit::replay(client, ROWS, |rows| progress.set_position(rows as u64)).await?;
    progress.finish_and_clear();
    writeln!(
        std::io::stdout(),
        "{} logged visits replayed, {} propositions, {} of them the logged item at its position ({} clicks recorded).\n\
         No offer twice in an answer, none above its cap. A click rate could not be read off this log: it shows what another policy chose.\n",
        replayed.rows,
        replayed.propositions,
        replayed.matches,
        replayed.clicks
    )?;
    Ok(open_bandit::request(&customer).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_member_is_told_by_file_and_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let good = r#"{"gender": "F", "age": 55, "id": "m1", "became_member_on": "20170715", "income": 112000}"#;
        for (bad, what) in [
            ("{", "EOF"),
            ("[]", "became_member_on"),
            (&good.replace("20170715", "July"), "became_member_on"),
            (&good.replace("\"m1\"", "7"), "id"),
            (&good.replace("\"m1\"", "\"\""), "id"),
        ] {
            std::fs::write(file.path(), format!("{good}\n\n{bad}\n")).unwrap();
            let said = format!("{:#}", read_members(file.path()).unwrap_err());
            assert!(said.starts_with(&format!("{}:3: ", file.path().display())) && said.contains(what), "{said}");
        }
        std::fs::write(file.path(), format!("{good}\n")).unwrap();
        assert_eq!(read_members(file.path()).unwrap().len(), 1);
        std::fs::write(file.path(), "\n").unwrap();
        assert!(read_members(file.path()).unwrap_err().to_string().contains("has no members"));
    }
}
