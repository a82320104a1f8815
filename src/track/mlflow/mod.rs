//! A copy of a run in MLflow, made without ever holding up the run.
//!
//! Two halves that meet only in a folder, the spool:
//!
//! - [`Spool`] is what the run writes to: one `write` into a local file a point, no network, no thread.
//! - [`Sender`] (a thread, while the run goes on) and [`sync`] (a command, afterwards) read the spool and repeat it to a
//!   server through its REST interface.
//!
//! Invariant: the run is never held up nor failed by the server; what could not be sent stays in the spool
//! (`an_outage_delays_and_loses_nothing`).
//! Invariant: a spool may be sent any number of times, from any point of a crash, and the server ends with one run and
//! every point once (`a_crash_at_any_request_replays_without_doubles`).
//! Invariant: a spool is sent by one process at a time, which a lock of the operating system ensures; it is released
//! with the process, so nothing ever needs a manual unlock (`one_sender_a_spool`).
//! Invariant: times are fixed when a point is logged, never when it is sent, because the server tells a repeated point
//! by its key, step, time and value.
//!
//! This module knows nothing of pipelines, stages or events: whoever tracks a run translates those into the plain data
//! taken here. It draws no randomness and reads the clock only to wait.

mod client;
mod model;
mod names;
mod replay;
mod report;
mod sender;
mod settings;
mod spool;
mod wire;

#[cfg(test)]
mod fake_server;
#[cfg(test)]
mod tests;

pub use names::allowed_name;
pub use replay::sync;
pub use report::{Counts, SetAside, SyncError, SyncReport};
pub use sender::Sender;
pub use settings::{Credentials, Settings, SettingsError};
pub use spool::{
    Dataset, GitState, LoggedModel, Registration, RunDescription, Spool, SpoolError, Status, TensorSpec, is_spool,
};
