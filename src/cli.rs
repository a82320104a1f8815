//! The command line as types. No logic: each verb's is in [`crate::commands`].

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

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
    /// Run a pipeline once for every combination of some parameters; what the runs share is computed once.
    Sweep(Sweep),
    /// Show the jobs of a pipeline and which of them would be computed, and why.
    Plan(PlanArgs),
    /// Check pipeline files without running anything; all errors and warnings at once.
    Check(Check),
    /// Explain every hit and miss of a run, or of the coming one.
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
    /// Look at recordings, check and convert them: WFDB, EDF, BDF, CSV and NumPy.
    #[command(subcommand)]
    Data(Data),
    /// Classify the beats of a WFDB record or an EDF, BDF or CSV file, or windows in a .npy file, with an exported model.
    Infer(Infer),
    /// Show where a published file or an output comes from, down to the raw bytes, and verify every step.
    Trace(Trace),
    /// Derive a run again from its raw files alone, in an empty cache, and compare the digests of every output.
    Reproduce(Reproduce),
    /// Copy runs to an MLflow server.
    #[command(subcommand)]
    Mlflow(Mlflow),
    /// Run one job of a built-in stage from its job.json, as a program of its own; the protocol of plugins.
    Worker(Worker),
}

/// Which pipeline.
#[derive(Clone, Debug, Args)]
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
    /// Train here: short for `--set node.device=DEVICE` for all nodes that train a network. A graphics card needs a build with
    /// `--features cuda` or `--features wgpu`, and gives results that are not bit for bit repeatable.
    #[arg(long, value_name = "DEVICE", value_parser = ["cpu", "cuda", "wgpu"])]
    pub device: Option<String>,
    /// Never use the network.
    #[arg(long)]
    pub offline: bool,
    /// Run every stage in a process of its own: one that crashes fails only its job. Results are the same.
    #[arg(long)]
    pub isolate: bool,
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

/// `ecgpipe sweep`.
#[derive(Debug, Args)]
pub struct Sweep {
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// A parameter and its values, with commas between: `train.epochs=5,10`. A list is one value (`x.y=[1,2],[3]`), and so
    /// is text in quotes. One value holds for all points. Repeatable: every combination is a point.
    #[arg(long = "set", value_name = "KEY=VALUE,VALUE")]
    pub sets: Vec<String>,
    /// Every point once for each seed: `1..5` (both ends included) or `1,4,7`.
    #[arg(long, value_name = "SEEDS")]
    pub seeds: Option<String>,
    /// The first values of all lists make a point, the second ones another, instead of every combination.
    #[arg(long)]
    pub zip: bool,
    /// How.
    #[command(flatten)]
    pub work: WorkArgs,
    /// Only say what would be computed for all points together, and why.
    #[arg(long)]
    pub dry_run: bool,
    /// Stop at the first point that fails.
    #[arg(long)]
    pub fail_fast: bool,
    /// Rank the points, best first: a metric, with `:min` or `:max` where its name does not tell which is better.
    #[arg(long, value_name = "METRIC")]
    pub sort: Option<String>,
    /// Show these metrics in the table. Repeatable.
    #[arg(long = "metric", value_name = "METRIC")]
    pub metrics: Vec<String>,
    /// At the end, run the point that is best by this metric once more as `ecgpipe run` does, which publishes its files;
    /// everything is found in the cache. Without it, each point's files stay in its run folder.
    #[arg(long, value_name = "METRIC", conflicts_with_all = ["dry_run"])]
    pub publish_best: Option<String>,
    /// Warnings and failures only.
    #[arg(short, long)]
    pub quiet: bool,
    /// The table as JSON.
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
    /// Pipeline files, or folders of them.
    #[arg(required = true)]
    pub pipelines: Vec<PathBuf>,
    /// Override a parameter in each of them: `node.param=value`, `seed=7`, `tracking.experiment=name`. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The run: its id, a unique beginning of it, or `latest`. A pipeline file asks about its coming run instead.
    #[arg(default_value = "latest", value_name = "RUN|FILE")]
    pub run: String,
    /// About the coming run of the pipeline that was run last, with the same `--set`.
    #[arg(long, conflicts_with_all = ["run", "sets"])]
    pub next: bool,
    /// Override a parameter of the coming run, as in `run`. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Only jobs of this node, or of one record: `node` or `node[record]`.
    #[arg(long, value_name = "JOB")]
    pub job: Option<String>,
    /// The cache [default: data/store in the project folder].
    #[arg(long, value_name = "DIR", env = "ECGPIPE_STORE")]
    pub store: Option<PathBuf>,
    /// Never use the network.
    #[arg(long)]
    pub offline: bool,
    /// As JSON, with every field of every key.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe stages`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Stages {
    /// What to do other than showing stages.
    #[command(subcommand)]
    pub verb: Option<StagesVerb>,
    /// One stage; all of them without it.
    pub name: Option<String>,
    /// Print the JSON schema for pipeline files (for editors).
    #[arg(long, conflicts_with = "name")]
    pub schema: bool,
    /// Leave out the plugins of the project.
    #[arg(long)]
    pub built_in: bool,
    /// Print the whole catalogue as Markdown.
    #[arg(long, conflicts_with_all = ["name", "schema"])]
    pub catalogue: bool,
    /// Print the kinds of artifacts with their columns and metadata as Markdown.
    #[arg(long, conflicts_with_all = ["name", "schema", "catalogue"])]
    pub kinds: bool,
}

/// `ecgpipe stages new`.
#[derive(Debug, Subcommand)]
pub enum StagesVerb {
    /// Write a new stage that works, with a test that passes, to begin from.
    New(NewStage),
}

/// In which language.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("language").required(true).args(["rust", "python", "sh"])))]
pub struct NewStage {
    /// Its name, in snake_case.
    pub name: String,
    /// A file in `stages/` of a checkout of ecgpipe, compiled into it.
    #[arg(long)]
    pub rust: bool,
    /// A folder in `stages/` of the project, with a program in Python (numpy, pyarrow).
    #[arg(long)]
    pub python: bool,
    /// A folder in `stages/` of the project, with a POSIX shell script.
    #[arg(long)]
    pub sh: bool,
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
    List(RunsList),
    /// One run: parameters, metrics, what was computed and published; or the points of a sweep.
    Show {
        /// Id, unique beginning, or `latest`; or the id of a sweep.
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

/// `ecgpipe runs list`.
#[derive(Debug, Args)]
pub struct RunsList {
    /// By what: a metric, a parameter, or a column as `started` or `seconds`; the highest comes last.
    #[arg(long, value_name = "NAME", default_value = "started")]
    pub sort: String,
    /// The highest first.
    #[arg(long)]
    pub desc: bool,
    /// Only runs for which this holds: `train.epochs>=10`, `test/accuracy>0.9`, `status=finished`, `sweep=ID`. Operators are
    /// `=`, `!=`, `<`, `<=`, `>` and `>=`. A run without the value is left out. Repeatable: all must hold.
    #[arg(long = "where", value_name = "CONDITION")]
    pub conditions: Vec<String>,
    /// What to show instead of the usual columns: metrics, parameters and columns, with commas between.
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Only so many: the last ones, or with `--desc` the first.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
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
    /// A WFDB record (`path/100`, `path/100.hea`), an .edf, .bdf or .csv file, or a `.npy` file of shape (N, 1, 187).
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

/// `ecgpipe data`.
#[derive(Debug, Subcommand)]
pub enum Data {
    /// Show a recording: leads with ranges and quality, annotations by symbol and AAMI class, rhythms.
    Show(DataShow),
    /// Convert a recording to WFDB or CSV, a piece at a time; says what was rounded or left behind.
    Convert(DataConvert),
    /// Check every record of a database: headers, sizes, checksums, annotation files, SHA256SUMS.txt; exit 1 if something
    /// is wrong.
    Verify(DataVerify),
}

/// `ecgpipe data show`.
#[derive(Debug, Args)]
pub struct DataShow {
    /// A WFDB record (`path/100` or `path/100.hea`), or an .edf, .bdf, .csv, .tsv or .npy file.
    pub record: PathBuf,
    /// Annotation files to count, by extension. Repeatable [default: all that are there].
    #[arg(long = "annotator", value_name = "NAME")]
    pub annotators: Vec<String>,
    /// What the file itself does not say.
    #[command(flatten)]
    pub unsaid: Unsaid,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe data convert`.
#[derive(Debug, Args)]
pub struct DataConvert {
    /// A WFDB record (`path/100` or `path/100.hea`), or an .edf, .bdf, .csv, .tsv or .npy file.
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Where to: a WFDB record (`path/name`), or a .csv file.
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// The WFDB signal format, by number [default: that of IN, else the narrowest of 16, 24 and 32 that holds the samples].
    #[arg(long, value_name = "NUMBER")]
    pub format: Option<u32>,
    /// Only these leads, in this order: names, or places as `#2`, with commas between.
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub leads: Vec<String>,
    /// From this time on: seconds, m:ss or h:mm:ss after the beginning.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Up to this time.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Annotation files to take along, by extension; annotations within an EDF+ file get this one. Repeatable [default: atr,
    /// if it is there].
    #[arg(long = "annotator", value_name = "NAME")]
    pub annotators: Vec<String>,
    /// What the file itself does not say.
    #[command(flatten)]
    pub unsaid: Unsaid,
    /// Write over files that exist.
    #[arg(long)]
    pub force: bool,
}

/// What CSV and NumPy files do not say of themselves.
#[derive(Debug, Args)]
#[command(next_help_heading = "For CSV and NumPy files")]
pub struct Unsaid {
    /// Samples per second; a CSV file with a time column does not need it.
    #[arg(long, value_name = "HZ")]
    pub fs: Option<f64>,
    /// What the rows of a NumPy array are.
    #[arg(long, value_enum)]
    pub axes: Option<DataAxes>,
    /// Names of all leads of the file, with commas between.
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub names: Vec<String>,
    /// The unit of leads that have none [default: mV].
    #[arg(long, value_name = "UNIT")]
    pub units: Option<String>,
    /// ADC units per physical unit [default: the smallest power of ten that keeps all values].
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub gain: Option<f64>,
    /// The sample that stands for 0 physical units, with `--gain`.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, requires = "gain")]
    pub baseline: Option<i32>,
}

/// Axes of a NumPy array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DataAxes {
    /// A row is a moment.
    SamplesByLeads,
    /// A row is a lead.
    LeadsBySamples,
}

/// `ecgpipe data verify`.
#[derive(Debug, Args)]
pub struct DataVerify {
    /// The folder of the records.
    pub folder: PathBuf,
    /// Annotation files to check, by extension. Repeatable [default: those that ANNOTATORS names, else all that are there].
    #[arg(long = "annotator", value_name = "NAME")]
    pub annotators: Vec<String>,
    /// Records at once [default: all cores].
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe trace`.
#[derive(Debug, Args)]
pub struct Trace {
    /// A published file whatever its name now, for example `models/ecg_model.onnx`; or an output of a run, for example
    /// `train.model` or `windows.windows[100]`.
    #[arg(value_name = "FILE|OUTPUT")]
    pub what: String,
    /// The run whose output it is: its id, a unique beginning of it, or `latest` [default: for a file the last run that
    /// published it, else `latest`].
    #[arg(long, value_name = "RUN")]
    pub run: Option<String>,
    /// Check everything on the way: the raw files (in DIR, else where the run's sources look now), and that every manifest
    /// and blob is in the cache and leads to the next.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub verify: Option<Option<PathBuf>>,
    /// Name every record and raw file.
    #[arg(long)]
    pub full: bool,
    /// The cache [default: data/store in the project folder].
    #[arg(long, value_name = "DIR", env = "ECGPIPE_STORE")]
    pub store: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe reproduce`.
#[derive(Debug, Args)]
pub struct Reproduce {
    /// The run: its id, a unique beginning of it, or `latest`.
    #[arg(default_value = "latest")]
    pub run: String,
    /// Only these nodes and what they need. Repeatable.
    #[arg(long = "target", value_name = "NODE")]
    pub targets: Vec<String>,
    /// Jobs at once [default: all cores].
    #[arg(short, long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Keep the new cache in this folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Compute even though raw files, code or parameters are known to be others.
    #[arg(long)]
    pub anyway: bool,
    /// The cache that the run used [default: data/store in the project folder].
    #[arg(long, value_name = "DIR", env = "ECGPIPE_STORE")]
    pub store: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `ecgpipe worker`.
#[derive(Debug, Args)]
pub struct Worker {
    /// The job.json in its folder; outputs and result.json are written beside it.
    pub job: PathBuf,
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
