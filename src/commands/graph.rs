//! `ecgpipe graph`: the pipeline as a picture or as text for other tools.

use super::{Exit, Failure, Wiring, load, print};
use crate::{
    cli::{Graph, GraphFormat},
    graph,
};

pub(super) fn graph(args: &Graph, wiring: &Wiring) -> Result<Exit, Failure> {
    let (_, plan) = load(&args.pipeline, &wiring.registry)?;
    let text = match args.format {
        GraphFormat::Svg => graph::svg(&plan),
        GraphFormat::Mermaid => graph::mermaid(&plan),
        GraphFormat::Dot => graph::dot(&plan),
    };
    match &args.output {
        Some(path) => std::fs::write(path, text)
            .map_err(|error| Failure::environment(format!("failed to write {}: {error}", path.display())))?,
        None => print(&text),
    }
    Ok(Exit::Success)
}
