//! What `ecgpipe stages new` writes, run and compiled; and that the manual's tables of kinds are what the program prints.
//!
//! The Rust skeleton is a template of a stage named `new_stage`, and writing a stage is replacing that name. The template is
//! compiled here as a module, so that its own tests run with these; the names that are allowed cannot change what it means
//! (`src/commands/stages/new.rs`). A second workspace, built by a test, would cost minutes for the same certainty.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

#[path = "../src/commands/stages/templates/rust/new_stage.rs"]
pub mod new_stage;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A project whose `stages/lib.rs` is the real one.
fn checkout() -> TempDir {
    let project = TempDir::new().unwrap();
    fs::create_dir(project.path().join("stages")).unwrap();
    fs::copy(repository().join("stages/lib.rs"), project.path().join("stages/lib.rs")).unwrap();
    project
}

fn ecgpipe(project: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecgpipe"));
    command.current_dir(project).args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn written(output: &Output) -> Vec<PathBuf> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    str::from_utf8(&output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

#[track_caller]
fn refused(output: &Output, texts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{stderr}");
    for text in texts {
        assert!(stderr.contains(text), "{text:?} is not said in: {stderr}");
    }
}

#[test]
fn a_stage_in_rust_is_the_compiled_template_under_its_name_and_in_the_list() {
    let project = checkout();
    let files = written(&ecgpipe(project.path(), &["stages", "new", "rolling_count", "--rust"]));
    assert_eq!(files, ["stages/rolling_count.rs", "stages/lib.rs"].map(PathBuf::from));

    let template = fs::read_to_string(repository().join("src/commands/stages/templates/rust/new_stage.rs")).unwrap();
    let stage = fs::read_to_string(project.path().join("stages/rolling_count.rs")).unwrap();
    assert_eq!(stage, template.replace("NewStage", "RollingCount").replace("new_stage", "rolling_count"));

    let before = fs::read_to_string(repository().join("stages/lib.rs")).unwrap();
    let mut lines: Vec<&str> = before.lines().collect();
    let place = |lines: &[&str], line: &str| lines.iter().position(|found| *found == line).unwrap();
    let module = place(&lines, "pub mod signal_quality;");
    lines.insert(module, "pub mod rolling_count;");
    let add = place(&lines, "    add::<signal_quality::SignalQuality>(registry);");
    lines.insert(add, "    add::<rolling_count::RollingCount>(registry);");
    assert_eq!(fs::read_to_string(project.path().join("stages/lib.rs")).unwrap(), lines.join("\n") + "\n");

    refused(&ecgpipe(project.path(), &["stages", "new", "rolling_count", "--rust"]), &["is there already"]);
}

#[test]
fn a_stage_in_rust_outside_of_a_checkout_is_refused_with_a_way_out() {
    let project = TempDir::new().unwrap();
    let output = ecgpipe(project.path(), &["stages", "new", "rolling_count", "--rust"]);
    refused(&output, &["no checkout of ecgpipe", "add::<rolling_count::RollingCount>(registry);", "--python"]);
    assert_eq!(fs::read_dir(project.path()).unwrap().count(), 0);
}

#[test]
fn names_that_are_taken_or_unfit_are_refused() {
    let project = TempDir::new().unwrap();
    for (name, texts) in [
        ("window", &["there is a stage `window` already"][..]),
        ("MedianFilter", &["`MedianFilter` cannot name a stage", "`median_filter`, for example"]),
        ("json", &["`json` cannot name a stage", "`json_ecg`"]),
    ] {
        refused(&ecgpipe(project.path(), &["stages", "new", name, "--python"]), texts);
    }
    refused(&ecgpipe(project.path(), &["stages", "new", "mine"]), &["--rust|--python|--sh"]);
    refused(&ecgpipe(project.path(), &["stages", "new", "mine", "--sh", "--rust"]), &["cannot be used with"]);
    assert_eq!(fs::read_dir(project.path()).unwrap().count(), 0);
}

#[test]
fn the_kinds_in_the_manual_are_those_of_the_program() {
    let manual = fs::read_to_string(repository().join("docs/plugins.md")).unwrap();
    let kinds = ecgpipe::schema::kind_tables();
    assert!(manual.contains(kinds.trim()), "renew the end of docs/plugins.md: ecgpipe stages --kinds");
}
