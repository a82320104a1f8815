//! `ecgpipe stages`: the catalogue, and a new stage to begin from.

mod new;

use super::{Exit, Failure, Wiring, print, print_json, table};
use crate::{
    cli::{Stages, StagesVerb},
    diagnostic::nearest,
    schema,
};

pub(super) fn stages(args: &Stages, wiring: &Wiring) -> Result<Exit, Failure> {
    if let Some(StagesVerb::New(args)) = &args.verb {
        return new::new(args, wiring);
    }
    let registry = &wiring.registry;
    for (name, why) in registry.refused() {
        eprintln!("warning: the plugin `{name}` cannot be used\n{why}");
    }
    if args.kinds {
        print(&schema::kind_tables());
    } else if args.schema {
        print_json(&schema::pipeline_schema(registry));
    } else if args.catalogue {
        print(&schema::stage_catalogue(registry));
    } else if let Some(name) = &args.name {
        if let Some(why) = registry.refused().get(name) {
            return Err(Failure::usage(why));
        }
        let Some(stage) = registry.get(name) else {
            let known: Vec<&str> = registry.iter().map(|stage| stage.spec().name).collect();
            let failure = Failure::usage(format!("there is no stage `{name}`"));
            let help = nearest(name, known.iter().copied()).map_or_else(
                || format!("the stages are {}", known.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(failure.help(help));
        };
        print(&schema::stage_entry(stage.spec()));
    } else {
        let rows: Vec<Vec<String>> =
            registry.iter().map(|stage| vec![stage.spec().name.to_owned(), stage.spec().summary.to_owned()]).collect();
        print(&table(&rows));
    }
    Ok(Exit::Success)
}
