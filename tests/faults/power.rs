//! What a power cut may leave of the files of a project, computed from the calls that a process made.
//!
//! The model allows what ext4 and xfs may do, and more. Durable is: everything before a `syncfs`; the content of a file before an
//! `fsync` or `fdatasync` of it; the names in a folder before an `fsync` of the folder. Of the rest, every change of a name (made,
//! renamed, removed) is there or not, in any combination, as a whole; every unsynced content is the old one, cut short, full of
//! zeros, or whole. A rename says nothing of the content of the file.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::Call;

/// How a power cut decides.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// Nothing that was not synced is there.
    NothingUnsynced,
    /// Every name is there; unsynced content is missing, zeros, half there, or whole.
    Names(Torn),
    /// The journal was written to some point; each content has a fate of its own.
    Journal(u64),
    /// Each name and each content has a fate of its own.
    Any(u64),
}

/// The fate of unsynced content.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Torn {
    Empty,
    Zeros,
    Half,
    Whole,
}

pub(crate) const FATES: [Fate; 8] = [
    Fate::NothingUnsynced,
    Fate::Names(Torn::Empty),
    Fate::Names(Torn::Zeros),
    Fate::Names(Torn::Half),
    Fate::Names(Torn::Whole),
    Fate::Journal(1),
    Fate::Any(2),
    Fate::Any(3),
];

/// The folders and files that a power cut leaves.
pub(crate) type Left = (BTreeSet<String>, BTreeMap<String, Vec<u8>>);

#[derive(Clone, Debug)]
enum NameChange {
    Folder(String),
    Made(String, usize),
    Renamed(String, String, usize),
    Removed(String),
}

impl NameChange {
    fn folder(&self) -> &str {
        let (Self::Folder(path) | Self::Made(path, _) | Self::Renamed(_, path, _) | Self::Removed(path)) = self;
        parent(path)
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    current: Vec<u8>,
}

/// The files of a project while a process changes them.
pub(crate) struct Machine {
    contents: Vec<Content>,
    /// As the process sees them.
    names: BTreeMap<String, usize>,
    /// As they are on the disk, then what has changed since.
    durable_folders: BTreeSet<String>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<NameChange>,
}

impl Machine {
    /// Everything is durable at first.
    pub(crate) fn new(folders: BTreeSet<String>, files: &BTreeMap<String, Vec<u8>>) -> Self {
        let contents = files.values().map(|bytes| Content { durable: bytes.clone(), current: bytes.clone() }).collect();
        let names: BTreeMap<String, usize> = files.keys().cloned().zip(0..).collect();
        Self { contents, durable_names: names.clone(), names, durable_folders: folders, pending: Vec::new() }
    }

    /// Takes a call into account; tells whether it has changed anything.
    pub(crate) fn see(&mut self, call: &Call) -> bool {
        if call.errno != 0 {
            return false;
        }
        let path = call.path.trim_start_matches('/').to_owned();
        match call.name.as_str() {
            "mkdir" => self.pending.push(NameChange::Folder(path)),
            "create" => match self.names.get(&path) {
                Some(&file) if call.empties => self.contents[file].current.clear(),
                Some(_) => return false,
                None => {
                    let file = self.contents.len();
                    self.contents.push(Content::default());
                    self.names.insert(path.clone(), file);
                    self.pending.push(NameChange::Made(path, file));
                }
            },
            "write" => {
                let file = self.names[&path];
                self.contents[file].current.extend_from_slice(&call.data);
            }
            "rename" => {
                let target = call.second.trim_start_matches('/').to_owned();
                let file = self.names.remove(&path).expect("what is renamed is there");
                self.names.insert(target.clone(), file);
                self.pending.push(NameChange::Renamed(path, target, file));
            }
            "unlink" => {
                self.names.remove(&path);
                self.pending.push(NameChange::Removed(path));
            }
            "fsync" | "fdatasync" => {
                if let Some(&file) = self.names.get(&path) {
                    self.sync_content(file);
                } else {
                    let (synced, rest) =
                        self.pending.drain(..).partition(|change: &NameChange| change.folder() == path);
                    self.pending = rest;
                    self.make_durable(synced);
                }
                return false;
            }
            "syncfs" => {
                (0..self.contents.len()).for_each(|file| self.sync_content(file));
                let synced = std::mem::take(&mut self.pending);
                self.make_durable(synced);
                return false;
            }
            "rmdir" | "truncate" => panic!("the model does not know {}", call.name),
            _ => return false,
        }
        true
    }

    fn sync_content(&mut self, file: usize) {
        self.contents[file].durable = self.contents[file].current.clone();
    }

    fn make_durable(&mut self, changes: Vec<NameChange>) {
        for change in changes {
            apply(&change, &mut self.durable_folders, &mut self.durable_names);
        }
    }

    /// What is left if the power is cut now.
    pub(crate) fn cut(&self, fate: Fate, salt: u64) -> Left {
        let (mut folders, mut names) = (self.durable_folders.clone(), self.durable_names.clone());
        let mut dice = Dice(salt);
        let journal_n = match fate {
            Fate::NothingUnsynced => 0,
            Fate::Journal(seed) => {
                dice.0 ^= seed << 40;
                dice.below(self.pending.len() + 1)
            }
            Fate::Any(seed) => {
                dice.0 ^= seed << 40;
                self.pending.len()
            }
            Fate::Names(_) => self.pending.len(),
        };
        for change in &self.pending[..journal_n] {
            if !matches!(fate, Fate::Any(_)) || dice.below(2) == 1 {
                apply(change, &mut folders, &mut names);
            }
        }
        let mut torn = |content: &Content| -> Vec<u8> {
            if content.durable == content.current {
                return content.current.clone();
            }
            let torn = match fate {
                Fate::NothingUnsynced => return content.durable.clone(),
                Fate::Names(torn) => torn,
                Fate::Journal(_) | Fate::Any(_) => match dice.below(5) {
                    0 => return content.durable.clone(),
                    1 => Torn::Empty,
                    2 => Torn::Zeros,
                    3 => Torn::Half,
                    _ => Torn::Whole,
                },
            };
            // What was durable stays, unless the file was emptied since.
            let kept_n = if content.current.starts_with(&content.durable) { content.durable.len() } else { 0 };
            let mut left = content.current.clone();
            match torn {
                Torn::Empty => left.truncate(kept_n),
                Torn::Zeros => left[kept_n..].fill(0),
                Torn::Half => left.truncate(kept_n + (left.len() - kept_n) / 2),
                Torn::Whole => {}
            }
            left
        };
        // A file without a folder is lost with it.
        let files = names.iter().filter(|(path, _)| folders.contains(parent(path)));
        let files = files.map(|(path, &file)| (path.clone(), torn(&self.contents[file]))).collect();
        (folders, files)
    }
}

fn apply(change: &NameChange, folders: &mut BTreeSet<String>, names: &mut BTreeMap<String, usize>) {
    match change {
        NameChange::Folder(path) => {
            if folders.contains(parent(path)) {
                folders.insert(path.clone());
            }
        }
        NameChange::Made(path, file) => {
            names.insert(path.clone(), *file);
        }
        NameChange::Renamed(from, to, file) => {
            if names.get(from) == Some(file) {
                names.remove(from);
            }
            names.insert(to.clone(), *file);
        }
        NameChange::Removed(path) => {
            names.remove(path);
        }
    }
}

/// A small generator of numbers that are the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}
