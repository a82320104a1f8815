//! Owns the program's side of the protocol for built-in stages: one job, read from `job.json`, run in this process.

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, atomic::AtomicBool},
};

use ecgpipe_sdk::{Context, PortValues, Registry, SourceFile, StageError, StageEvent};

use super::{
    program,
    protocol::{self, ErrorEntry, FORMAT, JobFile, ResultFile},
};
use crate::{diagnostic::nearest, job::panicked};

/// Runs a job and writes its outputs and `result.json` beside `job.json`; events go to `stdout`, a line each. The answer says
/// whether the stage did its work.
///
/// # Errors
/// If there is no job to speak of, or the result cannot be written.
pub fn work(registry: &Registry, path: &Path, stdout: &mut (dyn Write + Send)) -> Result<bool, StageError> {
    let job = protocol::read_job(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let done = catch_unwind(AssertUnwindSafe(|| run(registry, &job, folder, stdout)))
        .unwrap_or_else(|panic| Err(panicked(&*panic)));
    let error = done.err().map(|error| ErrorEntry { message: error.message, help: error.help, record: error.record });
    let good = error.is_none();
    let result = ResultFile { format: FORMAT, metrics: Vec::new(), warnings: Vec::new(), error };
    protocol::write_result(folder, &result)?;
    Ok(good)
}

fn run(registry: &Registry, job: &JobFile, folder: &Path, stdout: &mut (dyn Write + Send)) -> Result<(), StageError> {
    let Some(stage) = registry.get(&job.stage) else {
        let error = StageError::new(format!("there is no stage `{}`", job.stage));
        return Err(match nearest(&job.stage, registry.iter().map(|stage| stage.spec().name)) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error,
        });
    };
    let spec = stage.spec();
    let params = stage
        .bind(&job.params)
        .map_err(|error| StageError::new(format!("parameter `{}`: {}", error.path, error.message)))?;
    let inputs: PortValues = protocol::load(folder, spec, job)?;
    let seed = job.seed.as_ref().map(|seed| seed.parse::<u64>());
    let seed = seed.transpose().map_err(|error| StageError::new(format!("`seed` is not a whole number: {error}")))?;
    let file = |file: &protocol::FileEntry| SourceFile { name: file.name.clone(), path: PathBuf::from(&file.path) };
    let files: Vec<SourceFile> = job.files.iter().map(file).collect();
    let stdout = Mutex::new(stdout);
    let tell = |event: StageEvent| {
        let mut line = serde_json::to_vec(&program::line(&event)).expect("an event is plain data");
        line.push(b'\n');
        let mut stdout = stdout.lock().unwrap_or_else(PoisonError::into_inner);
        // A host that has gone away needs no events.
        let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
    };
    let cancel = AtomicBool::new(false);
    let mut cx = Context::new(&cancel, &tell)
        .with_record(job.record.as_ref())
        .with_seed(seed)
        .with_files(&files)
        .with_threads(job.threads)
        .with_spool_folder(Some(folder));
    if let Some(project) = &job.project {
        cx = cx.with_surroundings(Path::new(&project.data_folder), project.offline);
    }
    let outputs = stage.run(&params, inputs, &cx)?;
    protocol::store(folder, spec, &outputs)
}
