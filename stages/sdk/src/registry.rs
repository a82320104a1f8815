//! Owns [`Registry`]: the stages that a program knows, by name. It is filled by `main`, never before it.

use std::collections::BTreeMap;

use crate::stage::{ErasedStage, Stage, erase};

/// Stages by name.
#[derive(Default)]
pub struct Registry {
    stages: BTreeMap<&'static str, Box<dyn ErasedStage>>,
}

impl Registry {
    /// No stages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stage with the identity of its code (hex).
    ///
    /// # Panics
    /// If the name is taken: two stages with one name is a programming error that must not reach a user.
    pub fn register<S: Stage>(&mut self, code: &str) {
        self.add(erase::<S>(code));
    }

    /// Adds a stage that is already erased (a plugin).
    ///
    /// # Panics
    /// As [`Registry::register`].
    pub fn add(&mut self, stage: Box<dyn ErasedStage>) {
        let name = stage.spec().name;
        let previous = self.stages.insert(name, stage);
        assert!(previous.is_none(), "two stages are named `{name}`");
    }

    /// A stage by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&dyn ErasedStage> {
        self.stages.get(name).map(|stage| &**stage)
    }

    /// All stages, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &dyn ErasedStage> {
        self.stages.values().map(|stage| &**stage)
    }
}
