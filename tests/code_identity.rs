//! The identity of a stage's code changes when, and only when, something changes that decides what its body computes.
//! Edits are made to a copy of the sources; nothing is compiled.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

#[path = "../stages/build/identity.rs"]
mod identity;

/// The stages.
const STAGES: [&str; 17] = [
    "detect_peaks",
    "evaluate",
    "export_onnx",
    "infer_onnx",
    "ingest_files",
    "ingest_wfdb",
    "normalise",
    "plot_beats",
    "plot_confusion",
    "plot_curves",
    "plot_strips",
    "rhythm",
    "split",
    "synthesise",
    "train_baseline",
    "train_cnn",
    "window",
];

/// A copy of what identities are made from.
struct Copy(tempfile::TempDir);

impl Copy {
    fn new() -> Self {
        let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
        let copy = Self(tempfile::tempdir().unwrap());
        for name in ["Cargo.toml", "Cargo.lock"] {
            fs::copy(root.join(name), copy.path(name)).unwrap();
        }
        copy_folder(&root.join("stages"), &copy.path("stages"));
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn made(&self) -> Result<identity::Identities, Vec<String>> {
        identity::identities(self.0.path(), "rustc 1.95")
    }

    fn of_stages(&self) -> BTreeMap<String, String> {
        let mut all = self.made().unwrap().by_module;
        all.retain(|name, _| STAGES.contains(&name.as_str()));
        all
    }

    fn replace(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        fs::write(self.path(name), text.replacen(from, to, 1)).unwrap();
    }

    fn append(&self, name: &str, text: &str) {
        let old = fs::read_to_string(self.path(name)).unwrap_or_default();
        fs::write(self.path(name), old + text).unwrap();
    }

    /// The stages whose identity an edit changes.
    fn changes(&self, edit: impl FnOnce(&Self)) -> String {
        let before = self.of_stages();
        edit(self);
        let after = self.of_stages();
        assert_eq!(before.keys().collect::<Vec<_>>(), STAGES.iter().collect::<Vec<_>>());
        let changed: Vec<&str> = STAGES.into_iter().filter(|stage| before[*stage] != after[*stage]).collect();
        if changed.len() == STAGES.len() { "all".to_owned() } else { changed.join(" ") }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[track_caller]
fn check(edit: impl FnOnce(&Copy), changed: &str) {
    assert_eq!(Copy::new().changes(edit), changed);
}

#[test]
fn every_stage_has_an_identity_of_its_own() {
    let identities = Copy::new().of_stages();
    assert_eq!(identities.values().collect::<BTreeSet<_>>().len(), STAGES.len());
    assert!(identities.values().all(|identity| identity.len() == 64));
    assert_eq!(identities, Copy::new().of_stages(), "the place of the sources counts for nothing");
}

#[test]
fn the_arithmetic_of_a_stage_counts() {
    check(|copy| copy.replace("stages/rhythm.rs", "(0..).take", "(1..).take"), "rhythm");
    check(
        |copy| copy.replace("stages/normalise.rs", "(sample - minimum) / range", "(sample - minimum) * range"),
        "normalise",
    );
    check(|copy| copy.replace("stages/hold_out.rs", "1", "2"), "split");
    check(
        |copy| copy.append("stages/rhythm.rs", "\n/// Behind the tests.\npub fn more() -> u8 {\n    1\n}\n"),
        "rhythm",
    );
}

#[test]
fn what_a_stage_names_counts_however_it_names_it() {
    check(|copy| copy.append("stages/resample.rs", "\nconst A: u8 = 1;\n"), "window");
    check(|copy| copy.append("stages/tables/src/tally.rs", "\nconst A: u8 = 1;\n"), "evaluate rhythm split");
    check(|copy| copy.append("stages/sdk/src/record.rs", "\nconst A: u8 = 1;\n"), "all");
    for path in [
        "use super::resample::read;",
        "use super::{aami, resample::{self}};",
        "fn a() { crate::resample::read(); }",
        "use crate::{resample as n};",
    ] {
        let copy = Copy::new();
        copy.append("stages/rhythm.rs", path);
        let changed = copy.changes(|copy| copy.append("stages/resample.rs", "\nconst A: u8 = 1;\n"));
        assert!(changed.split(' ').any(|stage| stage == "rhythm"), "{path}: {changed}");
    }
    for path in ["use ecgpipe_wfdb as w;", "extern crate ecgpipe_wfdb;"] {
        let copy = Copy::new();
        copy.append("stages/rhythm.rs", path);
        let changed = copy.changes(|copy| copy.append("stages/wfdb/src/code.rs", "\nconst A: u8 = 1;\n"));
        assert!(changed.split(' ').any(|stage| stage == "rhythm"), "{path}: {changed}");
    }
}

#[test]
fn files_that_are_read_in_count_by_their_bytes() {
    check(|copy| copy.append("stages/database/mitdb.sha256", "\n"), "ingest_wfdb");
    let copy = Copy::new();
    fs::write(copy.path("constants.txt"), "1").unwrap();
    copy.append("stages/rhythm.rs", "const TEXT: &str = include_str!(\"../constants.txt\");");
    assert_eq!(copy.changes(|copy| copy.append("constants.txt", "2")), "rhythm");
    assert!(copy.made().unwrap().watched.contains(&copy.path("constants.txt")));
    let copy = Copy::new();
    fs::write(copy.path("other.rs"), "").unwrap();
    copy.append("stages/rhythm.rs", "#[path = \"../other.rs\"]\nmod other;");
    assert_eq!(copy.changes(|copy| copy.append("other.rs", "const A: u8 = 1;")), "rhythm");
    check(|copy| copy.append("stages/split/new.rs", "const A: u8 = 1;"), "split");
}

#[test]
fn libraries_count_by_locked_version_and_features_where_they_are_reached() {
    let lock = fs::read_to_string(Copy::new().path("Cargo.lock")).unwrap();
    let version = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap();
        format!("name = \"{name}\"\nversion = \"{}\"", rest.split('"').next().unwrap())
    };
    let bumped = |name: &str| {
        let (from, to) = (version(name), format!("name = \"{name}\"\nversion = \"99.0.0\""));
        move |copy: &Copy| copy.replace("Cargo.lock", &from, &to)
    };
    check(bumped("polars-core"), "evaluate rhythm split");
    check(bumped("png"), "plot_beats plot_confusion plot_curves plot_strips");
    check(bumped("parquet"), "all");
    check(bumped("clap"), "");
    let features = |copy: &Copy| copy.replace("Cargo.toml", "\"rolling_window\"]", "\"rolling_window\", \"simd\"]");
    check(features, "evaluate rhythm split");
}

#[test]
fn what_compiles_the_stages_counts() {
    let copy = Copy::new();
    let of = |toolchain| identity::identities(copy.0.path(), toolchain).unwrap().by_module;
    let (old, new) = (of("rustc 1.95"), of("rustc 1.96"));
    assert!(old.iter().all(|(name, identity)| new[name] != *identity));
    // The version of this program is written into ONNX files.
    let changed = copy.changes(|copy| copy.replace("Cargo.toml", "version = \"0.1.0\"", "version = \"0.2.0\""));
    assert!(changed.contains("export_onnx") && !changed.contains("rhythm"), "{changed}");
}

#[test]
fn what_decides_nothing_does_not_count() {
    let comment = |copy: &Copy| {
        copy.replace("stages/rhythm.rs", "    fn run(", "    // Why.\n\n    /* Because. */ fn run(");
        copy.replace("stages/rhythm.rs", "//! ", "//! Once upon a time. ");
    };
    check(comment, "");
    check(|copy| copy.append("stages/split/tests.rs", "const A: u8 = 1;"), "");
    check(|copy| copy.append("stages/detect_peaks/mitdb_tests.rs", "const A: u8 = 1;"), "");
    check(|copy| copy.replace("stages/rhythm.rs", "assert_eq!(given.beat_idx, [0, 1, 2, 3])", "assert!(true)"), "");
    check(|copy| copy.append("stages/README.md", "More."), "");
    check(|copy| copy.append("stages/wfdb/tests/golden.rs", "const A: u8 = 1;"), "");
    check(|copy| copy.append("stages/lib.rs", "\n// More.\n"), "");
    let plugin = |copy: &Copy| {
        fs::create_dir_all(copy.path("stages/median")).unwrap();
        copy.append("stages/median/stage.yaml", "command: [sh]");
        copy.append("stages/median/median.rs", "fn main() {}");
    };
    check(plugin, "");
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let refused = |name: &str, text: &str| {
        let copy = Copy::new();
        copy.append(name, text);
        copy.made().map(|_| "taken".to_owned()).unwrap_or_else(|problems| problems.join("; "))
    };
    let check = |name: &str, text: &str, says: &str| {
        let problem = refused(name, text);
        assert!(problem.contains(says), "{text}: {problem}");
    };
    check("stages/lib.rs", "pub use window::Window;", "stages/lib.rs re-exports from `window`");
    check("stages/lib.rs", "macro_rules! m { () => {} }", "stages/lib.rs has a macro");
    check("stages/rhythm.rs", "use crate::*;", "`crate::*` is no module of its own");
    check("stages/rhythm.rs", "use super::*;", "`crate::*` is no module of its own");
    check("stages/rhythm.rs", "use crate::register;", "`crate::register` is no module of its own");
    check("stages/rhythm.rs", "use crate as root;", "hides which module is meant");
    check("stages/rhythm.rs", "#[macro_export] macro_rules! m { () => {} }", "`#[macro_export]`");
    check("stages/rhythm.rs", "const A: &str = env!(\"USER\");", "`env!(\"USER\")` takes a value from the build");
    check("stages/rhythm.rs", "include!(concat!(\"a\", \".rs\"));", "not written as a plain path");
    check("stages/rhythm.rs", "const A: &str = include_str!(\"nowhere.txt\");", "failed to read nowhere.txt");
    assert_eq!(refused("stages/rhythm.rs", "mod inner { use super::*; }"), "taken");
    check("stages/rhythm.rs", "mod inner { use super::super::*; }", "`crate::*` is no module of its own");
}
