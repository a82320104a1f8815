//! Sweeps over small stages whose bodies count themselves: what the points share, what is wrong with them, and that each is
//! the run that it would be alone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "engine/project.rs"]
#[expect(dead_code, reason = "the tests of the engine use the rest")]
mod project;
#[path = "engine/stages.rs"]
#[expect(dead_code, reason = "the tests of the engine use the rest")]
mod stages;

use std::path::Path;

use ecgpipe::{
    diagnostic::Report,
    pipeline,
    plan::plan,
    sweep::{Options as Swept, Planned, Sweep, Tally, sweep, values},
};
use expect_test::{Expect, expect};
use project::{ALL_BODIES, Options, Project};

fn points(project: &Project, sets: &[&str], seeds: Option<&str>) -> Result<Sweep, Report> {
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    let options = Swept { sets, seeds: seeds.map(str::to_owned), zip: false };
    let registry = stages::registry(&project.codes);
    sweep(Path::new("pipeline.yaml"), &options, &registry, &|_| Ok(project.yaml.clone()))
}

/// Runs all points one after the other; gives the bodies of each.
fn bodies(project: &Project, sweep: &Sweep) -> Vec<String> {
    let run = |point: &Planned| project.run_plan(&point.plan, &Options::default(), &project.store_folder()).unwrap();
    sweep.points.iter().map(|point| run(point).bodies).collect()
}

/// All distinct jobs and those to compute; by point, those that it is the first to compute.
fn dry(project: &Project, sweep: &Sweep) -> ((usize, usize), Vec<usize>) {
    let options = Options { dry_run: true, ..Options::default() };
    let mut tally = Tally::default();
    let own = |point: &Planned| {
        let ran = project.run_plan(&point.plan, &options, &project.store_folder()).unwrap();
        assert_eq!(ran.bodies, "");
        tally.add(point, &ran.events).1
    };
    let own = sweep.points.iter().map(own).collect();
    (tally.sums(), own)
}

#[test]
fn points_share_the_work_before_what_is_swept() {
    let project = Project::new();
    let sweep = points(&project, &["score.offset=1,2,3", "join.remark=x"], None).unwrap();
    assert_eq!(dry(&project, &sweep), ((16, 16), vec![14, 1, 1]), "of 3 x 14 jobs");
    assert_eq!(bodies(&project, &sweep), [ALL_BODIES, "score", "score"]);
    assert_eq!(dry(&project, &sweep), ((16, 0), vec![0, 0, 0]));
    assert_eq!(bodies(&project, &sweep), ["", "", ""], "a second sweep finds everything");
}

#[test]
fn what_is_swept_early_is_computed_for_every_point_as_far_as_its_bytes_differ() {
    let project = Project::new();
    let sweep = points(&project, &["tidy.width_n=2,3,3000", "score.offset=0,1"], None).unwrap();
    assert_eq!(sweep.points.len(), 6);
    let late = ALL_BODIES.replace("read_text[a] read_text[b] read_text[c] ", "");
    assert_eq!(dry(&project, &sweep), ((3 + 3 * 10 + 6, 39), vec![14, 1, 11, 1, 11, 1]));
    assert_eq!(bodies(&project, &sweep), [ALL_BODIES, "score", &late, "score", &late, "score"]);
}

#[test]
fn seeds_reach_only_the_stages_that_draw() {
    let project = Project::new();
    let sweep = points(&project, &[], Some("1..3")).unwrap();
    let drawn = "noise[a] noise[b] noise[c] score";
    assert_eq!(dry(&project, &sweep).1, [14, 4, 4]);
    assert_eq!(bodies(&project, &sweep), [ALL_BODIES, drawn, drawn]);
}

#[test]
fn a_point_is_the_run_that_it_would_be_alone() {
    let project = Project::new();
    let sweep = points(&project, &["tidy.width_n=2,3", "score.offset=5", "seed=1,2"], None).unwrap();
    assert_eq!(values(&sweep.points[2].point.varied), "tidy.width_n=3 seed=1");
    for point in &sweep.points {
        let read = |_: &Path| Ok(project.yaml.clone());
        let alone = pipeline::load_with(Path::new("pipeline.yaml"), &point.point.sets, &read)
            .and_then(|pipeline| plan(&pipeline, &stages::registry(&project.codes)))
            .unwrap();
        assert_eq!(alone.json(), point.plan.json());
        let fresh = tempfile::TempDir::new().unwrap();
        let fresh = project.run_plan(&alone, &Options::default(), fresh.path()).unwrap();
        let swept = project.run_plan(&point.plan, &Options::default(), &project.store_folder()).unwrap();
        assert_eq!(fresh.digests, swept.digests);
    }
}

#[test]
fn points_that_do_the_same_are_run_once() {
    let project = Project::new();
    let sweep = points(&project, &["score.offset=1,+1,0x1,2", "tidy.remark=a"], None).unwrap();
    assert_eq!(sweep.points.len(), 2);
    let note = "`score.offset=+1` does the same as `score.offset=1`, and is not run twice";
    assert_eq!((sweep.notes.len(), sweep.notes[0].as_str()), (2, note));
}

#[track_caller]
fn check(sets: &[&str], expected: Expect) {
    let project = Project::new();
    let report = points(&project, sets, None).map(|sweep| sweep.points.len()).unwrap_err();
    expected.assert_eq(&report.plain());
}

#[test]
fn errors_of_all_points_are_reported_at_once() {
    check(
        &["score.offset=1,two, 3 ,-4", "tidy.widht_n=1,2", " join.remark=größe,[x]", "peaks.x=1,2", "label=1"],
        expect![[r#"
            error: stage `score`: parameter `offset` wants a whole number of at least 0, but is the text `two`
             --> command line:1:22
              |
            1 | --set score.offset=1,two, 3 ,-4
              |                      ^^^
              |
              = note: at point 9 of 32 (score.offset=two tidy.widht_n=1 join.remark=größe peaks.x=1) and 7 more
              = help: the default is `0`

            error: stage `score`: parameter `offset` wants a whole number of at least 0, but is the number `-4`
             --> command line:1:30
              |
            1 | --set score.offset=1,two, 3 ,-4
              |                              ^^
              |
              = note: at point 25 of 32 (score.offset=-4 tidy.widht_n=1 join.remark=größe peaks.x=1) and 7 more
              = help: the default is `0`

            error: stage `tidy`: `tidy` has no parameter `widht_n`
             --> command line:2:12
              |
            2 | --set tidy.widht_n=1,2
              |            ^^^^^^^
              |
              = help: did you mean `width_n`?

            error: stage `join`: parameter `remark` wants text, but is a list
             --> command line:3:26
              |
            3 | --set  join.remark=größe,[x]
              |                          ^
              |
              = note: at point 3 of 32 (score.offset=1 tidy.widht_n=1 join.remark=[x] peaks.x=1) and 15 more
              = help: the default is `""`

            error: `--set peaks.x`: the pipeline has no stage `peaks`
             --> command line:4:7
              |
            4 | --set peaks.x=1,2
              |       ^^^^^
              |
              = help: its stages are `read`, `tidy`, `noise`, `join`, `score` and `label`

            error: `--set label` names no parameter
             --> command line:5:7
              |
            5 | --set label=1
              |       ^^^^^
              |
              = help: write `--set node.parameter=value`
        "#]],
    );
}

#[test]
fn an_error_of_the_file_is_said_once() {
    let mut project = Project::new();
    project.edit("uses: join", "uses: jion");
    let report = points(&project, &["score.offset=1,2,3", "noise.remark=[1],x"], None).map(|_| ()).unwrap_err();
    expect![[r#"
        error: stage `noise`: parameter `remark` wants text, but is a list
         --> command line:2:20
          |
        2 | --set noise.remark=[1],x
          |                    ^
          |
          = note: at point 1 of 6 (score.offset=1 noise.remark=[1]) and 2 more
          = help: the default is `""`

        error: stage `join`: there is no stage `jion` to use
         --> pipeline.yaml:8:16
          |
        8 |   join: {uses: jion, in: {texts: tidy.text}}
          |                ^^^^
          |
          = help: did you mean `join`?
    "#]]
    .assert_eq(&report.plain());
}
