//! The few ways in which the store changes a disk, in one place.
//!
//! Every step of a publication passes through [`Disk`], so that the tests can make any of them fail, kill the process
//! there, or look at what a power cut would leave. Outside tests the hook does not exist.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A step of a publication, named for the tests. Each is announced before it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    BlobCreate,
    BlobWrite,
    BlobRename,
    ManifestCreate,
    ManifestWrite,
    /// Everything written so far becomes durable.
    Sync,
    ManifestRename,
    /// The renames of the manifests become durable.
    LastSync,
    /// gc has judged a file to be old and is about to rename it away.
    Collect,
}

/// What a test makes of a step.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) enum Verdict {
    /// Take the step.
    Go,
    /// Fail with this error number of the operating system.
    Fail(i32),
    /// Write half of the bytes, then fail with this error number. For the steps that write.
    Short(i32),
}

#[cfg(test)]
pub(super) type Hook = std::sync::Arc<dyn Fn(Step) -> Verdict + Send + Sync>;

#[derive(Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) hook: Option<Hook>,
}

impl Disk {
    /// Writes a new file and leaves nothing behind if that fails.
    pub(super) fn write_new(&self, path: &Path, bytes: &[u8], create: Step, write: Step) -> io::Result<()> {
        self.announce(create)?;
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        let written = self.write_all(&mut file, bytes, write);
        if written.is_err() {
            // The disk may be full: free what was taken. gc collects the file if even this fails.
            let _ = fs::remove_file(path);
        }
        written
    }

    /// Writes a file that is there already and whose content, if a dead process has left some, does not matter.
    pub(super) fn write_over(&self, mut file: &File, bytes: &[u8], create: Step, write: Step) -> io::Result<()> {
        self.announce(create)?;
        if file.metadata()?.len() > 0 {
            file.set_len(0)?;
        }
        self.write_all(&mut file, bytes, write)
    }

    /// Renames a finished file into its place, making the place's folder when it is the first there.
    pub(super) fn rename(&self, from: &Path, to: &Path, step: Step) -> io::Result<()> {
        self.announce(step)?;
        match fs::rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = to.parent() {
                    fs::create_dir_all(folder)?;
                }
                fs::rename(from, to)
            }
            result => result,
        }
    }

    /// Makes everything written to the file system of `root` durable, names included.
    pub(super) fn sync(&self, root: &File, step: Step) -> io::Result<()> {
        self.announce(step)?;
        // No test cuts the power for real; those that watch the steps compute what a power cut would leave.
        #[cfg(test)]
        if self.hook.is_some() {
            return Ok(());
        }
        sync_file_system(root)
    }

    fn write_all(&self, file: &mut impl Write, bytes: &[u8], step: Step) -> io::Result<()> {
        #[cfg(test)]
        if let Some(hook) = &self.hook {
            match hook(step) {
                Verdict::Go => {}
                Verdict::Fail(code) => return Err(io::Error::from_raw_os_error(code)),
                Verdict::Short(code) => {
                    file.write_all(&bytes[..bytes.len() / 2])?;
                    return Err(io::Error::from_raw_os_error(code));
                }
            }
        }
        let _ = step;
        file.write_all(bytes)
    }

    pub(super) fn announce(&self, step: Step) -> io::Result<()> {
        #[cfg(test)]
        if let Some(hook) = &self.hook
            && let Verdict::Fail(code) | Verdict::Short(code) = hook(step)
        {
            return Err(io::Error::from_raw_os_error(code));
        }
        let _ = step;
        Ok(())
    }
}

/// Through the C library, so that a test can stand between (`tests/faults`).
#[cfg(target_os = "linux")]
fn sync_file_system(root: &File) -> io::Result<()> {
    uninterrupted(|| Ok(nix::unistd::syncfs(root)?))
}

/// Elsewhere there is no call for one file system, and `sync` may return before the disk is done: a power cut can
/// then leave a manifest before its blobs, which the digests find when a blob is read.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(_root: &File) -> io::Result<()> {
    nix::unistd::sync();
    Ok(())
}

/// Sets the modification time of `file` to now by the file system's own clock. A member of the group that may write
/// the file may do this without owning it.
pub(super) fn touch(file: &File) -> io::Result<()> {
    use nix::sys::time::TimeSpec;
    Ok(nix::sys::stat::futimens(file, &TimeSpec::UTIME_OMIT, &TimeSpec::UTIME_NOW)?)
}

/// Repeats a call that a signal has interrupted.
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Tells whether the disk says that it cannot read or write what it has (`EIO`).
pub(super) fn is_broken(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::errno::Errno::EIO as i32)
}

/// Tells whether the disk, or the quota, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Tells whether `path` still names the file that `file` has open.
pub(super) fn names(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok(named.ino() == open.ino() && named.dev() == open.dev()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
