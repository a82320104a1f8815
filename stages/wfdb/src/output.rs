//! Files that appear whole or not at all: written under another name, then renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::WfdbError;

/// A file that is being written. Without [`publish`](Self::publish) nothing is left of it.
///
/// It is not forced to the disk: what a power cut leaves of a record, its lengths and checksums give away.
#[derive(Debug)]
pub(crate) struct OutputFile {
    target: PathBuf,
    /// The name until then; `None` afterwards.
    temporary: Option<PathBuf>,
    file: BufWriter<File>,
}

impl OutputFile {
    pub(crate) fn create(target: PathBuf) -> Result<OutputFile, WfdbError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut attempt_idx = 0;
        loop {
            // Never an existing file: that could be a link to anything.
            let temporary = target.with_file_name(format!(".{name}.{}-{attempt_idx}.part", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    return Ok(OutputFile { target, temporary: Some(temporary), file: BufWriter::new(file) });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt_idx < 1000 => attempt_idx += 1,
                Err(error) => return Err(failed(&target, error)),
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), WfdbError> {
        self.file.write_all(bytes).map_err(|error| failed(&self.target, error))
    }

    /// Gives the file its name.
    pub(crate) fn publish(mut self) -> Result<(), WfdbError> {
        let Some(temporary) = self.temporary.clone() else { return Ok(()) };
        let published = self.file.flush().and_then(|()| fs::rename(&temporary, &self.target));
        published.map_err(|error| failed(&self.target, error))?;
        self.temporary = None;
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nobody could do anything about a failure.
            let _ = fs::remove_file(temporary);
        }
    }
}

fn failed(path: &Path, source: io::Error) -> WfdbError {
    WfdbError::Io { path: path.to_owned(), source, help: "check that the folder exists and can be written to" }
}
