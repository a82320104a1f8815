//! Owns [`SavedTrainings`]: the trainings of one job as its checkpoint, in their order: those that are finished, and the one
//! at work.
//!
//! A finished training is the checkpoint after its last epoch; who goes on from there trains no more epochs.
//!
//! Invariant: when something is written depends on the clock, what is trained does not
//! (`tests::trainings_that_were_stopped_anywhere_give_the_same_models` in `cross_validate.rs`).

use std::time::{Duration, Instant};

use ecgpipe_nn::Checkpoint;
use ecgpipe_sdk::Context;

/// The first bytes; what begins otherwise is of another version.
const HEAD: &[u8] = b"ecgpipe-trainings 1\n";

/// The next checkpoint waits this many times as long as writing the last one took, so that a slow disk costs a training one
/// per cent at most. A kill loses what was trained since.
const WRITE_WAITS: u32 = 100;

/// What the trainings of a job have come to.
pub struct SavedTrainings<'a> {
    cx: &'a Context<'a>,
    trainings: Vec<Vec<u8>>,
    /// Whether all of it would survive a kill.
    is_kept: bool,
    /// When it was written last, and how long that took.
    written: Option<(Instant, Duration)>,
}

impl<'a> SavedTrainings<'a> {
    /// What an earlier run of this job has left.
    #[must_use]
    pub fn load(cx: &'a Context<'a>) -> Self {
        let loaded = cx.load_checkpoint();
        let trainings = loaded.as_deref().and_then(decode);
        if loaded.is_some() && trainings.is_none() {
            cx.note("begins anew: the checkpoint is of another version");
        }
        Self { cx, is_kept: trainings.is_some(), trainings: trainings.unwrap_or_default(), written: None }
    }

    /// The state of the training at `idx`, if it was begun.
    #[must_use]
    pub fn get(&self, idx: usize) -> Option<Checkpoint> {
        let read = Checkpoint::from_bytes(self.trainings.get(idx)?);
        read.map_err(|error| self.cx.note(format!("training {} begins anew: {error}", idx + 1))).ok()
    }

    /// Replaces the state of the training at `idx`, of which all before it are there, and writes it if that costs little.
    pub fn set(&mut self, idx: usize, checkpoint: &Checkpoint) {
        self.trainings.truncate(idx);
        self.trainings.push(checkpoint.to_bytes());
        self.is_kept = false;
        if self.written.is_none_or(|(at, took)| at.elapsed() >= took * WRITE_WAITS) {
            self.write();
        }
    }

    /// Writes what is not written yet, and tells whether the next run will find all of it.
    pub fn write(&mut self) -> bool {
        if !self.is_kept && !self.trainings.is_empty() {
            let start = Instant::now();
            self.is_kept = self.cx.save_checkpoint(&encode(&self.trainings));
            self.written = Some((Instant::now(), start.elapsed()));
        }
        self.is_kept
    }
}

fn encode(trainings: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    for training in trainings {
        bytes.extend_from_slice(&(training.len() as u64).to_le_bytes());
        bytes.extend_from_slice(training);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = bytes.strip_prefix(HEAD)?;
    let mut trainings = Vec::new();
    while !rest.is_empty() {
        let (byte_n, after) = rest.split_first_chunk()?;
        let (training, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*byte_n)).ok()?)?;
        trainings.push(training.to_vec());
        rest = after;
    }
    Some(trainings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trainings_come_back_and_no_other_bytes_do() {
        for trainings in [vec![], vec![vec![1, 2, 3]], vec![vec![7; 300], vec![], vec![9]]] {
            let bytes = encode(&trainings);
            assert_eq!(decode(&bytes), Some(trainings));
        }
        let bytes = encode(&[vec![7; 20], vec![9; 30]]);
        let ends = [HEAD.len(), HEAD.len() + 28, bytes.len()];
        for byte_n in 0..bytes.len() {
            assert_eq!(decode(&bytes[..byte_n]).is_some(), ends.contains(&byte_n), "cut at {byte_n}");
        }
        assert_eq!(decode(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(decode(b"ecgpipe-trainings 2\n"), None);
    }
}
