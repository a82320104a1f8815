//! Owns [`Registry`]: the stages that a program knows, by name. It is filled by `main`, never before it.

use std::{collections::BTreeMap, sync::Arc};

use crate::stage::{ErasedStage, Stage, erase};

/// Stages by name, and the names that stand for none for a reason. A clone shares the stages.
#[derive(Clone, Default)]
pub struct Registry {
    stages: BTreeMap<&'static str, Arc<dyn ErasedStage>>,
    refused: BTreeMap<String, String>,
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
        let previous = self.stages.insert(name, Arc::from(stage));
        assert!(previous.is_none(), "two stages are named `{name}`");
    }

    /// A stage by name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&dyn ErasedStage> {
        self.stages.get(name).map(|stage| &**stage)
    }

    /// Says why a name must not be used: a plugin that is broken, or that takes another stage's name.
    pub fn refuse(&mut self, name: impl Into<String>, why: impl Into<String>) {
        self.refused.insert(name.into(), why.into());
    }

    /// The names that must not be used, each with the reason in full.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<String, String> {
        &self.refused
    }

    /// The same names with other stages behind them (each run in a process of its own, for example).
    #[must_use]
    pub fn map(&self, wrap: impl Fn(Arc<dyn ErasedStage>) -> Box<dyn ErasedStage>) -> Self {
        let mut mapped = Self { stages: BTreeMap::new(), refused: self.refused.clone() };
        self.stages.values().for_each(|stage| mapped.add(wrap(Arc::clone(stage))));
        mapped
    }

    /// All stages, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &dyn ErasedStage> {
        self.stages.values().map(|stage| &**stage)
    }
}
