//! `ecgpipe worker`: one job of a built-in stage by the protocol of plugins; what `run --isolate` starts.

use super::{Exit, Failure, Wiring};
use crate::{cli::Worker, plugin::worker};

pub(super) fn worker(args: &Worker, wiring: &Wiring) -> Result<Exit, Failure> {
    match worker::work(&wiring.registry, &args.job, &mut std::io::stdout()) {
        Ok(true) => Ok(Exit::Success),
        // The host reads why in `result.json`.
        Ok(false) => Ok(Exit::Failed),
        Err(error) => Err(Failure { message: error.message, help: error.help, exit: Exit::Environment }),
    }
}
