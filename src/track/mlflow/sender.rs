//! The thread that copies a spool to the server while the run goes on.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::client::{Bell, Patience};
use super::replay::{Replay, left_n};
use super::report::{SyncError, SyncReport};
use super::settings::Settings;

/// A running copy. Dropping it lets go: the thread ends after the request that it is in, and the spool keeps the rest.
#[derive(Debug)]
pub struct Sender {
    folder: PathBuf,
    bell: Arc<Bell>,
    report: Arc<Mutex<SyncReport>>,
    done: Receiver<()>,
}

impl Sender {
    /// Start to copy the spool in `folder`. Never fails and never waits: whatever goes wrong is in the report.
    pub fn start(folder: &Path, settings: Settings) -> Self {
        let bell = Arc::<Bell>::default();
        let report = Arc::<Mutex<SyncReport>>::default();
        let (done_sender, done) = channel();
        let (thread_bell, thread_report) = (Arc::clone(&bell), Arc::clone(&report));
        let folder = folder.to_owned();
        let thread_folder = folder.clone();
        let started = std::thread::Builder::new().name("mlflow-sender".to_owned()).spawn(move || {
            let result = copy(&thread_folder, &settings, &thread_bell, &thread_report);
            if let Err(error) = result {
                halt(&thread_report, error.to_string());
            }
            // Nobody listens any longer after a deadline.
            let _ = done_sender.send(());
        });
        if let Err(error) = started {
            halt(&report, format!("no thread could be started: {error}"));
        }
        Self { folder, bell, report, done }
    }

    /// How far it is, and whether something is wrong.
    pub fn report(&self) -> SyncReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The run has ended (or the process is about to): send what is left, for `deadline` at most. What is then still
    /// left stays in the spool for [`sync`](super::sync), and the report says so.
    pub fn finish(self, deadline: Duration) -> SyncReport {
        self.bell.ring(Instant::now() + deadline);
        let out_of_time = self.done.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout);
        let mut report = self.report();
        if out_of_time && report.halted.is_none() && !report.complete {
            let deadline_s = deadline.as_secs_f32();
            report.halted = Some(format!("the server did not take everything within {deadline_s} s"));
        }
        report.left_n = left_n(&self.folder);
        report
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.bell.is_rung() {
            self.bell.ring(Instant::now());
        }
    }
}

fn copy(
    folder: &Path,
    settings: &Settings,
    bell: &Arc<Bell>,
    report: &Arc<Mutex<SyncReport>>,
) -> Result<(), SyncError> {
    let mut replay = loop {
        match Replay::open(folder, settings, Patience::Endless, Arc::clone(bell), Arc::clone(report)) {
            // Somebody sends it by hand; there may be something left for us.
            Err(SyncError::Busy { .. }) if !bell.is_rung() && bell.pause(settings.poll) => {}
            opened => break opened?,
        }
    };
    loop {
        // Asked before, so that what was written before the bell rang is still sent.
        let last_round = bell.is_rung();
        replay.drain()?;
        if last_round || replay.is_complete() {
            return Ok(());
        }
        if !bell.pause(settings.poll) {
            return Ok(());
        }
    }
}

fn halt(report: &Mutex<SyncReport>, reason: String) {
    report.lock().unwrap_or_else(PoisonError::into_inner).halted = Some(reason);
}
