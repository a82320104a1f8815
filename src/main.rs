//! The only wiring: which stages there are, and what `infer` is.

use std::process::ExitCode;

use clap::Parser;
use ecgpipe::{
    cli::Cli,
    commands::{BeatClass, Wiring, dispatch},
};
use ecgpipe_sdk::Registry;
use ecgpipe_stages::{
    aami::{AamiClass, EscapeRule},
    lead::mv_per_unit,
};

/// Stages turn megabytes of samples over for every record; the system's allocator gives each buffer back to the kernel and
/// faults it in anew, which cost a third of the CPU time of ingest (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut registry = Registry::new();
    ecgpipe_stages::register(&mut registry);
    dispatch(cli, &Wiring { registry, infer: infer::infer, beat_class, mv_per_unit })
}

fn beat_class(symbol: &str) -> Option<BeatClass> {
    let letter = |rule: EscapeRule| rule.class(symbol).map(AamiClass::letter);
    Some(BeatClass { de_chazal: letter(EscapeRule::DeChazal)?, ec57: letter(EscapeRule::Ec57)? })
}

mod infer {
    //! `ecgpipe infer`: from the command line's types to those of the stages.

    use std::path::Path;

    use ecgpipe::{
        cli::{FindingsFormat, Infer},
        commands::{Exit, Failure},
    };
    use ecgpipe_stages::infer::{Format, Request, run};

    pub(super) fn infer(args: &Infer) -> Result<String, Failure> {
        let format = match args.format {
            FindingsFormat::Text => Format::Text,
            FindingsFormat::Json => Format::Json,
            FindingsFormat::Csv => Format::Csv,
        };
        let request = Request {
            input: &args.input,
            model: &args.model,
            lead: args.lead.as_deref(),
            format,
            data_folder: Path::new("data"),
            offline: args.offline,
        };
        run(&request).map_err(|error| Failure { message: error.to_string(), help: error.help, exit: Exit::Environment })
    }
}
