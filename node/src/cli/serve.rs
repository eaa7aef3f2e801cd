//! `proffer serve`: runs a node until it is told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::compose::{Access, Composition, DEV_KEY, Node, Storage};

/// Arguments of `proffer serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// Address of the HTTP interface; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,
    /// Directory of this node's log and snapshots; made if missing, used by one node at a time.
    #[arg(long, default_value = "proffer-data", conflicts_with = "ephemeral")]
    pub data: PathBuf,
    /// Keep everything in memory only: a restart begins empty.
    #[arg(long)]
    pub ephemeral: bool,
    /// Open to everyone who knows the well-known key. Never on a reachable network.
    #[arg(long)]
    pub dev: bool,
    /// File with the secret of tenant `default`'s administrator key, at least 32 characters; needed without --dev.
    #[arg(long, env = "PROFFER_ADMIN_KEY_FILE", value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,
}

/// Shortest secret accepted for an administrator key.
const ADMIN_KEY_CHARS_MIN: usize = 32;

impl ServeArgs {
    fn access(&self) -> anyhow::Result<Access> {
        match (&self.admin_key_file, self.dev) {
            (None, true) => Ok(Access::Dev),
            (Some(_), true) => bail!(
                "--dev opens the node to everyone who knows the well-known key, an administrator key closes it: leave out --dev, or --admin-key-file (and unset PROFFER_ADMIN_KEY_FILE)"
            ),
            (Some(file), false) => {
                let secret =
                    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                let secret = secret.trim();
                if secret.chars().count() < ADMIN_KEY_CHARS_MIN {
                    bail!("the key in {} is shorter than {ADMIN_KEY_CHARS_MIN} characters", file.display());
                }
                Ok(Access::AdminKey(secret.to_owned()))
            }
            (None, false) => bail!(
                "a node does not start open: give --admin-key-file FILE (or PROFFER_ADMIN_KEY_FILE), or --dev to try it out"
            ),
        }
    }

    fn storage(&self) -> Storage {
        if self.ephemeral { Storage::Ephemeral } else { Storage::Directory(self.data.clone()) }
    }
}

/// Runs the command.
///
/// # Errors
/// When the configuration is refused, the data directory cannot be recovered or the address is taken.
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let access = args.access()?;
    let node = Node::start(Composition { listen: args.listen, storage: args.storage(), access }).await?;
    announce(&node, args.dev)?;
    stop_signal().await?;
    eprintln!("stopping: no new calls, finishing those under way");
    node.stop().await
}

/// Says where the node listens, and loudly that it is open if it is.
pub fn announce(node: &Node, dev: bool) -> anyhow::Result<()> {
    if dev {
        eprintln!("!! development mode: anyone who can reach this port has all rights with the API key {DEV_KEY}");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{}", node.address())?;
    Ok(out.flush()?)
}

/// Resolves at SIGINT or SIGTERM.
pub async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        biased;
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(dev: bool, admin_key_file: Option<PathBuf>) -> anyhow::Result<Access> {
        let listen = ([127, 0, 0, 1], 0).into();
        ServeArgs { listen, data: PathBuf::new(), ephemeral: true, dev, admin_key_file }.access()
    }

    #[test]
    fn a_node_is_open_or_closed_but_never_said_to_be_what_it_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
        let key = Some(file.path().to_owned());
        assert!(matches!(access(true, None), Ok(Access::Dev)));
        assert!(matches!(access(false, key.clone()), Ok(Access::AdminKey(key)) if key.len() == 32));
        assert!(access(true, key).unwrap_err().to_string().contains("PROFFER_ADMIN_KEY_FILE"));
        assert!(access(false, None).is_err());
    }
}
