//! Repeating a spool to a server, from wherever it was left.
//!
//! Order: experiment, run (searched by its own id before one is made), parameters and tags, points, items, closing tags,
//! reading back, status. Each step is safe to repeat: either the server tells a repetition, or it is asked first.
//!
//! Invariant: `state.json` is written after an acknowledgement, never before, so that it may lag but not run ahead. A
//! lost or damaged one costs time, not truth (`a_lost_state_costs_nothing`).
//! Invariant: a batch of points that was sent but not acknowledged is sent again with the same points: its end is noted
//! before it is sent.
//! Invariant: nothing is marked as ended before it was read back.

mod items;
mod read_back;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::client::{Answer, Bell, Client, Halt, Patience, Refusal};
use super::names::{OLD_PARAM_CHAR_N, PARAM_CHAR_N, TAG_CHAR_N, allowed_name, cut};
use super::report::{Counts, SetAside, SyncError, SyncReport};
use super::settings::Settings;
use super::spool::{
    END_FILE, End, FORMAT, ITEMS_FILE, Item, Line, METRICS_FILE, PointLine, RUN_FILE, RunDescription, SENDER_LOCK,
    STATE_FILE, Status, Versioned, finished_lines, is_spool, open_lock, read_whole, write_end, write_whole,
    writer_is_gone,
};
use super::wire::{
    CreateExperiment, CreateRun, CreatedExperiment, FoundExperiment, FoundRuns, LogBatch, OneRun, Pair, Point, Run,
    SearchRuns, SetTag, UpdateRun,
};

/// Points in one request. The server takes 1000; half of it stays far below its 1 MB.
const BATCH_POINT_N: usize = 500;
/// Parameters or tags in one request (the server's limit), and their bytes.
const BATCH_PAIR_N: usize = 100;
const BATCH_PAIR_BYTES: usize = 400_000;

/// Repeat to the server what it does not have yet of the spool in `folder`, then read everything back.
///
/// A run whose process is gone without a word is closed as KILLED. A run that is still going is sent as far as it is and
/// left open.
///
/// # Errors
///
/// When `folder` is no spool, somebody else is sending it, or the server cannot be reached or refuses us altogether.
/// What was sent until then stays sent, and the next call goes on from there.
pub fn sync(folder: &Path, settings: &Settings) -> Result<SyncReport, SyncError> {
    let report = Arc::<Mutex<SyncReport>>::default();
    let patience = Patience::Repeats(settings.max_retries);
    let mut replay = Replay::open(folder, settings, patience, Arc::default(), Arc::clone(&report))?;
    replay.close_orphan()?;
    replay.drain()?;
    drop(replay);
    let mut report = lock(&report).clone();
    report.left_n = left_n(folder);
    Ok(report)
}

/// What the server has acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Address of the server that all of this is about.
    server: String,
    experiment_id: String,
    run_id: String,
    artifact_uri: String,
    /// The parameters and tags of the start are there.
    described: bool,
    /// Bytes of `metrics.jsonl` that are there.
    metrics_until: u64,
    /// End of a batch that was sent and perhaps arrived.
    metrics_in_flight: Option<u64>,
    /// Bytes of `items.jsonl` that are there.
    items_until: u64,
    acknowledged: Counts,
    set_aside: BTreeSet<SetAside>,
    /// Artifacts that hold values too long for their place.
    whole_values: BTreeSet<String>,
    /// The server's ids of the models, by the start of their lines in `items.jsonl`.
    models: BTreeMap<u64, String>,
    /// The end that the server was told.
    ended: Option<End>,
}

/// One spool being sent to one server.
pub(super) struct Replay {
    folder: PathBuf,
    client: Client,
    run: RunDescription,
    /// The run's own id as the server takes it.
    run_uuid: String,
    state: State,
    report: Arc<Mutex<SyncReport>>,
    connected: bool,
    read_back: Option<End>,
    server_version: Option<String>,
    _lock: File,
}

impl Replay {
    pub(super) fn open(
        folder: &Path,
        settings: &Settings,
        patience: Patience,
        bell: Arc<Bell>,
        report: Arc<Mutex<SyncReport>>,
    ) -> Result<Self, SyncError> {
        if !is_spool(folder) {
            return Err(SyncError::NoSpool { path: folder.to_owned() });
        }
        let lock_path = folder.join(SENDER_LOCK);
        let lock_file = open_lock(&lock_path).map_err(|source| SyncError::Read { path: lock_path.clone(), source })?;
        match lock_file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SyncError::Busy { path: folder.to_owned() }),
            Err(TryLockError::Error(error)) => {
                let text = "the file system has no locks, two senders could not be told apart";
                lock(&report).notes.push(format!("{text}: {error}"));
            }
        }
        let run_path = folder.join(RUN_FILE);
        let run = read_whole::<RunDescription>(&run_path).and_then(|run| run.ok_or(io::ErrorKind::NotFound.into()));
        let run = run.map_err(|source| SyncError::Read { path: run_path, source })?;
        // A state that cannot be read is as good as none: the server is asked for everything.
        let state = read_whole::<State>(&folder.join(STATE_FILE)).ok().flatten().unwrap_or_default();
        let state = if state.server == settings.tracking_uri {
            state
        } else {
            State { server: settings.tracking_uri.clone(), ..State::default() }
        };
        let client = Client::new(settings, patience, bell).map_err(|halt| stopped(&settings.tracking_uri, &halt))?;
        {
            let mut report = lock(&report);
            report.already_there = state.acknowledged;
            report.set_aside = state.set_aside.iter().cloned().collect();
        }
        let run_uuid = allowed_name(&run.run_uuid).into_owned();
        Ok(Self {
            folder: folder.to_owned(),
            client,
            run,
            run_uuid,
            state,
            report,
            connected: false,
            read_back: None,
            server_version: None,
            _lock: lock_file,
        })
    }

    /// Give a run that lost its process an end.
    fn close_orphan(&mut self) -> Result<(), SyncError> {
        if self.folder.join(END_FILE).exists() {
            return Ok(());
        }
        match writer_is_gone(&self.folder) {
            Some(false) => self.note("the run is still going; it was sent as far as it is"),
            None => self.note("the file system cannot tell whether the run is still going; it was left open"),
            Some(true) => {
                let modified_ms = [METRICS_FILE, ITEMS_FILE, RUN_FILE].iter().filter_map(|name| {
                    let modified = std::fs::metadata(self.folder.join(name)).and_then(|data| data.modified()).ok()?;
                    i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
                });
                let end_time_ms = modified_ms.max().unwrap_or(self.run.start_time_ms).max(self.run.start_time_ms);
                let error =
                    Some("the process of this run vanished without a word (killed, or the machine stopped)".to_owned());
                write_end(&self.folder, &End { status: Status::Killed, end_time_ms, error })?;
                lock(&self.report).orphan_closed = true;
            }
        }
        Ok(())
    }

    pub(super) fn is_complete(&self) -> bool {
        lock(&self.report).complete
    }

    /// Send all that is there now; when the run has ended, close it.
    pub(super) fn drain(&mut self) -> Result<(), SyncError> {
        let result = self.drain_until_halt();
        result.map_err(|trouble| match trouble {
            Trouble::Halt(halt) => stopped(&self.state.server, &halt),
            Trouble::Local(error) => error,
        })
    }

    fn drain_until_halt(&mut self) -> Result<(), Trouble> {
        if !self.connected {
            self.connect()?;
            self.connected = true;
        }
        // Read first: everything that belongs to the run was written before its end.
        let end_path = self.folder.join(END_FILE);
        let end = read_whole::<End>(&end_path).map_err(|source| SyncError::Read { path: end_path, source })?;
        self.send_lanes()?;
        match end {
            Some(end) if self.read_back.as_ref() != Some(&end) => self.close(end),
            _ => Ok(()),
        }
    }

    fn send_lanes(&mut self) -> Result<(), Trouble> {
        if !self.state.described {
            self.describe()?;
        }
        // Points first, also between two items: a big file should not keep curves waiting.
        loop {
            while self.send_points()? {}
            if !self.send_item()? {
                return Ok(());
            }
        }
    }

    fn connect(&mut self) -> Result<(), Trouble> {
        if !self.state.run_id.is_empty() {
            match self.client.get::<OneRun>("runs/get", &[("run_id", &self.state.run_id)])? {
                Ok(found) => return self.adopt(&found.run),
                Err(refusal) if refusal.is_missing() => {
                    self.note("the server has lost the run; it was sent anew");
                    self.state = State { server: self.state.server.clone(), ..State::default() };
                    lock(&self.report).already_there = Counts::default();
                }
                Err(refusal) => return Err(denied(format!("the run cannot be read: {refusal}"))),
            }
        }
        let experiment_id = self.experiment()?;
        let find = || self.find_run(&experiment_id);
        if let Some(found) = find()?.map_err(|refusal| denied(format!("runs cannot be searched: {refusal}")))? {
            return self.adopt(&found.run);
        }
        let tags = self.birth_tags();
        let tags = pairs(&tags);
        let create = CreateRun {
            experiment_id: &experiment_id,
            run_name: &self.run.run_name,
            user_id: &self.run.user,
            start_time: self.run.start_time_ms,
            tags: &tags,
        };
        let created = self.client.create::<OneRun>("runs/create", &create, &find)?;
        let created = created.map_err(|refusal| denied(format!("the run cannot be created: {refusal}")))?;
        self.adopt(&created.run)
    }

    fn find_run(&self, experiment_id: &str) -> Answer<Option<OneRun>> {
        let filter = format!("tags.`ecgpipe.run_uuid` = '{}'", self.run_uuid);
        let search =
            SearchRuns { experiment_ids: [experiment_id], run_view_type: "ALL", max_results: 1, filter: &filter };
        let found = self.client.post::<FoundRuns>("runs/search", &search)?;
        Ok(found.map(|found| found.runs.into_iter().next().map(|run| OneRun { run })))
    }

    fn experiment(&self) -> Result<String, Trouble> {
        let name = self.run.experiment.as_str();
        let by_name = || self.client.get::<FoundExperiment>("experiments/get-by-name", &[("experiment_name", name)]);
        let experiment = match by_name()? {
            Ok(found) => found.experiment,
            Err(refusal) if refusal.is_missing() => {
                // Opens on the table of runs, where the page would else ask what kind of experiment it is.
                let tags = [Pair { key: "mlflow.experimentKind", value: "custom_model_development" }];
                match self
                    .client
                    .post::<CreatedExperiment>("experiments/create", &CreateExperiment { name, tags: &tags })?
                {
                    Ok(created) => return Ok(created.experiment_id),
                    // Another run of the same experiment was faster.
                    Err(refusal) if refusal.already_there() => {
                        by_name()?
                            .map_err(|refusal| denied(format!("the experiment `{name}` cannot be read: {refusal}")))?
                            .experiment
                    }
                    Err(refusal) => {
                        return Err(denied(format!("the experiment `{name}` cannot be created: {refusal}")));
                    }
                }
            }
            Err(refusal) => return Err(denied(format!("the experiment `{name}` cannot be read: {refusal}"))),
        };
        if experiment.lifecycle_stage == "active" {
            return Ok(experiment.experiment_id);
        }
        let id = experiment.experiment_id;
        Err(denied(format!(
            "the experiment `{name}` was deleted and its name is still taken; restore it (`mlflow experiments restore \
             --experiment-id {id}`) or choose another name"
        )))
    }

    /// This is our run on the server.
    fn adopt(&mut self, run: &Run) -> Result<(), Trouble> {
        if run.info.lifecycle_stage != "active" {
            let id = &run.info.run_id;
            return Err(denied(format!(
                "the run was deleted on the server; restore it (`mlflow runs restore --run-id {id}`) or leave it so"
            )));
        }
        self.state.run_id.clone_from(&run.info.run_id);
        self.state.experiment_id.clone_from(&run.info.experiment_id);
        self.state.artifact_uri.clone_from(&run.info.artifact_uri);
        self.save()?;
        let url = self.client.settings().run_url(&self.state.experiment_id, &self.state.run_id);
        let mut report = lock(&self.report);
        report.run_url = Some(url);
        report.experiment_id = Some(self.state.experiment_id.clone());
        report.run_id = Some(self.state.run_id.clone());
        Ok(())
    }

    /// Tags that the run is born with, so that it can be found again whatever happens next.
    fn birth_tags(&self) -> BTreeMap<String, String> {
        let run = &self.run;
        let mut tags = BTreeMap::from([
            ("ecgpipe.run_uuid".to_owned(), self.run_uuid.clone()),
            ("mlflow.user".to_owned(), run.user.clone()),
            ("mlflow.source.name".to_owned(), run.source_name.clone()),
            ("mlflow.source.type".to_owned(), "LOCAL".to_owned()),
        ]);
        if let Some(git) = &run.git {
            tags.insert("mlflow.source.git.commit".to_owned(), git.commit.clone());
            let optional = [("mlflow.source.git.branch", &git.branch), ("mlflow.source.git.repoURL", &git.repo_url)];
            for (key, value) in optional {
                if let Some(value) = value {
                    tags.insert(key.to_owned(), value.clone());
                }
            }
        }
        for value in tags.values_mut() {
            if let Some(shorter) = cut(value, TAG_CHAR_N) {
                *value = shorter;
            }
        }
        tags
    }

    /// Parameters and tags of the start.
    fn describe(&mut self) -> Result<(), Trouble> {
        let mut tags = self.run.tags.clone();
        if let Some(git) = &self.run.git {
            tags.insert("ecgpipe.git.dirty".to_owned(), git.dirty.to_string());
            if let Some(digest) = &git.diff_digest {
                tags.insert("ecgpipe.git.diff_digest".to_owned(), digest.clone());
            }
        }
        if let Some(note) = &self.run.note_markdown {
            tags.insert("mlflow.note.content".to_owned(), note.clone());
        }
        let tags =
            tags.into_iter().map(|(key, value)| self.fitting_tag(&key, &value)).collect::<Result<Vec<_>, _>>()?;
        for batch in batches(&tags) {
            self.log_tags(batch)?;
        }
        let mut params = Vec::new();
        let mut any_cut = false;
        for (key, value) in &self.run.params {
            let shorter = cut(value, PARAM_CHAR_N);
            any_cut |= shorter.is_some();
            params.push((allowed_name(key).into_owned(), shorter.unwrap_or_else(|| value.clone())));
        }
        for batch in batches(&params) {
            any_cut |= self.log_params(batch)?;
        }
        if any_cut {
            let text = serde_json::to_string_pretty(&self.run.params).expect("text to text is JSON");
            self.put_text("params.json", &text)?;
        }
        self.state.described = true;
        self.save()?;
        Ok(())
    }

    /// A tag as the server takes it; what has to be cut is put whole into an artifact.
    fn fitting_tag(&mut self, key: &str, value: &str) -> Result<(String, String), Trouble> {
        let name = allowed_name(key).into_owned();
        let Some(shorter) = cut(value, TAG_CHAR_N) else { return Ok((name, value.to_owned())) };
        let artifact = match key {
            "mlflow.note.content" => "note.md".to_owned(),
            _ => format!("long_tags/{}.txt", name.replace(['/', ' ', ':'], "_")),
        };
        self.put_text(&artifact, value)?;
        Ok((name, shorter))
    }

    fn put_text(&mut self, path: &str, text: &str) -> Result<(), Trouble> {
        match self.client.put_text(&self.state.artifact_uri, path, text)? {
            Ok(()) => {
                self.state.whole_values.insert(path.to_owned());
            }
            Err(refusal) => self.set_aside(format!("artifact {path}"), &refusal)?,
        }
        Ok(())
    }

    fn log_tags(&mut self, tags: &[(String, String)]) -> Result<(), Trouble> {
        let wire = tags.iter().map(|(key, value)| Pair { key, value }).collect::<Vec<_>>();
        let batch = LogBatch { run_id: &self.state.run_id, metrics: &[], params: &[], tags: &wire };
        match self.client.post::<IgnoredAny>("runs/log-batch", &batch)? {
            Ok(_) => self.count(|counts| counts.tags += tags.len() as u64),
            Err(refusal) => {
                if let [(key, _)] = tags {
                    return self.set_aside(format!("tag {key}"), &refusal);
                }
                self.check_run(&refusal)?;
                let (left, right) = tags.split_at(tags.len() / 2);
                self.log_tags(left)?;
                self.log_tags(right)?;
            }
        }
        Ok(())
    }

    /// Whether a value had to be cut further, for an old server.
    fn log_params(&mut self, params: &[(String, String)]) -> Result<bool, Trouble> {
        let wire = params.iter().map(|(key, value)| Pair { key, value }).collect::<Vec<_>>();
        let batch = LogBatch { run_id: &self.state.run_id, metrics: &[], params: &wire, tags: &[] };
        let refusal = match self.client.post::<IgnoredAny>("runs/log-batch", &batch)? {
            Ok(_) => {
                self.count(|counts| counts.params += params.len() as u64);
                return Ok(false);
            }
            Err(refusal) => refusal,
        };
        if let [(key, value)] = params {
            // A server that has another value already would refuse the shorter one too, so this cannot hide that.
            if let Some(shorter) = cut(value, OLD_PARAM_CHAR_N) {
                let shorter_pair = (key.clone(), shorter);
                return self.log_params(std::slice::from_ref(&shorter_pair)).map(|_| true);
            }
            self.set_aside(format!("param {key}"), &refusal)?;
            return Ok(false);
        }
        self.check_run(&refusal)?;
        let (left, right) = params.split_at(params.len() / 2);
        let left_cut = self.log_params(left)?;
        let right_cut = self.log_params(right)?;
        Ok(left_cut | right_cut)
    }

    /// Send one batch of points; whether there was one.
    fn send_points(&mut self) -> Result<bool, Trouble> {
        let until = self.state.metrics_in_flight.unwrap_or(u64::MAX);
        let mut points = Vec::<(String, f64, i64, i64)>::new();
        let mut batch_end = self.state.metrics_until;
        for line in self.lines(METRICS_FILE, self.state.metrics_until, until)? {
            let line = line.map_err(|source| self.read_error(METRICS_FILE, source))?;
            batch_end = line.end;
            match parse_point(&line) {
                Some((key, value, step, time_ms)) if value.is_finite() => {
                    points.push((allowed_name(&key).into_owned(), value, time_ms, step));
                }
                Some(_) => {}
                None => self.set_aside_damaged(METRICS_FILE, &line)?,
            }
            if points.len() == BATCH_POINT_N {
                break;
            }
        }
        if batch_end == self.state.metrics_until {
            return Ok(false);
        }
        if !points.is_empty() {
            if self.state.metrics_in_flight.is_none() {
                self.state.metrics_in_flight = Some(batch_end);
                self.save()?;
            }
            let wire = points.iter().map(|(key, value, timestamp, step)| Point {
                key,
                value: *value,
                timestamp: *timestamp,
                step: *step,
                ..Point::default()
            });
            self.log_points(&wire.collect::<Vec<_>>())?;
        }
        self.state.metrics_until = batch_end;
        self.state.metrics_in_flight = None;
        self.save()?;
        Ok(true)
    }

    fn log_points(&mut self, points: &[Point<'_>]) -> Result<(), Trouble> {
        let batch = LogBatch { run_id: &self.state.run_id, metrics: points, params: &[], tags: &[] };
        match self.client.post::<IgnoredAny>("runs/log-batch", &batch)? {
            Ok(_) => self.count(|counts| counts.points += points.len() as u64),
            Err(refusal) => {
                if let [point] = points {
                    let what = format!("metric {} at step {}", point.key, point.step);
                    return self.set_aside(what, &refusal);
                }
                self.check_run(&refusal)?;
                let (left, right) = points.split_at(points.len() / 2);
                self.log_points(left)?;
                self.log_points(right)?;
            }
        }
        Ok(())
    }

    /// Send one item; whether there was one.
    fn send_item(&mut self) -> Result<bool, Trouble> {
        let line = self.lines(ITEMS_FILE, self.state.items_until, u64::MAX)?.next();
        let Some(line) = line else { return Ok(false) };
        let line = line.map_err(|source| self.read_error(ITEMS_FILE, source))?;
        match serde_json::from_slice::<Item>(&line.text) {
            Ok(Item::Tag { key, value }) => {
                let (key, value) = self.fitting_tag(&key, &value)?;
                let tag = SetTag { run_id: &self.state.run_id, key: &key, value: &value };
                match self.client.post::<IgnoredAny>("runs/set-tag", &tag)? {
                    Ok(_) => self.count(|counts| counts.tags += 1),
                    Err(refusal) => self.set_aside(format!("tag {key}"), &refusal)?,
                }
            }
            Ok(Item::Dataset(dataset)) => self.log_dataset(&dataset)?,
            Ok(Item::Artifact { path, file }) => {
                if self.put_file(&format!("artifact {path}"), &self.state.artifact_uri.clone(), &path, &file)? {
                    self.count(|counts| counts.artifacts += 1);
                }
            }
            Ok(Item::Model { model, file }) => self.log_model(&model, &file, line.start)?,
            Err(_) => self.set_aside_damaged(ITEMS_FILE, &line)?,
        }
        self.state.items_until = line.end;
        self.save()?;
        Ok(true)
    }

    /// Closing tags, reading back, status.
    fn close(&mut self, end: End) -> Result<(), Trouble> {
        self.link_models(&end)?;
        let mut mismatches = self.mismatches()?;
        if !mismatches.is_empty() {
            // The server has less than it said, as after a restored backup. Everything is safe to repeat, so repeat it.
            self.note(&format!("the server had lost something ({}); the run was sent again", mismatches.join("; ")));
            self.state.described = false;
            (self.state.metrics_until, self.state.metrics_in_flight, self.state.items_until) = (0, None, 0);
            self.state.ended = None;
            self.state.set_aside.clear();
            self.save()?;
            self.send_lanes()?;
            self.link_models(&end)?;
            mismatches = self.mismatches()?;
        }
        if self.state.ended.as_ref() != Some(&end) {
            let tags = self.closing_tags(&end)?;
            let tags = tags.iter().map(|(key, value)| self.fitting_tag(key, value)).collect::<Result<Vec<_>, _>>()?;
            for batch in batches(&tags) {
                self.log_tags(batch)?;
            }
            let update = UpdateRun { run_id: &self.state.run_id, status: end.status, end_time: end.end_time_ms };
            match self.client.post::<IgnoredAny>("runs/update", &update)? {
                Ok(_) => {
                    self.state.ended = Some(end.clone());
                    self.save()?;
                }
                Err(refusal) => self.set_aside("status".to_owned(), &refusal)?,
            }
        }
        let run = self.read_run()?;
        let wanted = match end.status {
            Status::Finished => "FINISHED",
            Status::Failed => "FAILED",
            Status::Killed => "KILLED",
        };
        if run.info.status != wanted {
            mismatches.push(format!("status is {}, not {wanted}", run.info.status));
        }
        self.read_back = Some(end);
        let mut report = lock(&self.report);
        report.complete = mismatches.is_empty();
        report.mismatches = mismatches;
        Ok(())
    }

    fn lines(
        &self,
        name: &'static str,
        from: u64,
        until: u64,
    ) -> Result<impl Iterator<Item = io::Result<Line>> + use<>, Trouble> {
        finished_lines(&self.folder.join(name), from, until).map_err(|source| self.read_error(name, source))
    }

    fn read_error(&self, name: &str, source: io::Error) -> Trouble {
        SyncError::Read { path: self.folder.join(name), source }.into()
    }

    fn save(&self) -> Result<(), Trouble> {
        let state = Versioned { format: FORMAT, content: &self.state };
        write_whole(&self.folder.join(STATE_FILE), &state).map_err(|error| Trouble::Local(error.into()))
    }

    fn count(&mut self, add: impl Fn(&mut Counts)) {
        add(&mut self.state.acknowledged);
        add(&mut lock(&self.report).sent);
    }

    fn note(&self, text: &str) {
        lock(&self.report).notes.push(text.to_owned());
    }

    /// A refusal that is about the whole run, not about the item.
    fn check_run(&self, refusal: &Refusal) -> Result<(), Trouble> {
        if refusal.is_missing() && refusal.message.contains(&self.state.run_id) {
            return Err(denied(format!(
                "the run has vanished from the server ({refusal}); sync again to send it anew"
            )));
        }
        if refusal.message.contains("'active' state") || refusal.message.contains("lifecycle_stage") {
            return Err(denied(format!("the run was deleted on the server ({refusal}); restore it and sync again")));
        }
        Ok(())
    }

    fn set_aside(&mut self, what: String, refusal: &Refusal) -> Result<(), Trouble> {
        self.check_run(refusal)?;
        self.remember_aside(what, refusal.to_string())
    }

    fn set_aside_damaged(&mut self, name: &str, line: &Line) -> Result<(), Trouble> {
        let what = format!("{name} at byte {}", line.start);
        self.remember_aside(what, "the line is damaged, as after a full disk".to_owned())
    }

    fn remember_aside(&mut self, what: String, reason: String) -> Result<(), Trouble> {
        self.state.set_aside.insert(SetAside { what, reason });
        lock(&self.report).set_aside = self.state.set_aside.iter().cloned().collect();
        self.save()
    }
}

/// Lines that wait in a spool.
pub(super) fn left_n(folder: &Path) -> u64 {
    let state = read_whole::<State>(&folder.join(STATE_FILE)).ok().flatten().unwrap_or_default();
    let lanes = [(METRICS_FILE, state.metrics_until), (ITEMS_FILE, state.items_until)];
    let waiting = lanes.iter().filter_map(|(name, from)| finished_lines(&folder.join(name), *from, u64::MAX).ok());
    waiting.map(|lines| lines.take_while(Result::is_ok).count() as u64).sum()
}

/// Why the sending stops here.
enum Trouble {
    Halt(Halt),
    Local(SyncError),
}

impl From<Halt> for Trouble {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl From<SyncError> for Trouble {
    fn from(error: SyncError) -> Self {
        Self::Local(error)
    }
}

fn parse_point(line: &Line) -> Option<(String, f64, i64, i64)> {
    let point = serde_json::from_slice::<PointLine<'_>>(&line.text).ok()?;
    Some((point.key.into_owned(), point.value.parse().ok()?, point.step, point.time_ms))
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<Pair<'_>> {
    map.iter().map(|(key, value)| Pair { key, value }).collect()
}

/// Cut into batches that the server takes.
fn batches(pairs: &[(String, String)]) -> Vec<&[(String, String)]> {
    let mut batches = Vec::new();
    let mut start = 0;
    let mut byte_n = 0;
    for (idx, (key, value)) in pairs.iter().enumerate() {
        let pair_bytes = key.len() + value.len();
        if idx > start && (idx - start == BATCH_PAIR_N || byte_n + pair_bytes > BATCH_PAIR_BYTES) {
            batches.push(&pairs[start..idx]);
            (start, byte_n) = (idx, 0);
        }
        byte_n += pair_bytes;
    }
    if start < pairs.len() {
        batches.push(&pairs[start..]);
    }
    batches
}

fn denied(reason: String) -> Trouble {
    Trouble::Halt(Halt(reason))
}

fn stopped(server: &str, halt: &Halt) -> SyncError {
    SyncError::Stopped { server: server.to_owned(), reason: halt.0.clone() }
}

fn lock(report: &Mutex<SyncReport>) -> MutexGuard<'_, SyncReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
