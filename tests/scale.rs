//! The cost of a run is linear in its jobs: what twice the records need is at most 2.2 times as much, counted and not timed.
//!
//! Each run is that of the whole program, `ecgpipe run`, on the pipeline of `benches/scale`: five stages a record, a stage
//! that gathers all records and one that spreads over them. Counted are allocations, allocated bytes, the most bytes alive
//! at once, bytes and calls of reading and writing (Linux), and decoded artifacts. This file is one test, because all of
//! these are counted for the whole process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    fs,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use clap::Parser;
use ecgpipe::{
    cli::Cli,
    commands::{Failure, Wiring, dispatch},
    track::run_folder,
};

#[path = "../benches/scale/stages.rs"]
mod stages;

/// Records of the smaller project; the larger has twice as many.
const RECORD_N: usize = 100;

/// Twice the records may cost so many times as much: a tenth is for buffers that grow in steps.
const MOST: f64 = 2.2;

static ALLOCATION_N: AtomicU64 = AtomicU64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static ALIVE: AtomicU64 = AtomicU64::new(0);
static MOST_ALIVE: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counting.
struct Counting;

#[expect(unsafe_code, reason = "an allocator cannot be written without; it passes everything on to the system's")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let size = layout.size() as u64;
        ALLOCATION_N.fetch_add(1, Relaxed);
        ALLOCATED.fetch_add(size, Relaxed);
        MOST_ALIVE.fetch_max(ALIVE.fetch_add(size, Relaxed) + size, Relaxed);
        // SAFETY: the caller keeps the promises of `GlobalAlloc::alloc`, which are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the pointer came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Counts = BTreeMap<&'static str, u64>;

fn counters() -> Counts {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let of_system = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|count| count.parse().ok()).unwrap_or_default()
    };
    BTreeMap::from([
        ("allocations", ALLOCATION_N.load(Relaxed)),
        ("bytes allocated", ALLOCATED.load(Relaxed)),
        ("bytes read", of_system("rchar")),
        ("bytes written", of_system("wchar")),
        ("calls of read", of_system("syscr")),
        ("calls of write", of_system("syscw")),
        ("artifacts decoded", stages::decoded_n()),
    ])
}

/// What one run in a project costs. It must compute so many jobs.
fn cost(project: &Path, record_n: usize, extra: &[&str], computed_n: usize) -> Counts {
    let words =
        ["ecgpipe", "-C", project.to_str().unwrap(), "run", "pipeline.yaml", "--offline", "--quiet", "--jobs", "2"];
    let cli = Cli::parse_from(words.iter().chain(extra));
    let wiring = Wiring {
        registry: stages::registry(),
        infer: |_| Err(Failure::usage("there is no model")),
        beat_class: |_| None,
        mv_per_unit: |_| None,
    };
    let (before, alive) = (counters(), ALIVE.load(Relaxed));
    MOST_ALIVE.store(alive, Relaxed);
    let exit = dispatch(cli, &wiring);
    let mut costs = counters();
    let most_alive = MOST_ALIVE.load(Relaxed) - alive;
    for (name, count) in &mut costs {
        *count -= before[name];
    }
    costs.insert("most bytes alive", most_alive);
    let (_, run) = run_folder::find(&project.join("runs"), "latest").unwrap();
    let counts = run.counts.unwrap();
    assert_eq!(format!("{exit:?}"), format!("{:?}", ExitCode::SUCCESS), "{extra:?}");
    assert_eq!((counts.computed, counts.total()), (computed_n, stages::job_n(record_n)), "{extra:?}");
    costs
}

/// The kinds of runs, each with its costs.
fn costs(record_n: usize) -> Vec<(&'static str, Counts)> {
    let project = tempfile::tempdir().unwrap();
    let project = project.path();
    stages::write_project(project, record_n).unwrap();
    let run = |extra: &[&str], computed_n| cost(project, record_n, extra, computed_n);
    let mut costs = vec![("cold", run(&[], stages::job_n(record_n))), ("nothing changed", run(&[], 0))];
    fs::write(project.join("data/texts/r00000.txt"), stages::raw_text(0, 1)).unwrap();
    costs.push(("one record", run(&[], 7)));
    costs.push(("a parameter that changes no byte", run(&["--set", "tidy.remark=x"], record_n)));
    costs
        .push(("the stage that gathers, and what it spreads over", run(&["--set", "join.prefix=x"], 2 * record_n + 2)));
    costs
        .push(("two readers of one output", run(&["--set", "join.remark=y", "--set", "count.remark=y"], record_n + 1)));
    costs.push(("the first stage", run(&["--set", "read.prefix=x"], stages::job_n(record_n))));
    costs
}

#[test]
fn twice_the_records_cost_twice_as_much() {
    // What is done once a process (the first run has it all) is not to be counted for the smaller project only.
    costs(2);
    let (small, large) = (costs(RECORD_N), costs(2 * RECORD_N));
    let mut too_much = Vec::new();
    for ((what, small), (_, large)) in small.iter().zip(&large) {
        for (name, &small_n) in small {
            let (large_n, ratio) = (large[name], large[name] as f64 / small_n.max(1) as f64);
            let line =
                format!("{what}: {name}: {small_n} for {RECORD_N} records, {large_n} for twice as many ({ratio:.2})");
            // What does not depend on the records at all may differ by a little.
            if ratio > MOST && large_n > 100 {
                too_much.push(line);
            }
        }
    }
    assert!(too_much.is_empty(), "{}", too_much.join("\n"));

    let decoded = |what: &str| {
        let (_, costs) = large.iter().find(|(known, _)| *known == what).unwrap();
        costs["artifacts decoded"]
    };
    // Whatever changes the key of `sum`, or of what it reads, publishes its text anew: one artifact.
    assert_eq!(decoded("nothing changed"), 0);
    for all_computed in ["cold", "the first stage"] {
        assert_eq!(decoded(all_computed), 1, "{all_computed}: what was just made is not read back");
    }
    assert_eq!(decoded("two readers of one output"), 2 * RECORD_N as u64 + 1, "each is decoded once for both");
}
