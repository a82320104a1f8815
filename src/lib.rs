//! The engine of `ecgpipe` and its command line.
//!
//! ```text
//! YAML --pipeline--> Pipeline --plan(registry)--> Plan --expand--> jobs --schedule--> ready job
//!                                                                                        |
//!                                        hit <-- store::lookup <-- key <-----------------'
//!                                        miss --> job::execute (worker) --> store::publish
//!                        every step --> Event --> track: console, run folder, MLflow
//! ```
//!
//! Who may import whom (`tests/tidy.rs` enforces it):
//!
//! | module | may use |
//! |---|---|
//! | `digest`, `schedule`, `diagnostic`, `git`, `utc`, `whole_file` | nothing of ours |
//! | `event`, `explain` | `digest` |
//! | `store` | `digest`, `whole_file` |
//! | `pipeline` | `diagnostic` |
//! | `plan` | `pipeline`, `diagnostic` |
//! | `schema`, `graph` | `plan`, `pipeline`, `diagnostic` |
//! | `hot` | `digest`, `store` |
//! | `expand` | `plan`, `schedule`, `event` |
//! | `job`, `key` | each other, `expand`, `hot`, `store`, `digest`, `event` |
//! | `plugin` | `diagnostic`, `digest`, `job`, `pipeline` |
//! | `publish` | `store`, `digest`, `whole_file` |
//! | `engine` | all of the above |
//! | `track` | `event`, `digest`, `explain`, `git`, `pipeline`, `utc` |
//! | `cli` | nothing of ours |
//! | `commands` | everything |
//!
//! Nothing here names a concrete stage: stages come in through [`ecgpipe_sdk::Registry`], filled by `main`.

pub mod cli;
pub mod commands;
pub mod diagnostic;
pub mod digest;
pub mod engine;
pub mod event;
pub mod expand;
pub mod explain;
pub mod git;
pub mod graph;
pub mod hot;
pub mod job;
pub mod key;
pub mod pipeline;
pub mod plan;
pub mod plugin;
pub mod publish;
pub mod schedule;
pub mod schema;
pub mod store;
pub mod track;
pub mod utc;
pub mod whole_file;
