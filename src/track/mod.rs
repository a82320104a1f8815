//! Owns the listeners of a run: the terminal, the run folder, the tracking server. They hear [`Event`]s and never speak to
//! the engine.
//!
//! Invariant: a listener cannot fail a run; what goes wrong in one becomes a warning of that listener.

pub mod console;
pub mod mlflow;
pub mod mlflow_run;
pub mod run_folder;

use std::sync::{Arc, Mutex};

use crate::event::Event;

/// Somebody who wants to know what happens.
pub trait Listener: Send {
    /// Hears one event. Called from many threads, one at a time.
    fn hear(&mut self, event: &Event);
}

/// A listener that several runs share.
impl<L: Listener> Listener for Arc<Mutex<L>> {
    fn hear(&mut self, event: &Event) {
        self.lock().unwrap_or_else(std::sync::PoisonError::into_inner).hear(event);
    }
}

/// All listeners of a run behind one lock.
#[derive(Default)]
pub struct Listeners(Mutex<Vec<Box<dyn Listener>>>);

impl Listeners {
    /// Nobody listens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a listener.
    pub fn add(&self, listener: impl Listener + 'static) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Box::new(listener));
    }

    /// Tells everybody.
    pub fn tell(&self, event: &Event) {
        for listener in self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter_mut() {
            listener.hear(event);
        }
    }
}
