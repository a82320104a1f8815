//! The engine's promises, on small stages whose bodies count themselves: what is computed and what is not, what damage,
//! failures, cancellation and a second engine do, and that nothing but the inputs decides the results.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "engine/project.rs"]
mod project;
#[path = "engine/remote.rs"]
mod remote;
#[path = "engine/stages.rs"]
mod stages;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    sync::Barrier,
    time::{Duration, SystemTime},
};

use ecgpipe::{
    digest::Digest,
    engine::EngineError,
    event::{Event, RunStatus},
    publish::{Publication, PublishError, PublishedFile, publish},
    store::Store,
};
use ecgpipe_sdk::{KindSpec, NamedFile, Onnx, Provenance, kinds::Files};
use project::{ALL_BODIES, Options, PIPELINE, Project};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use stages::{Text, Trouble};

/// Runs once, edits, runs again: the bodies of the second run must be `bodies`, and its digests those of an empty store.
fn check(bodies: &str, edit: impl FnOnce(&mut Project)) {
    check_with(bodies, &Options::default(), edit);
}

fn check_with(bodies: &str, options: &Options, edit: impl FnOnce(&mut Project)) {
    let mut project = Project::new();
    assert_eq!(project.run().bodies, ALL_BODIES);
    edit(&mut project);
    let ran = project.run_with(options);
    assert_eq!(ran.bodies, bodies);
    assert_eq!(ran.status, RunStatus::Finished, "{:?}", ran.failures());
    if options.targets.is_empty() {
        assert_eq!(ran.digests, project.run_fresh(1).digests);
    }
    let body_n = bodies.split_whitespace().count();
    assert_eq!((ran.counts.computed, ran.counts.failed, ran.counts.skipped), (body_n, 0, 0));
}

// What is computed.

#[test]
fn nothing_changed() {
    check("", |_| {});
}

#[test]
fn a_source_file_was_touched() {
    check("", |project| project.touch("b"));
}

#[test]
fn a_source_file_was_written_again_with_the_same_bytes() {
    check("", |project| project.write("b", "gamma delta"));
}

#[test]
fn a_parameter_that_does_not_change_the_bytes_stops_the_wave() {
    check("join", |project| project.edit("uses: join", "uses: join, with: {remark: x}"));
    check("tidy[a] tidy[b] tidy[c]", |project| project.edit("uses: tidy", "uses: tidy, with: {remark: x}"));
}

#[test]
fn a_default_that_is_written_out_changes_nothing() {
    check("", |project| project.edit("uses: tidy", "uses: tidy, with: {width_n: 4, remark: ''}"));
}

#[test]
fn a_parameter_changed_and_back() {
    check("", |project| {
        project.edit("uses: tidy", "uses: tidy, with: {width_n: 2}");
        let changed = project.run();
        assert_eq!(changed.bodies, ALL_BODIES.replace("read_text[a] read_text[b] read_text[c] ", ""));
        project.edit(", with: {width_n: 2}", "");
    });
}

#[test]
fn one_record_changed() {
    // Of the same length and within the same tick of the clock, so that nothing but the bytes tells.
    check("join label[a] label[b] label[c] noise[b] read_text[b] score tidy[b]", |project| {
        project.write("b", "gamma dElta");
        project.edit("uses: label", "uses: label, with: {remark: x}");
    });
    // `label` depends on the length of what was joined only through `join`, which did change.
    check("join label[a] label[b] label[c] noise[b] read_text[b] score tidy[b]", |project| {
        project.write("b", "other text")
    });
}

#[test]
fn one_record_changed_in_a_way_that_its_first_stage_evens_out() {
    check("read_text[b] tidy[b]", |project| project.write("b", "  gamma \n delta"));
    check("read_text[b] tidy[b]", |project| project.write("b", "gammX deltX"));
}

#[test]
fn a_record_was_added() {
    let bodies = "join label[a] label[b] label[c] label[d] noise[d] read_text[d] score tidy[d]";
    check(bodies, |project| project.write("d", "eta theta"));
}

#[test]
fn a_record_was_removed() {
    check("join label[a] label[b] score", |project| project.remove("c"));
}

#[test]
fn a_record_was_renamed() {
    let bodies = "join label[a] label[c] label[x] noise[x] read_text[x] score tidy[x]";
    check(bodies, |project| fs::rename(project.text_path("b"), project.text_path("x")).unwrap());
}

#[test]
fn a_blob_was_deleted() {
    // What only hits would read is not missed; what is the end of a branch is.
    for (output, body) in [("tidy[b].text", ""), ("read[a].text", ""), ("score.text", "score")] {
        check(body, |project| {
            let digest = project.run().digests[output];
            fs::remove_file(project.blob_path(&digest)).unwrap();
        });
    }
}

#[test]
fn a_deleted_blob_is_computed_again_when_it_is_needed() {
    check("join tidy[b]", |project| {
        let digest = project.run().digests["tidy[b].text"];
        fs::remove_file(project.blob_path(&digest)).unwrap();
        project.edit("uses: join", "uses: join, with: {remark: x}");
    });
}

#[test]
fn a_node_was_renamed() {
    check("", |project| {
        project.edit("tidy:", "clean:");
        project.edit("tidy.text", "clean.text");
    });
}

#[test]
fn the_pipeline_was_written_in_another_order() {
    check("", |project| {
        let lines: Vec<&str> = PIPELINE.trim().lines().collect();
        let (head, nodes) = lines.split_at(3);
        project.yaml = head.iter().chain(nodes.iter().rev()).fold(String::new(), |text, line| text + line + "\n");
        project.edit(
            "{uses: score, in: {joined: join.text, noisy: noise.text}}",
            "{in: {noisy: noise.text, joined: join.text}, uses: score}",
        );
    });
}

#[test]
fn another_seed_reaches_only_the_stages_that_draw() {
    check("noise[a] noise[b] noise[c] score", |project| project.edit("seed: 7", "seed: 8"));
}

#[test]
fn other_code_with_the_same_result_stops_the_wave() {
    check("tidy[a] tidy[b] tidy[c]", |project| {
        project.codes.insert("tidy".to_owned(), "c1".to_owned());
    });
}

#[test]
fn force_computes_the_named_node_only() {
    check_with("join", &Options { force: vec!["join"], ..Options::default() }, |_| {});
    let options = Options { force: vec!["tidy", "score"], ..Options::default() };
    check_with("score tidy[a] tidy[b] tidy[c]", &options, |_| {});
}

#[test]
fn a_late_parameter_does_not_run_the_early_stages() {
    check("score", |project| project.edit("uses: score", "uses: score, with: {offset: 3}"));
}

#[test]
fn a_target_runs_what_it_needs_and_no_more() {
    let project = Project::new();
    let ran = project.run_with(&Options { targets: vec!["join"], ..Options::default() });
    assert_eq!(ran.bodies, "join read_text[a] read_text[b] read_text[c] tidy[a] tidy[b] tidy[c]");
    assert_eq!(ran.counts.total(), 7);
    assert_eq!(project.run().bodies, "label[a] label[b] label[c] noise[a] noise[b] noise[c] score");
}

#[test]
fn two_nodes_with_one_key_are_computed_once() {
    let mut project = Project::new();
    project.edit("  join:", "  again: {uses: tidy, in: {text: read.text}}\n  join:");
    assert_eq!(project.run_with(&Options { jobs: 4, ..Options::default() }).bodies, ALL_BODIES);
}

#[test]
fn a_dry_run_computes_and_keeps_nothing() {
    let project = Project::new();
    let dry = project.run_with(&Options { dry_run: true, ..Options::default() });
    assert_eq!((dry.bodies.as_str(), dry.counts.hits, dry.counts.skipped), ("", 0, 14));
    assert_eq!(project.run().bodies, ALL_BODIES);
    project.write("b", "other text");
    let dry = project.run_with(&Options { dry_run: true, ..Options::default() });
    assert_eq!((dry.bodies.as_str(), dry.counts.hits), ("", 6), "read, tidy and noise of a and c");
    assert_eq!(dry.counts.skipped, 8);
}

#[test]
fn every_miss_says_why_and_what_changed_further_up() {
    let mut project = Project::new();
    let first = project.run();
    assert_eq!(first.why("score").as_deref(), Some("not computed before"));
    assert_eq!(project.run().why("score"), None, "a hit");

    project.edit("uses: score", "uses: score, with: {offset: 3}");
    project.edit("seed: 7", "seed: 8");
    project.write("c", "epsilon eta");
    let changed = project.run();
    let source = changed.why("read[c]").unwrap();
    assert!(source.starts_with("source.c.txt ") && !source.contains(';'), "{source}");
    assert_eq!(changed.why("noise[a]").as_deref(), Some("seed 7 -> 8"));
    let noise = format!("input.text changed because read[c]: {source}");
    assert_eq!(changed.why("noise[c]"), Some(format!("seed 7 -> 8; {noise}")));
    assert_eq!(changed.why("tidy[c]"), Some(noise));
    let score = changed.why("score").unwrap();
    let inputs = "input.joined, input.noisy[a], input.noisy[b] and 1 more changed because ";
    assert!(score.starts_with(&format!("param.offset 0 -> 3; {inputs}")), "{score}");
    for cause in ["noise[a]: seed 7 -> 8", "noise[b]: seed 7 -> 8", "and 1 more"] {
        assert!(score.contains(cause), "{score}");
    }

    let forced = project.run_with(&Options { force: vec!["join"], ..Options::default() });
    assert_eq!(forced.why("join").as_deref(), Some("forced"));
}

#[test]
fn a_miss_is_explained_whatever_node_pipeline_or_record_it_was_before() {
    let mut project = Project::new();
    project.run();
    project.edit("name: texts", "name: other");
    project.edit("  tidy:", "  clean:");
    project.edit("tidy.text", "clean.text");
    project.edit("uses: tidy", "uses: tidy, with: {width_n: 2}");
    let renamed = project.run();
    assert_eq!(renamed.why("clean[a]").as_deref(), Some("param.width_n 4 -> 2"));
    let cause = "input.texts[a], input.texts[b], input.texts[c] changed because clean[a]: param.width_n 4 -> 2, \
                 clean[b]: param.width_n 4 -> 2, clean[c]: param.width_n 4 -> 2";
    assert_eq!(renamed.why("join").as_deref(), Some(cause));

    project.write("d", "eta theta");
    let added = project.run();
    assert_eq!(added.why("read[d]").as_deref(), Some("a new record"));
    assert_eq!(added.why("clean[d]").as_deref(), Some("a new record"));
    assert_eq!(added.why("join").as_deref(), Some("input.texts[d] is new"));

    // Of two earlier keys the nearer one is meant, though the other is later.
    project.edit("uses: score", "uses: score, with: {offset: 5}");
    project.run();
    project.edit("offset: 5", "offset: 6");
    project.edit("width_n: 2", "width_n: 4");
    project.remove("d");
    let nearest = project.run();
    assert_eq!(nearest.bodies, "score");
    assert_eq!(nearest.why("score").as_deref(), Some("param.offset 0 -> 6"));
}

#[test]
fn a_miss_follows_its_cause_through_what_another_run_computed() {
    let mut project = Project::new();
    project.run();
    project.edit("uses: tidy", "uses: tidy, with: {width_n: 2}");
    project.run_with(&Options { targets: vec!["join"], ..Options::default() });
    let ran = project.run();
    assert_eq!(ran.why("join"), None, "a hit");
    let cause = |record: &str| format!("tidy[{record}]: param.width_n 4 -> 2");
    let causes = ["a", "b", "c"].map(cause).join(", ");
    assert_eq!(ran.why("label[a]"), Some(format!("input.joined, input.text changed because {causes}")));
}

#[test]
fn a_dry_run_says_which_job_the_others_wait_for() {
    let mut project = Project::new();
    project.run();
    project.edit("uses: tidy", "uses: tidy, with: {width_n: 2}");
    let dry = project.run_with(&Options { dry_run: true, ..Options::default() });
    let waiting: BTreeMap<String, String> =
        dry.report.waiting.iter().map(|job| (job.name.to_string(), job.why.to_string())).collect();
    assert_eq!(waiting.len(), 8);
    assert_eq!(waiting["noise[b]"], "waits for tidy[b] (param.width_n 4 -> 2)");
    assert_eq!(waiting["score"], "waits for tidy[a] (param.width_n 4 -> 2)");
    assert_eq!(dry.report.waiting[0].why.general(), "waits for tidy (param.width_n 4 -> 2)");
}

// Sources that cannot be listed.

#[test]
fn a_source_without_records_stops_the_run_before_it_starts() {
    let project = Project::new();
    for record in ["a", "b", "c"] {
        project.remove(record);
    }
    let error = project.try_run(&Options::default(), &project.store_folder()).map(|ran| ran.bodies).unwrap_err();
    assert!(matches!(&error, EngineError::Expand(errors) if errors.len() == 1), "{error:?}");
    assert!(error.to_string().contains("read") && error.to_string().contains("no records"), "{error}");
}

#[test]
fn all_sources_that_cannot_be_listed_are_named_at_once() {
    let mut project = Project::new();
    project.edit("  tidy:", "  again: {uses: read_text}\n  tidy:");
    fs::remove_dir_all(project.data_folder().join("texts")).unwrap();
    let error = project.try_run(&Options::default(), &project.store_folder()).map(|ran| ran.bodies).unwrap_err();
    assert!(matches!(&error, EngineError::Expand(errors) if errors.len() == 2), "{error:?}");
}

// Damage.

/// Damages outputs of a run (one flipped bit, size and name as before), edits so that they are read again, and runs: the
/// bodies must be `bodies`, the damage in quarantine, and the results those of an empty store.
fn check_damage(damaged: &[&str], edit: impl Fn(&mut Project), bodies: &str) {
    for jobs in [1, 4] {
        let mut project = Project::new();
        let clean = project.run();
        for output in damaged {
            project.flip(&clean.digests[*output]);
        }
        edit(&mut project);
        let ran = project.run_with(&Options { jobs, ..Options::default() });
        assert_eq!(ran.status, RunStatus::Finished, "{:?}", ran.failures());
        assert_eq!(ran.bodies, bodies, "with {jobs} jobs");
        assert_eq!(ran.digests, project.run_fresh(1).digests);
        assert_eq!(project.quarantined_n(), damaged.len());
        let reported = ran.warnings().iter().filter(|text| text.contains("damaged")).count();
        assert!(reported >= damaged.len(), "{:?}", ran.warnings());
        assert_eq!(project.run().bodies, "", "the next run finds everything");
        let store = Store::open(&project.store_folder()).unwrap();
        assert_eq!(store.verify().unwrap().problems.len(), 0);
    }
}

#[test]
fn damage_that_nobody_reads_costs_nothing_and_is_found_by_verify() {
    let project = Project::new();
    let clean = project.run();
    project.flip(&clean.digests["tidy[b].text"]);
    assert_eq!(project.run().bodies, "");
    let store = Store::open(&project.store_folder()).unwrap();
    let blob = project.blob_path(&clean.digests["tidy[b].text"]);
    assert!(store.verify().unwrap().problems.iter().any(|problem| problem.path == blob));
}

#[test]
fn a_damaged_input_is_computed_again() {
    let edit = |project: &mut Project| project.edit("uses: score", "uses: score, with: {offset: 3}");
    check_damage(&["join.text"], edit, "join score");
}

#[test]
fn several_damaged_inputs_of_one_gathering_stage_are_computed_again() {
    let edit = |project: &mut Project| project.edit("uses: join", "uses: join, with: {remark: x}");
    check_damage(&["tidy[a].text", "tidy[b].text", "tidy[c].text"], edit, "join tidy[a] tidy[b] tidy[c]");
}

#[test]
fn any_number_of_damaged_inputs_is_computed_again_in_one_go() {
    let mut project = Project::new();
    for record in 0..9 {
        project.write(&format!("r{record}"), &format!("text number {record}"));
    }
    let clean = project.run();
    for record in 0..9 {
        project.flip(&clean.digests[&format!("tidy[r{record}].text")]);
    }
    project.edit("uses: join", "uses: join, with: {remark: x}");
    let ran = project.run();
    assert_eq!((ran.status, ran.counts.computed), (RunStatus::Finished, 10), "{:?}", ran.failures());
    assert_eq!(ran.digests, clean.digests);
}

#[test]
fn damage_behind_damage_is_computed_again_from_the_first_sound_result() {
    let edit = |project: &mut Project| project.edit("uses: join", "uses: join, with: {remark: x}");
    check_damage(&["tidy[a].text", "tidy[b].text", "read[b].text"], edit, "join read_text[b] tidy[a] tidy[b]");
}

#[test]
fn damage_that_several_stages_find_at_once_is_computed_again_once() {
    let edit = |project: &mut Project| {
        for stage in ["noise", "join", "label"] {
            project.codes.insert(stage.to_owned(), "c1".to_owned());
        }
    };
    let bodies = "join label[a] label[b] label[c] noise[a] noise[b] noise[c] tidy[a] tidy[c]";
    check_damage(&["tidy[a].text", "tidy[c].text"], edit, bodies);
}

#[test]
fn a_damaged_input_of_a_spreading_stage_is_computed_again_once() {
    let edit = |project: &mut Project| project.edit("uses: label", "uses: label, with: {remark: x}");
    check_damage(&["join.text"], edit, "join label[a] label[b] label[c]");
}

#[test]
fn damaged_metrics_are_computed_again_since_every_run_shows_them() {
    check_damage(&["score.metrics"], |_| {}, "score");
}

#[test]
fn a_damaged_manifest_is_a_miss() {
    let project = Project::new();
    let clean = project.run();
    let job = clean.report.jobs.iter().find(|job| job.name.to_string() == "join").unwrap();
    let hex = job.key.to_hex();
    let path = project.store_folder().join("manifests").join(&hex[..2]).join(format!("{hex}.json"));
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("join", "jojn", 1)).unwrap();
    let ran = project.run();
    assert_eq!((ran.bodies.as_str(), &ran.digests), ("join", &clean.digests));
    assert!(ran.warnings().iter().any(|text| text.starts_with("join: the manifest ")), "{:?}", ran.warnings());
}

#[test]
fn a_blob_of_another_size_is_a_miss() {
    let project = Project::new();
    let clean = project.run();
    fs::remove_file(project.blob_path(&clean.digests["join.text"])).unwrap();
    fs::write(project.blob_path(&clean.digests["join.text"]), "short").unwrap();
    let ran = project.run();
    assert_eq!((ran.bodies.as_str(), &ran.digests), ("join", &clean.digests));
}

// Failures.

#[test]
fn a_failure_keeps_only_its_dependents_from_running() {
    for jobs in [1, 3] {
        let project = Project::new();
        project.trouble("tidy[b]", Some(Trouble::Fail));
        let ran = project.run_with(&Options { jobs, keep_going: true, ..Options::default() });
        assert_eq!(ran.status, RunStatus::Failed);
        assert_eq!(ran.failures(), ["tidy[b]: the body of tidy[b] was told to fail (tell it not to)"]);
        assert_eq!(ran.skipped(), "join label[a] label[b] label[c] noise[b] score");
        let bodies = "noise[a] noise[c] read_text[a] read_text[b] read_text[c] tidy[a] tidy[b] tidy[c]";
        assert_eq!(ran.bodies, bodies);
        assert_eq!((ran.counts.computed, ran.counts.failed, ran.counts.skipped), (7, 1, 6));

        project.trouble("tidy[b]", None);
        let ran = project.run();
        assert_eq!(ran.bodies, "join label[a] label[b] label[c] noise[b] score tidy[b]");
        assert_eq!(ran.digests, project.run_fresh(1).digests);
    }
}

#[test]
fn without_keep_going_nothing_starts_after_a_failure() {
    let project = Project::new();
    project.trouble("tidy[b]", Some(Trouble::Fail));
    let ran = project.run_with(&Options { jobs: 1, ..Options::default() });
    assert_eq!(ran.bodies, "noise[a] read_text[a] read_text[b] tidy[a] tidy[b]");
    assert_eq!((ran.counts.computed, ran.counts.failed, ran.counts.skipped), (4, 1, 9));
    project.trouble("tidy[b]", None);
    let rest = "join label[a] label[b] label[c] noise[b] noise[c] read_text[c] score tidy[b] tidy[c]";
    assert_eq!(project.run().bodies, rest, "what was done is kept");
}

#[test]
fn a_panic_is_a_failure_and_the_worker_goes_on() {
    let project = Project::new();
    project.trouble("noise[a]", Some(Trouble::Panic));
    let ran = project.run_with(&Options { jobs: 1, keep_going: true, ..Options::default() });
    let help = "this is a defect of the stage; please report it with the record and the parameters";
    let failure = format!("noise[a]: the stage panicked: the body of noise[a] was told to panic ({help})");
    assert_eq!(ran.failures(), [failure]);
    assert_eq!(ran.skipped(), "score");
    assert_eq!(ran.counts.computed, 12);
    project.trouble("noise[a]", None);
    assert_eq!(project.run().bodies, "noise[a] score", "no lock is left behind");
}

#[test]
fn an_output_that_is_not_of_its_ports_kind_is_refused() {
    for (stage, message) in [("wrong_type", "of another kind"), ("nothing", "gave nothing on its port `text`")] {
        let mut project = Project::new();
        project.edit("uses: tidy", &format!("uses: {stage}"));
        let ran = project.run_with(&Options { keep_going: true, ..Options::default() });
        assert_eq!((ran.counts.computed, ran.counts.failed), (3, 3), "{:?}", ran.failures());
        assert!(ran.failures().iter().all(|failure| failure.contains(message)), "{:?}", ran.failures());
        assert_eq!(Store::open(&project.store_folder()).unwrap().keys().unwrap().len(), 3, "only `read` was stored");
    }
}

#[test]
fn a_source_file_that_changes_while_it_is_read_is_refused() {
    let project = Project::new();
    project.trouble("read_text[b]", Some(Trouble::Append(project.text_path("b"))));
    let ran = project.run_with(&Options { keep_going: true, ..Options::default() });
    let failures = ran.failures();
    assert_eq!(failures.len(), 1);
    assert!(
        failures[0].starts_with("read[b]: ") && failures[0].contains("b.txt changed while it was being read"),
        "{failures:?}"
    );
    project.trouble("read_text[b]", None);
    // Neither what the file was nor what it is has been stored under a key.
    let changed = project.run();
    assert!(changed.bodies.contains("read_text[b]"), "{}", changed.bodies);
    assert_eq!(changed.digests, project.run_fresh(1).digests);
    project.write("b", "gamma delta");
    let back = project.run();
    assert!(back.bodies.contains("read_text[b]"), "{}", back.bodies);
    assert_eq!(back.digests, project.run_fresh(1).digests);
}

#[test]
fn a_cancelled_run_stops_cleanly_and_the_next_one_continues() {
    for (jobs, job) in [(1, "tidy[b]"), (2, "read[c]"), (1, "score"), (4, "join")] {
        let project = Project::new();
        let stopped = project.run_with(&Options { jobs, cancel_at: Some(job), ..Options::default() });
        assert_eq!(stopped.status, RunStatus::Cancelled);
        assert_eq!(stopped.counts.total(), 14);
        assert!(stopped.counts.failed == 0 && stopped.counts.skipped > 0 || job == "score", "{:?}", stopped.counts);
        let rest = project.run();
        assert_eq!(rest.counts.hits, stopped.counts.computed);
        let mut bodies: Vec<&str> =
            stopped.bodies.split(' ').chain(rest.bodies.split(' ')).filter(|body| !body.is_empty()).collect();
        bodies.sort_unstable();
        assert_eq!(bodies.join(" "), ALL_BODIES, "each body once over both runs");
        assert_eq!(rest.digests, project.run_fresh(1).digests);
    }
}

// Nothing but the inputs decides the results.

#[test]
fn the_number_of_jobs_and_the_order_of_records_change_no_digest() {
    let mut project = Project::new();
    for record in 0..20 {
        project.write(&format!("r{record}"), &format!("text number {record}"));
    }
    let one = project.run_fresh(1);
    for jobs in [2, 8] {
        assert_eq!(project.run_fresh(jobs).digests, one.digests, "with {jobs} jobs");
    }
    project.edit("uses: read_text", "uses: read_text, with: {backwards: true}");
    assert_eq!(project.run_fresh(8).digests, one.digests, "with the records listed backwards");
}

/// A runner with a fixed seed: the same cases on every machine.
fn property<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner.run(strategy, test).unwrap_or_else(|error| panic!("{error}"));
}

/// A pipeline of random nodes: each takes its inputs from earlier ones, wherever the cardinalities allow it.
fn random_pipeline(choices: &[(u8, u8, u8)]) -> String {
    let mut yaml = "seed: 1\nstages:\n  n0: {uses: read_text}\n".to_owned();
    let (mut each, mut one) = (vec!["n0".to_owned()], Vec::<String>::new());
    for (idx, &(kind, first, second)) in choices.iter().enumerate() {
        let name = format!("n{}", idx + 1);
        let pick = |names: &[String], choice: u8| names[choice as usize % names.len()].clone();
        let from = pick(&each, first);
        let (line, per_record) = match kind % 6 {
            0 => (format!("{{uses: tidy, in: {{text: {from}.text}}, with: {{width_n: {}}}}}", second % 5 + 1), true),
            1 => (format!("{{uses: noise, in: {{text: {from}.text}}}}"), true),
            2 => (format!("{{uses: mix, in: {{text: {from}.text, other: {}.text}}}}", pick(&each, second)), true),
            3 if !one.is_empty() => {
                (format!("{{uses: label, in: {{text: {from}.text, joined: {}.text}}}}", pick(&one, second)), true)
            }
            4 if !one.is_empty() => {
                (format!("{{uses: score, in: {{joined: {}.text, noisy: {from}.text}}}}", pick(&one, second)), false)
            }
            _ => (format!("{{uses: join, in: {{texts: {from}.text}}}}"), false),
        };
        yaml.push_str(&format!("  {name}: {line}\n"));
        if per_record { each.push(name) } else { one.push(name) }
    }
    yaml
}

#[test]
fn random_pipelines_give_the_same_digests_with_any_number_of_jobs() {
    let choices = proptest::collection::vec(any::<(u8, u8, u8)>(), 3..12);
    property(12, &choices, |choices| {
        let mut project = Project::new();
        project.yaml = random_pipeline(&choices);
        let one = project.run_fresh(1);
        prop_assert_eq!(one.status, RunStatus::Finished);
        for jobs in [2, 8] {
            let ran = project.run_fresh(jobs);
            prop_assert_eq!(&ran.digests, &one.digests, "{} jobs: {}", jobs, &project.yaml);
            prop_assert_eq!(ran.counts.total(), one.counts.total());
        }
        Ok(())
    });
}

#[derive(Clone, Debug)]
enum Edit {
    Text { record: u8, text: u8 },
    Remove { record: u8 },
    Width { width_n: u8 },
    Remark { remark: u8 },
    Offset { offset: u8 },
    Seed { seed: u8 },
    Code { stage: u8, code: u8 },
    Flip { output: u8 },
    Delete { output: u8 },
    Force { node: u8 },
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (0..5_u8, 0..4_u8).prop_map(|(record, text)| Edit::Text { record, text }),
        1 => (0..5_u8).prop_map(|record| Edit::Remove { record }),
        1 => (1..4_u8).prop_map(|width_n| Edit::Width { width_n }),
        1 => (0..2_u8).prop_map(|remark| Edit::Remark { remark }),
        1 => (0..2_u8).prop_map(|offset| Edit::Offset { offset }),
        1 => (0..2_u8).prop_map(|seed| Edit::Seed { seed }),
        1 => (0..3_u8, 0..2_u8).prop_map(|(stage, code)| Edit::Code { stage, code }),
        3 => any::<u8>().prop_map(|output| Edit::Flip { output }),
        2 => any::<u8>().prop_map(|output| Edit::Delete { output }),
        1 => any::<u8>().prop_map(|node| Edit::Force { node }),
    ];
    proptest::collection::vec(proptest::collection::vec(edit, 1..4).prop_map(|edits| edits), 3..7).prop_map(|steps| {
        // A `Force` of nothing separates the steps: every step is one run.
        steps.into_iter().flat_map(|step| step.into_iter().chain([Edit::Force { node: u8::MAX }])).collect()
    })
}

/// The pipeline after edits: what of it can change.
#[derive(Default)]
struct Parameters {
    width_n: u8,
    remark: u8,
    offset: u8,
    seed: u8,
}

impl Parameters {
    fn yaml(&self) -> String {
        PIPELINE
            .replace("seed: 7", &format!("seed: {}", self.seed))
            .replace(
                "uses: tidy",
                &format!("uses: tidy, with: {{width_n: {}, remark: r{}}}", self.width_n + 1, self.remark),
            )
            .replace("uses: join", &format!("uses: join, with: {{remark: r{}}}", self.remark))
            .replace("uses: score", &format!("uses: score, with: {{offset: {}}}", self.offset))
    }
}

#[test]
fn after_any_edits_a_cached_run_equals_a_fresh_one() {
    const NODES: [&str; 6] = ["read", "tidy", "noise", "join", "score", "label"];
    const TEXTS: [&str; 4] = ["alpha beta", "alpha bete", " alpha  bet", "omega"];
    property(8, &edits(), |edits| {
        let mut project = Project::new();
        let mut parameters = Parameters::default();
        let mut records = BTreeSet::from(["a".to_owned(), "b".to_owned(), "c".to_owned()]);
        let mut options = Options { jobs: 3, ..Options::default() };
        let mut digests: Vec<Digest> = Vec::new();
        for edit in edits {
            let name = |record: u8| char::from(b'a' + record).to_string();
            match edit {
                Edit::Text { record, text } => {
                    project.write(&name(record), TEXTS[text as usize]);
                    records.insert(name(record));
                }
                Edit::Remove { record } => {
                    if records.len() > 1 && records.remove(&name(record)) {
                        project.remove(&name(record));
                    }
                }
                Edit::Width { width_n } => parameters.width_n = width_n,
                Edit::Remark { remark } => parameters.remark = remark,
                Edit::Offset { offset } => parameters.offset = offset,
                Edit::Seed { seed } => parameters.seed = seed,
                Edit::Code { stage, code } => {
                    project.codes.insert(["read_text", "tidy", "label"][stage as usize].to_owned(), format!("c{code}"));
                }
                Edit::Flip { output } | Edit::Delete { output } if !digests.is_empty() => {
                    let digest = digests[output as usize % digests.len()];
                    if !project.blob_path(&digest).exists() {
                    } else if matches!(edit, Edit::Flip { .. }) {
                        project.flip(&digest);
                    } else {
                        fs::remove_file(project.blob_path(&digest)).unwrap();
                    }
                }
                Edit::Flip { .. } | Edit::Delete { .. } => {}
                Edit::Force { node: u8::MAX } => {
                    project.yaml = parameters.yaml();
                    let ran = project.run_with(&options);
                    prop_assert_eq!(ran.status, RunStatus::Finished, "{:?}", ran.failures());
                    let fresh = project.run_fresh(1);
                    prop_assert_eq!(&ran.digests, &fresh.digests);
                    prop_assert_eq!(ran.metrics(), fresh.metrics());
                    options.force.clear();
                    let again = project.run_with(&options);
                    prop_assert_eq!(again.bodies.as_str(), "");
                    digests = ran.digests.values().copied().collect();
                }
                Edit::Force { node } => options.force = vec![NODES[node as usize % NODES.len()]],
            }
        }
        Ok(())
    });
}

#[test]
fn an_exclusive_stage_runs_alone() {
    let mut project = Project::new();
    for record in 0..6 {
        project.write(&format!("r{record}"), &format!("text number {record}"));
    }
    // Four of them, each ready at another time, beside stages that run once per record.
    for idx in 0..4 {
        let node = format!("  score{idx}: {{uses: score, in: {{joined: join.text}}, with: {{offset: {idx}}}}}\n");
        project.yaml.push_str(&node);
    }
    let ran = project.run_with(&Options { jobs: 4, ..Options::default() });
    assert_eq!(ran.status, RunStatus::Finished);
    let mut running = BTreeSet::new();
    let mut exclusive_n = 0;
    for event in &ran.events {
        match event {
            Event::Started { job } => {
                running.insert(job.to_string());
                if running.iter().any(|job| job.starts_with("score")) {
                    assert_eq!(running.len(), 1, "{running:?}");
                    exclusive_n += 1;
                }
            }
            Event::Computed { job, .. } => assert!(running.remove(&job.to_string())),
            _ => {}
        }
    }
    assert_eq!(exclusive_n, 5);
}

// Two engines on one store.

#[test]
fn two_engines_compute_each_key_once() {
    for jobs in [1, 3] {
        let project = Project::new();
        for record in 0..8 {
            project.write(&format!("r{record}"), &format!("text number {record}"));
        }
        let alone = project.run_fresh(1);
        let start = Barrier::new(2);
        let run = || {
            start.wait();
            project.run_with(&Options { jobs, ..Options::default() })
        };
        let (first, second) = std::thread::scope(|scope| {
            let second = scope.spawn(run);
            (run(), second.join().unwrap())
        });
        let mut bodies: Vec<&str> = [&first, &second].iter().flat_map(|ran| ran.bodies.split_whitespace()).collect();
        bodies.sort_unstable();
        assert_eq!(bodies.join(" "), alone.bodies, "each body once");
        assert_eq!(first.counts.computed + second.counts.computed, alone.counts.computed);
        for ran in [&first, &second] {
            assert_eq!((ran.status, &ran.digests), (RunStatus::Finished, &alone.digests));
            assert_eq!(ran.counts.total(), alone.counts.total());
        }
    }
}

// What a hit brings back.

#[test]
fn warnings_and_metrics_of_a_hit_are_said_again() {
    let project = Project::new();
    let first = project.run();
    let length_n = "a: alph beta\nb: gamm delt\nc: epsi zeta".len() + 3 * ("alph beta".len() + 17);
    assert_eq!(first.warnings(), [format!("score: the text has only {length_n} characters")]);
    assert_eq!(first.metrics(), [format!("length@0={length_n}"), format!("live/length@1={length_n}")], "each once");
    let second = project.run();
    assert_eq!(second.bodies, "");
    assert_eq!((second.warnings(), second.metrics()), (first.warnings(), first.metrics()));
}

#[test]
fn every_job_is_told_of_once() {
    let project = Project::new();
    for ran in [project.run(), project.run()] {
        let mut jobs = BTreeMap::<String, usize>::new();
        for event in &ran.events {
            if let Event::Hit { job, .. }
            | Event::Computed { job, .. }
            | Event::Failed { job, .. }
            | Event::Skipped { job } = event
            {
                *jobs.entry(job.to_string()).or_default() += 1;
            }
        }
        assert_eq!(jobs.len(), 14);
        assert!(jobs.values().all(|&told_n| told_n == 1), "{jobs:?}");
    }
}

// Published files.

struct Published {
    project: Project,
    store: Store,
    ran: project::Ran,
}

impl Published {
    fn new() -> Self {
        let mut project = Project::new();
        project.yaml.push_str("  export: {uses: export, in: {text: join.text}}\n");
        let ran = project.run();
        let store = Store::open(&project.store_folder()).unwrap();
        Self { project, store, ran }
    }

    fn publication<'a>(&'a self, job: &str, port: &str, kind: KindSpec, target: &'a str) -> Publication<'a> {
        let job = self.ran.report.jobs.iter().find(|report| report.name.to_string() == job).unwrap();
        let output = job.outputs.get(port).unwrap();
        let provenance = Provenance {
            format: Provenance::FORMAT,
            pipeline: "texts".to_owned(),
            seed: 7,
            output: format!("{}.{port}", job.name),
            key: job.key.to_hex(),
            digest: output.digest.to_hex(),
            git_commit: None,
            git_dirty: false,
            ecgpipe: "0.0.0".to_owned(),
            stages: BTreeMap::new(),
            sources: BTreeMap::new(),
        };
        Publication { target, folder: target.ends_with('/'), kind, output, provenance }
    }

    fn publish(&self, publications: &[Publication<'_>]) -> Vec<(String, bool)> {
        let files = publish(self.project.folder(), &self.store, publications).unwrap();
        files.into_iter().map(|PublishedFile { path, written, .. }| (path, written)).collect()
    }
}

#[test]
fn a_published_file_is_written_once_and_restored_when_it_was_changed() {
    let published = Published::new();
    let publication = || [published.publication("join", "text", KindSpec::of::<Text>(), "out/joined.txt")];
    let path = published.project.folder().join("out/joined.txt");
    let expected = "a: alph beta\nb: gamm delt\nc: epsi zeta";
    let target = "out/joined.txt".to_owned();

    assert_eq!(published.publish(&publication()), [(target.clone(), true)]);
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(published.publish(&publication()), [(target.clone(), false)]);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "left alone");

    fs::remove_file(&path).unwrap();
    assert_eq!(published.publish(&publication()), [(target.clone(), true)]);
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);

    fs::write(&path, expected.replace("beta", "BETA")).unwrap();
    assert_eq!(published.publish(&publication()), [(target.clone(), true)]);
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);

    // Only its time is new: compared, not written.
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(SystemTime::now() + Duration::from_secs(60))
        .unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(published.publish(&publication()), [(target, false)]);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);

    let entries: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(entries.len(), 1, "no temporary file is left: {entries:?}");
}

#[test]
fn provenance_is_stamped_into_a_published_onnx_file() {
    let published = Published::new();
    let publication = published.publication("export", "onnx", KindSpec::of::<Onnx>(), "models/model.onnx");
    let (provenance, digest) = (publication.provenance.clone(), publication.output.digest);
    published.publish(&[publication]);
    let bytes = fs::read(published.project.folder().join("models/model.onnx")).unwrap();
    assert_eq!(Onnx::provenance(&bytes).unwrap(), Some(provenance.clone()));
    let artifact = fs::read(published.project.blob_path(&digest)).unwrap();
    assert!(
        bytes.starts_with(&artifact) && Onnx::provenance(&artifact).unwrap().is_none(),
        "the artifact itself is unstamped"
    );

    // Another provenance of the same artifact is another file.
    let mut publication = published.publication("export", "onnx", KindSpec::of::<Onnx>(), "models/model.onnx");
    publication.provenance.git_commit = Some("0123456".to_owned());
    assert_eq!(published.publish(&[publication]), [("models/model.onnx".to_owned(), true)]);
}

#[test]
fn per_record_artifacts_share_a_folder_and_two_artifacts_never_a_file() {
    let published = Published::new();
    let kind = KindSpec::of::<Text>();
    let records = ["tidy[a]", "tidy[b]", "tidy[c]"];
    let publications = records.map(|job| published.publication(job, "text", kind, "out/"));
    let files = published.publish(&publications);
    let distinct: BTreeSet<&String> = files.iter().map(|(path, _)| path).collect();
    assert_eq!(distinct.len(), 3, "{files:?}");
    for ((path, _), text) in files.iter().zip(["alph beta", "gamm delt", "epsi zeta"]) {
        assert_eq!(fs::read_to_string(published.project.folder().join(path)).unwrap(), text);
    }
    let publications = ["tidy[a]", "tidy[b]"].map(|job| published.publication(job, "text", kind, "out/one.txt"));
    let error = publish(published.project.folder(), &published.store, &publications).unwrap_err();
    assert!(matches!(&error, PublishError::Clash { path, .. } if path == "out/one.txt"), "{error}");
}

#[test]
fn a_damaged_artifact_is_not_published() {
    let published = Published::new();
    let publication = published.publication("score", "text", KindSpec::of::<Text>(), "score.txt");
    published.project.flip(&publication.output.digest);
    let error = publish(published.project.folder(), &published.store, &[publication]).unwrap_err();
    assert!(matches!(&error, PublishError::Read { target, .. } if target == "score.txt"), "{error}");
    assert!(!published.project.folder().join("score.txt").exists());
    assert_eq!(published.project.run().bodies, "score", "the next run computes it anew");
}

#[test]
fn a_bundle_needs_a_folder() {
    let published = Published::new();
    let file = |name: &str| NamedFile { name: name.to_owned(), bytes: b"x".to_vec() };
    let bytes = ecgpipe_sdk::Kind::encode(&Files { files: vec![file("a.svg"), file("b.png")] }).unwrap();
    let digest = Digest::of(&bytes);
    let path = published.project.blob_path(&digest);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, &bytes).unwrap();
    let mut publication = published.publication("join", "text", KindSpec::of::<Files>(), "plots/");
    let output = ecgpipe::store::OutputRef { kind: "files".to_owned(), digest, size: bytes.len() as u64, rows: None };
    publication.output = &output;
    let files = published.publish(&[publication]);
    assert_eq!(files, [("plots/a.svg".to_owned(), true), ("plots/b.png".to_owned(), true)]);
    let mut publication = published.publication("join", "text", KindSpec::of::<Files>(), "plot.svg");
    publication.output = &output;
    let error = publish(published.project.folder(), &published.store, &[publication]).unwrap_err();
    assert!(error.to_string().contains("end the target with `/`"), "{error}");
}
