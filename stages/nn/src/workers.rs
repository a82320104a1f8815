//! Threads on which independent pieces of work run, each with a private rayon pool of one thread.
//!
//! burn's CPU kernels ask the surrounding rayon pool how many threads there are and cut their work accordingly.
//! Inside a pool of one thread they never cut it, so a piece of work gives the same bytes wherever it runs.
//!
//! Invariant: the results are in the order of the pieces, not of their completion
//! (`the_number_of_threads_does_not_change_a_weight`).

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A fixed number of single-threaded pools.
pub(crate) struct Workers(Vec<rayon::ThreadPool>);

impl Workers {
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn new(thread_n: NonZeroUsize) -> Result<Self, rayon::ThreadPoolBuildError> {
        (0..thread_n.get())
            .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build())
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Does `piece(0) .. piece(piece_n - 1)` and gives their results in that order.
    pub(crate) fn map<T: Send>(&self, piece_n: usize, piece: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let next_idx = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            loop {
                let idx = next_idx.fetch_add(1, Ordering::Relaxed);
                if idx >= piece_n {
                    return done;
                }
                done.push((idx, piece(idx)));
            }
        };
        let mut done = Vec::with_capacity(piece_n);
        std::thread::scope(|scope| {
            let started_n = self.0.len().min(piece_n);
            let handles: Vec<_> = self.0[..started_n].iter().map(|pool| scope.spawn(|| pool.install(work))).collect();
            for handle in handles {
                match handle.join() {
                    Ok(part) => done.extend(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        done.sort_unstable_by_key(|(idx, _)| *idx);
        done.into_iter().map(|(_, result)| result).collect()
    }
}
