//! The command line as types. No logic: each verb's is in [`crate::commands`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// ECG pipelines: WFDB records in, an evaluated ONNX beat classifier and findings out, every step cached by content.
///
/// Decision support for a cardiologist, never a diagnosis.
#[derive(Debug, Parser)]
#[command(name = "ecgpipe", version, max_term_width = 110)]
pub struct Cli {
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
    /// The project folder: `data/`, `models/`, `plots/` and `runs/` are there.
    #[arg(short = 'C', long = "project", value_name = "DIR", default_value = ".", global = true)]
    pub project: PathBuf,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline; only what changed is computed.
    Run(Run),
    /// Show the jobs of a pipeline and which of them would be computed, and why.
    Plan(PlanArgs),
    /// Check a pipeline file without running anything; all errors at once.
    Check(Check),
    /// Explain every hit and miss of a run.
    Explain(Explain),
    /// List the stages, or show one: ports, parameters, defaults.
    Stages(Stages),
    /// Draw a pipeline.
    Graph(Graph),
    /// List, show and compare runs.
    #[command(subcommand)]
    Runs(Runs),
    /// Look after the cache.
    #[command(subcommand)]
    Cache(Cache),
    /// Classify the beats of a WFDB record, or of windows in a .npy file, with an exported model.
    Infer(Infer),
    /// Show where a published file comes from, down to the digests of the raw files, and verify them.
    Trace(Trace),
    /// Copy runs to an MLflow server.
    #[command(subcommand)]
    Mlflow(Mlflow),
}

/// Which pipeline.
#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// Override a parameter: `node.param=value`, `seed=7`, `tracking.experiment=name`. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Where data comes from and how much is at work.
#[derive(Debug, Args)]
pub struct WorkArgs {
    /// The cache [default: data/store in the project folder].
    #[arg(long, value_name = "DIR", env = "ECGPIPE_STORE")]
    pub store: Option<PathBuf>,
    /// Only these nodes and what they need. Repeatable.
    #[arg(long = "target", value_name = "NODE")]
    pub targets: Vec<String>,
    /// Compute these nodes even if the cache has them. Repeatable.
    #[arg(long, value_name = "NODE")]
    pub force: Vec<String>,
    /// Jobs at once [default: all cores].
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Never use the network.
    #[arg(long)]
    pub offline: bool,
    /// Look here for what the cache lacks before computing it: a folder, file:///folder or s3://bucket/prefix.
    #[arg(long, value_name = "URL", env = "ECGPIPE_REMOTE")]
    pub remote: Option<String>,
}

/// `ecgpipe run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// How.
    #[command(flatten)]
    pub work: WorkArgs,
    /// Only say what would be computed, and why.
    #[arg(long)]
    pub dry_run: bool,
    /// After a failure, go on with what does not depend on it.
    #[arg(long)]
    pub keep_going: bool,
    /// At the end, send the results of this run to the remote.
    #[arg(long)]
    pub push: bool,
    /// Warnings and failures only.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// Events as JSON lines on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// How.
    #[command(flatten)]
    pub work: WorkArgs,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The run: its id, a unique beginning of it, or `latest`.
    #[arg(default_value = "latest")]
    pub run: String,
    /// Only jobs of this node, or of one record: `node` or `node[record]`.
    #[arg(long, value_name = "JOB")]
    pub job: Option<String>,
    /// The cache [default: data/store in the project folder].
    #[arg(long, value_name = "DIR", env = "ECGPIPE_STORE")]
    pub store: Option<PathBuf>,
    /// As JSON, with every field of every key.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe stages`.
#[derive(Debug, Args)]
pub struct Stages {
    /// One stage; all of them without it.
    pub name: Option<String>,
    /// Print the JSON schema for pipeline files (for editors).
    #[arg(long, conflicts_with = "name")]
    pub schema: bool,
    /// Print the whole catalogue as Markdown.
    #[arg(long, conflicts_with_all = ["name", "schema"])]
    pub catalogue: bool,
}

/// Formats of `ecgpipe graph`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// A picture.
    Svg,
    /// Mermaid, for Markdown.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// `ecgpipe graph`.
#[derive(Debug, Args)]
pub struct Graph {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// The format.
    #[arg(long, value_enum, default_value = "svg")]
    pub format: GraphFormat,
    /// Write to a file instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `ecgpipe runs`.
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// All runs, oldest first.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// One run: parameters, metrics, what was computed.
    Show {
        /// Id, unique beginning, or `latest`.
        #[arg(default_value = "latest")]
        run: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// What differs between two runs: parameters, metrics, stages.
    Diff {
        /// The first.
        a: String,
        /// The second.
        b: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `ecgpipe cache`.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// Sizes by stage.
    Stats(CacheArgs),
    /// Read and verify everything; exit 1 if something is damaged.
    Verify {
        /// Move what is damaged aside, so that it is computed anew.
        #[arg(long)]
        repair: bool,
        /// Where.
        #[command(flatten)]
        cache: CacheArgs,
    },
    /// Remove what no kept run needs.
    Gc {
        /// Keep the results of this many latest runs of every pipeline.
        #[arg(long, default_value_t = Cache::KEEP_RUNS_N, value_name = "N")]
        keep_runs: usize,
        /// Never remove what is younger than this many hours.
        #[arg(long, default_value_t = 1.0, value_name = "HOURS")]
        grace_hours: f64,
        /// Only say what would go.
        #[arg(long)]
        dry_run: bool,
        /// Where.
        #[command(flatten)]
        cache: CacheArgs,
    },
    /// Send results to a remote cache: what `gc` would keep, as far as the remote does not have it.
    Push {
        /// The remote: a folder, file:///folder or s3://bucket/prefix.
        #[arg(env = "ECGPIPE_REMOTE")]
        remote: String,
        /// Only the results of this run: its id, a unique beginning of it, or `latest`. Repeatable.
        #[arg(long = "run", value_name = "RUN", conflicts_with = "all")]
        runs: Vec<String>,
        /// Everything in the cache.
        #[arg(long)]
        all: bool,
        /// Also read what the remote has already, and replace what is damaged.
        #[arg(long)]
        verify: bool,
        /// Only say what would be sent.
        #[arg(long)]
        dry_run: bool,
        /// Where.
        #[command(flatten)]
        cache: CacheArgs,
    },
    /// Bring results from a remote cache; each is verified before it is stored.
    Pull {
        /// The remote: a folder, file:///folder or s3://bucket/prefix.
        #[arg(env = "ECGPIPE_REMOTE")]
        remote: String,
        /// Only the results of this run: its id, a unique beginning of it, or `latest`. Repeatable.
        #[arg(long = "run", value_name = "RUN")]
        runs: Vec<String>,
        /// Only say what would be brought.
        #[arg(long)]
        dry_run: bool,
        /// Where.
        #[command(flatten)]
        cache: CacheArgs,
    },
}

impl Cache {
    /// How many latest runs of every pipeline are worth keeping, and pushing.
    pub const KEEP_RUNS_N: usize = 10;
}

/// Which cache.
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// The cache [default: data/store in the project folder].
    #[arg(long, value_name = "DIR", env = "ECGPIPE_STORE")]
    pub store: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Formats of `ecgpipe infer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FindingsFormat {
    /// For people.
    Text,
    /// For programs: everything.
    Json,
    /// For spreadsheets: one line a beat.
    Csv,
}

/// `ecgpipe infer`.
#[derive(Debug, Args)]
pub struct Infer {
    /// A WFDB record (`path/100`, `path/100.hea`) with one or two leads, or a `.npy` file of shape (N, 1, 187).
    pub input: PathBuf,
    /// The exported model.
    #[arg(long, value_name = "FILE", default_value = "models/ecg_model.onnx")]
    pub model: PathBuf,
    /// The format.
    #[arg(long, value_enum, default_value = "text")]
    pub format: FindingsFormat,
    /// Which lead to read, by name [default: the model's own preference, MLII first].
    #[arg(long, value_name = "NAME")]
    pub lead: Option<String>,
    /// Never use the network (for the ONNX Runtime library).
    #[arg(long)]
    pub offline: bool,
}

/// `ecgpipe trace`.
#[derive(Debug, Args)]
pub struct Trace {
    /// A published file, for example `models/ecg_model.onnx`.
    pub file: PathBuf,
    /// A folder with the raw files, to verify their digests.
    #[arg(long, value_name = "DIR")]
    pub verify: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe mlflow`.
#[derive(Debug, Subcommand)]
pub enum Mlflow {
    /// Send what a server has not got yet; safe to repeat.
    Sync {
        /// Runs: ids, unique beginnings or `latest`; all of them without any.
        runs: Vec<String>,
        /// The server [default: $MLFLOW_TRACKING_URI].
        #[arg(long, value_name = "URL")]
        uri: Option<String>,
    },
}
