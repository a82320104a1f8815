//! The state of a training between two epochs ([`Checkpoint`]) and its bytes.
//!
//! It is all that the next epoch needs: weights, moments of the optimiser, steps, the best epoch and what was scored. No
//! generator has a state, since every random number is named by seed, purpose, epoch and beat (`random.rs`).
//!
//! Invariant: a training that goes on from a checkpoint gives the bits of one that was never interrupted
//! (`a_training_that_goes_on_gives_the_same_bits`), since numbers are kept as their bits.
//!
//! Invariant: bytes that are cut or changed are refused (`no_flip_or_cut_of_a_checkpoint_is_read`), and so is the
//! checkpoint of another training (`a_checkpoint_of_another_training_is_refused`).

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::model::Tensor;
use crate::score::Scores;
use crate::train::EpochScores;

/// The first bytes; another format has another number, and is refused.
const HEAD: &[u8] = b"ecgpipe-training 1\n";
const CHECK_BYTE_N: usize = 32;

/// The state of a training after an epoch; [`crate::Conduct::from`] goes on from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// What the training is, see `train.rs`.
    pub(crate) identity: String,
    /// Steps of the optimiser so far.
    pub(crate) step: usize,
    /// Weights and scaling.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// Running means of gradients and of their squares, by tensor.
    pub(crate) moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
    /// The best epoch, from 1, and its tensors.
    pub(crate) best: (usize, BTreeMap<String, Tensor>),
    /// Scores of every finished epoch; never empty.
    pub(crate) history: Vec<EpochScores>,
}

impl Checkpoint {
    /// Scores of every finished epoch.
    #[must_use]
    pub fn history(&self) -> &[EpochScores] {
        &self.history
    }

    /// The checkpoint as bytes, about four times as many as those of the model.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        write_bytes(&mut bytes, self.identity.as_bytes());
        write_n(&mut bytes, self.step);
        write_tensors(&mut bytes, &self.tensors);
        write_n(&mut bytes, self.moments.len());
        for (name, (first, second)) in &self.moments {
            write_bytes(&mut bytes, name.as_bytes());
            write_f32s(&mut bytes, first);
            write_f32s(&mut bytes, second);
        }
        write_n(&mut bytes, self.history.len());
        for scores in &self.history {
            write_n(&mut bytes, scores.epoch);
            write_f64s(&mut bytes, &[scores.learning_rate]);
            write_scores(&mut bytes, &scores.training);
            write_n(&mut bytes, usize::from(scores.validation.is_some()));
            if let Some(validation) = &scores.validation {
                write_scores(&mut bytes, validation);
            }
        }
        let (best_epoch, best) = &self.best;
        write_n(&mut bytes, *best_epoch);
        // The tensors of the last epoch stand there already.
        if *best_epoch != self.history.len() {
            write_tensors(&mut bytes, best);
        }
        let check = Sha256::digest(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// The checkpoint that [`Checkpoint::to_bytes`] wrote.
    ///
    /// # Errors
    /// On anything else. Whether it is of the training at hand is checked by [`crate::train()`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let (content, check) = bytes.split_last_chunk::<CHECK_BYTE_N>().ok_or(CheckpointError::Damaged)?;
        if Sha256::digest(content)[..] != check[..] {
            return Err(CheckpointError::Damaged);
        }
        let mut reader = Reader(content.strip_prefix(HEAD).ok_or(CheckpointError::Format)?);
        let (identity, step, tensors) = (reader.text()?, reader.n()?, reader.tensors()?);
        let mut moments = BTreeMap::new();
        for _ in 0..reader.n()? {
            moments.insert(reader.text()?, (reader.f32s()?, reader.f32s()?));
        }
        let history = reader.history()?;
        let best_epoch = reader.n()?;
        let best = if best_epoch == history.len() { tensors.clone() } else { reader.tensors()? };
        if !reader.0.is_empty() || history.is_empty() {
            return Err(CheckpointError::Damaged);
        }
        Ok(Self { identity, step, tensors, moments, best: (best_epoch, best), history })
    }
}

/// Why a training cannot go on from a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are not those that were written.
    #[error("the checkpoint is damaged")]
    Damaged,
    /// The bytes are something else, or of another version.
    #[error("it is no checkpoint of this version")]
    Format,
    /// The training is another one.
    #[error("the checkpoint is of another training: its {what} differ")]
    Other {
        /// What differs.
        what: &'static str,
    },
}

fn write_n(bytes: &mut Vec<u8>, n: usize) {
    bytes.extend_from_slice(&(n as u64).to_le_bytes());
}

fn write_bytes(bytes: &mut Vec<u8>, text: &[u8]) {
    write_n(bytes, text.len());
    bytes.extend_from_slice(text);
}

fn write_f32s(bytes: &mut Vec<u8>, values: &[f32]) {
    write_n(bytes, values.len());
    bytes.reserve(4 * values.len());
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

fn write_f64s(bytes: &mut Vec<u8>, values: &[f64]) {
    write_n(bytes, values.len());
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

fn write_tensors(bytes: &mut Vec<u8>, tensors: &BTreeMap<String, Tensor>) {
    write_n(bytes, tensors.len());
    for (name, tensor) in tensors {
        write_bytes(bytes, name.as_bytes());
        write_n(bytes, tensor.shape.len());
        tensor.shape.iter().for_each(|length| write_n(bytes, *length));
        write_f32s(bytes, &tensor.values);
    }
}

fn write_scores(bytes: &mut Vec<u8>, scores: &Scores) {
    write_f64s(bytes, &[scores.loss, scores.accuracy, scores.macro_f1]);
    write_f64s(bytes, &scores.class_f1);
}

/// What is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, byte_n: usize) -> Result<&'a [u8], CheckpointError> {
        let (taken, rest) = self.0.split_at_checked(byte_n).ok_or(CheckpointError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn n(&mut self) -> Result<usize, CheckpointError> {
        let bytes = self.take(8)?.try_into().map_err(|_| CheckpointError::Damaged)?;
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| CheckpointError::Damaged)
    }

    /// As many values as a number before them says, `BYTE_N` bytes each.
    fn values<const BYTE_N: usize, T>(&mut self, value: fn([u8; BYTE_N]) -> T) -> Result<Vec<T>, CheckpointError> {
        let byte_n = self.n()?.checked_mul(BYTE_N).ok_or(CheckpointError::Damaged)?;
        Ok(self.take(byte_n)?.as_chunks().0.iter().map(|bytes| value(*bytes)).collect())
    }

    fn text(&mut self) -> Result<String, CheckpointError> {
        let byte_n = self.n()?;
        let text = str::from_utf8(self.take(byte_n)?).map_err(|_| CheckpointError::Damaged)?;
        Ok(text.to_owned())
    }

    fn f32s(&mut self) -> Result<Vec<f32>, CheckpointError> {
        self.values(f32::from_le_bytes)
    }

    fn tensors(&mut self) -> Result<BTreeMap<String, Tensor>, CheckpointError> {
        let mut tensors = BTreeMap::new();
        for _ in 0..self.n()? {
            let name = self.text()?;
            let dimension_n = self.n()?;
            let shape = (0..dimension_n).map(|_| self.n()).collect::<Result<_, _>>()?;
            tensors.insert(name, Tensor { shape, values: self.f32s()? });
        }
        Ok(tensors)
    }

    fn scores(&mut self) -> Result<Scores, CheckpointError> {
        let values = self.values(f64::from_le_bytes)?;
        let &[loss, accuracy, macro_f1] = values.as_slice() else { return Err(CheckpointError::Damaged) };
        Ok(Scores { loss, accuracy, macro_f1, class_f1: self.values(f64::from_le_bytes)? })
    }

    fn history(&mut self) -> Result<Vec<EpochScores>, CheckpointError> {
        let mut history = Vec::new();
        for _ in 0..self.n()? {
            let (epoch, values) = (self.n()?, self.values(f64::from_le_bytes)?);
            let &[learning_rate] = values.as_slice() else { return Err(CheckpointError::Damaged) };
            let training = self.scores()?;
            let validation = (self.n()? != 0).then(|| self.scores()).transpose()?;
            history.push(EpochScores { epoch, learning_rate, training, validation });
        }
        Ok(history)
    }
}
