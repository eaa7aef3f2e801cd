//! `proffer recover-meta`: one disk is all that is left of a cluster.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;

use crate::compose;

/// Arguments of `proffer recover-meta`.
#[derive(Debug, clap::Args)]
pub struct RecoverMetaArgs {
    /// The data directory of the node that is to go on. Nothing may run on it.
    #[arg(long)]
    data: PathBuf,
    /// What only other nodes knew is lost, and none of their disks will ever run again. Without it nothing is done but telling that.
    #[arg(long)]
    accept_loss: bool,
}

/// Runs the command.
///
/// # Errors
/// When it is refused, or the disk cannot be read.
pub async fn run(args: RecoverMetaArgs) -> anyhow::Result<()> {
    let words = compose::begin_alone(args.data, args.accept_loss).await?;
    writeln!(std::io::stdout().lock(), "{words}").context("cannot write the answer")
}
