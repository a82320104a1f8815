//! The form of pipeline files through data: YAML in, a rendered report or the pipeline out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use expect_test::{Expect, expect};

use super::*;

/// Loads the first of some files that exist in memory only.
fn load_files(files: &[(&str, &str)], sets: &[&str]) -> Result<Pipeline, Report> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load_with(Path::new(files[0].0), &sets, &|path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    })
}

#[track_caller]
fn check(files: &[(&str, &str)], sets: &[&str], expected: Expect) {
    let shown = match load_files(files, sets) {
        Ok(pipeline) => pipeline.problems().map_or_else(|| shown(&pipeline), |report| report.plain()),
        Err(report) => report.plain(),
    };
    expected.assert_eq(&shown);
}

fn shown(pipeline: &Pipeline) -> String {
    let mut lines = vec![format!("{} seed={} {:?}", pipeline.name, pipeline.seed, pipeline.tracking)];
    for (name, stage) in &pipeline.stages {
        let inputs: Vec<String> = stage
            .inputs
            .iter()
            .map(|(port, output)| format!("{}={}", port.text, output.as_ref().map_or("?", |output| &output.text)))
            .collect();
        let with = stage.with.as_ref().map(|with| with.value.json().to_string()).unwrap_or_default();
        lines.push(format!("{name}: {} {inputs:?} {with}", stage.uses.text));
    }
    for entry in &pipeline.publish {
        let outputs: Vec<&str> = entry.outputs.iter().map(|output| output.text.as_str()).collect();
        lines.push(format!("{}{} <- {outputs:?}", entry.target, if entry.folder { "/" } else { "" }));
    }
    lines.join("\n") + "\n"
}

#[test]
fn a_pipeline_reads() {
    check(
        &[(
            "pipelines/full.yaml",
            "# comment\nseed: 2025\ntracking: {experiment: mitbih, uri: 'http://x:5000'}\nstages:\n  ingest: {uses: ingest_wfdb, with: {database: mitdb}}\n  peaks:\n    uses: detect_peaks\n    in: {signals: ingest.signals}\n    with:\npublish: {./models//a.onnx: ingest.x, plots/: [peaks.a, peaks.b]}\n",
        )],
        &[],
        expect![[r#"
            full seed=2025 Tracking { experiment: Some("mitbih"), uri: Some("http://x:5000"), registered_model: None }
            ingest: ingest_wfdb [] {"database":"mitdb"}
            peaks: detect_peaks ["signals=ingest.signals"] 
            models/a.onnx <- ["ingest.x"]
            plots/ <- ["peaks.a", "peaks.b"]
        "#]],
    );
}

#[test]
fn all_errors_are_reported_at_once() {
    check(
        &[(
            "p.yaml",
            "nam: x
seed: -1
seed: 4
tracking: {experimnt: a, uri: [b]}
stages:
  a.b: {uses: x}
  seed: {uses: x}
  c: detect_peaks
  d: {use: x, in: [e], with: 5, 7: 8}
  e: {uses: x, in: {a: , b: {c: d}}}
publish:
  /tmp/x: a.b
  ../x: a.b
  x/../../y: a.b
  ~/x: a.b
  ./: a.b
  C:\\x: a.b
  list.txt: [a.b]
  ok/: 
  fine/: [a.b, [c]]
",
        )],
        &[],
        expect![[r#"
            error: a pipeline file has no key `nam`
             --> p.yaml:1:1
              |
            1 | nam: x
              | ^^^
              |
              = help: did you mean `name`?

            error: `seed` wants a whole number from 0 to 2^64 - 1, but is the number `-1`
             --> p.yaml:2:7
              |
            2 | seed: -1
              |       ^^
              |
              = help: for example `seed: 2025`

            error: the key `seed` is given twice
             --> p.yaml:3:1
              |
            2 | seed: -1
              | ---- first here
            3 | seed: 4
              | ^^^^
              |
              = help: keep one of them

            error: `tracking` has no key `experimnt`
             --> p.yaml:4:12
              |
            4 | tracking: {experimnt: a, uri: [b]}
              |            ^^^^^^^^^
              |
              = help: did you mean `experiment`?

            error: `tracking.uri` wants text, but is a list
             --> p.yaml:4:31
              |
            4 | tracking: {experimnt: a, uri: [b]}
              |                               ^
              |
              = help: write a word, or a text in quotes

            error: `a.b` cannot be the name of a stage
             --> p.yaml:6:3
              |
            6 |   a.b: {uses: x}
              |   ^^^
              |
              = help: a name has letters, digits, `_` and `-` only, and does not begin with `-`

            error: `seed` cannot be the name of a stage: it is a key of the pipeline, which `--set` means
             --> p.yaml:7:3
              |
            7 |   seed: {uses: x}
              |   ^^^^
              |
              = help: choose another name

            error: stage `c` wants a mapping, but is the text `detect_peaks`
             --> p.yaml:8:6
              |
            8 |   c: detect_peaks
              |      ^^^^^^^^^^^^
              |
              = help: for example `{uses: detect_peaks, in: {signals: ingest.signals}}`

            error: stage `d` does not say which stage it uses
             --> p.yaml:9:3
              |
            9 |   d: {use: x, in: [e], with: 5, 7: 8}
              |   ^
              |
              = help: add `uses: <stage>`; `ecgpipe stages` lists them

            error: stage `d` has no key `use`
             --> p.yaml:9:7
              |
            9 |   d: {use: x, in: [e], with: 5, 7: 8}
              |       ^^^
              |
              = help: did you mean `uses`?

            error: stage `d`: `in` wants a mapping, but is a list
             --> p.yaml:9:19
              |
            9 |   d: {use: x, in: [e], with: 5, 7: 8}
              |                   ^
              |
              = help: for example `in: {signals: ingest.signals}`

            error: stage `d`: `with` wants a mapping, but is the number `5`
             --> p.yaml:9:30
              |
            9 |   d: {use: x, in: [e], with: 5, 7: 8}
              |                              ^
              |
              = help: for example `with: {length_n: 187}`

            error: stage `d` has no key `7`
             --> p.yaml:9:33
              |
            9 |   d: {use: x, in: [e], with: 5, 7: 8}
              |                                 ^
              |
              = help: parameters go under `with:`; the keys of a stage are `uses`, `in` and `with`

            error: stage `e`: input `a` wants an output, written `node.port`, but is nothing
              --> p.yaml:10:21
               |
            10 |   e: {uses: x, in: {a: , b: {c: d}}}
               |                     ^
               |
               = help: for example `ingest.signals`

            error: stage `e`: input `b` wants an output, written `node.port`, but is a mapping
              --> p.yaml:10:29
               |
            10 |   e: {uses: x, in: {a: , b: {c: d}}}
               |                             ^
               |
               = help: for example `ingest.signals`

            error: the target `/tmp/x` is not a path inside the project, written with `/`
              --> p.yaml:12:3
               |
            12 |   /tmp/x: a.b
               |   ^^^^^^
               |
               = help: a target is a path inside the project: a file as `models/ecg_model.onnx`, or a folder as `plots/`

            error: the target `../x` leads out of the project folder
              --> p.yaml:13:3
               |
            13 |   ../x: a.b
               |   ^^^^
               |
               = help: a target is a path inside the project: a file as `models/ecg_model.onnx`, or a folder as `plots/`

            error: the target `x/../../y` leads out of the project folder
              --> p.yaml:14:3
               |
            14 |   x/../../y: a.b
               |   ^^^^^^^^^
               |
               = help: a target is a path inside the project: a file as `models/ecg_model.onnx`, or a folder as `plots/`

            error: the target `~/x` is not a path inside the project, written with `/`
              --> p.yaml:15:3
               |
            15 |   ~/x: a.b
               |   ^^^
               |
               = help: a target is a path inside the project: a file as `models/ecg_model.onnx`, or a folder as `plots/`

            error: the target `./` is the project folder itself
              --> p.yaml:16:3
               |
            16 |   ./: a.b
               |   ^^
               |
               = help: a target is a path inside the project: a file as `models/ecg_model.onnx`, or a folder as `plots/`

            error: the target `C:\x` is not a path inside the project, written with `/`
              --> p.yaml:17:3
               |
            17 |   C:\x: a.b
               |   ^^^^
               |
               = help: a target is a path inside the project: a file as `models/ecg_model.onnx`, or a folder as `plots/`

            error: the target `list.txt` is one file, but a list is published to it
              --> p.yaml:18:3
               |
            18 |   list.txt: [a.b]
               |   ^^^^^^^^
               |
               = help: a target is a path inside the project: a file as `models/ecg_model.onnx`, or a folder as `plots/`

            error: publish `ok/` wants an output, written `node.port`, but is nothing
              --> p.yaml:19:3
               |
            19 |   ok/: 
               |   ^^^
               |
               = help: for example `ingest.signals`

            error: publish `fine/` wants an output, written `node.port`, but is a list
              --> p.yaml:20:16
               |
            20 |   fine/: [a.b, [c]]
               |                ^
               |
               = help: for example `ingest.signals`
        "#]],
    );
}

#[test]
fn files_that_are_no_pipelines() {
    check(
        &[("a.yaml", "")],
        &[],
        expect![[r#"
        error: the pipeline file `a.yaml` is empty
         |
         = help: a pipeline has at least `stages: {<node>: {uses: <stage>}}`
    "#]],
    );
    check(
        &[("a.yaml", "- a\n")],
        &[],
        expect![[r#"
        error: a pipeline file wants a mapping, but is a list
         --> a.yaml:1:1
          |
        1 | - a
          | ^
          |
          = help: for example `stages: {peaks: {uses: detect_peaks}}`
    "#]],
    );
    check(
        &[("a.yaml", "stages:\n\ta: {uses: x}\n")],
        &[],
        expect![[r#"
        error: not YAML: tabs disallowed within this context (block indentation)
         --> a.yaml:2:2
          |
        2 |     a: {uses: x}
          |     ^
          |
          = help: indent line 2 with spaces: YAML does not take tabs there
    "#]],
    );
    check(
        &[("a.yaml", "stages: {a: {uses: x}\nseed: 1\n")],
        &[],
        expect![[r#"
        error: not YAML: invalid indentation in flow construct
         --> a.yaml:2:1
          |
        2 | seed: 1
          | ^
          |
          = help: check indentation, quotes, `: ` after keys and closing brackets above this place
    "#]],
    );
    check(
        &[("a.yaml", "stages:\n  a: {uses: x}\n b: 1\n")],
        &[],
        expect![[r#"
        error: not YAML: while parsing a block mapping, did not find expected key
         --> a.yaml:3:2
          |
        3 |  b: 1
          |  ^
          |
          = help: check indentation, quotes, `: ` after keys and closing brackets above this place
    "#]],
    );
    check(
        &[("a.yaml", "seed: 1\n")],
        &[],
        expect![[r#"
        error: the pipeline has no `stages`
         --> a.yaml:1:1
          |
        1 | seed: 1
          | ^
          |
          = help: for example `stages: {peaks: {uses: detect_peaks}}`
    "#]],
    );
    check(
        &[("a.yaml", "stages:\n")],
        &[],
        expect![[r#"
        error: `stages` wants a mapping, but is nothing
         --> a.yaml:1:1
          |
        1 | stages:
          | ^^^^^^
          |
          = help: for example `stages: {peaks: {uses: detect_peaks}}`
    "#]],
    );
}

const BASE: &str = "
name: base
seed: 1
stages:
  ingest: {uses: ingest_wfdb, with: {database: mitdb, records: [100, 101]}}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals, annotations: ingest.annotations}, with: {band: {low_hz: 5, high_hz: 15}}}
  train: {uses: train_cnn, in: {windows: w.w}, with: {epoch_n: 30}}
publish: {a.txt: peaks.x, b/: [train.y]}
";

#[test]
fn an_extending_file_wins() {
    check(
        &[
            (
                "pipelines/small.yaml",
                "
extends: ../shared/./base.yaml
name: small
stages:
  ingest: {with: {records: [200]}}
  peaks: {in: {annotations: null}, with: {band: {low_hz: 4}}}
  train: {uses: train_baseline}
  more: {uses: plot}
publish: {a.txt: null}
",
            ),
            ("shared/base.yaml", "extends: root.yaml\nseed: 2\n"),
            ("shared/root.yaml", BASE),
        ],
        &["peaks.band.high_hz=17.5", "seed=9", "tracking.experiment=try", "ingest.records=[300, 0301]"],
        expect![[r#"
            small seed=9 Tracking { experiment: Some("try"), uri: None, registered_model: None }
            ingest: ingest_wfdb [] {"database":"mitdb","records":[300,301]}
            more: plot [] 
            peaks: detect_peaks ["signals=ingest.signals"] {"band":{"high_hz":17.5,"low_hz":4}}
            train: train_baseline ["windows=w.w"] 
            b/ <- ["train.y"]
        "#]],
    );
}

#[test]
fn extending_in_a_loop_or_nothing() {
    check(
        &[("a.yaml", "extends: x/b.yaml\n"), ("x/b.yaml", "extends: ../a.yaml\n")],
        &[],
        expect![[r#"
        error: pipelines extend each other in a loop: `a.yaml` -> `x/b.yaml` -> `a.yaml`
         --> x/b.yaml:1:10
          |
        1 | extends: ../a.yaml
          |          ^^^^^^^^^
          |
          = help: take one `extends` out
    "#]],
    );
    check(
        &[("p/a.yaml", "stages: {a: {uses: x}}\nextends: b.yaml\n")],
        &[],
        expect![[r#"
            error: cannot read the pipeline file `p/b.yaml`: no such file
             --> p/a.yaml:2:10
              |
            2 | extends: b.yaml
              |          ^^^^^^
              |
              = help: `extends` is relative to the file that says it
        "#]],
    );
    check(
        &[("a.yaml", "extends: [b.yaml]\nstages: {}\n")],
        &[],
        expect![[r#"
            error: `extends` wants the path of one file, but is a list
             --> a.yaml:1:10
              |
            1 | extends: [b.yaml]
              |          ^
              |
              = help: extend one file, which may extend another in turn
        "#]],
    );
    check(
        &[("a.yaml", "extends: b.yaml\n"), ("b.yaml", "stages: {a: {usse: x}}\n")],
        &[],
        expect![[r#"
        error: stage `a` does not say which stage it uses
         --> b.yaml:1:10
          |
        1 | stages: {a: {usse: x}}
          |          ^
          |
          = help: add `uses: <stage>`; `ecgpipe stages` lists them

        error: stage `a` has no key `usse`
         --> b.yaml:1:14
          |
        1 | stages: {a: {usse: x}}
          |              ^^^^
          |
          = help: did you mean `uses`?
    "#]],
    );
    let missing = load_with(Path::new("no.yaml"), &[], &|_| Err(io::ErrorKind::NotFound.into()));
    expect![[r#"
        error: cannot read the pipeline file `no.yaml`: entity not found
         |
         = help: check the path; pipelines are usually in `pipelines/`
    "#]]
    .assert_eq(&missing.unwrap_err().plain());
}

#[test]
fn sets_that_make_no_sense() {
    check(
        &[("base.yaml", BASE)],
        &[
            "peeks.band=1",
            "sede=1",
            "stages.ingest=1",
            "peaks",
            "peaks=1",
            "peaks..x=1",
            "peaks.x=",
            "peaks.x=[1, 2",
            "seed=soon",
            "tracking.experimnt=a",
            "peaks.größe=!x 5",
        ],
        expect![[r#"
            error: `--set peeks.band`: the pipeline has no stage `peeks`
             --> command line:1:7
              |
            1 | --set peeks.band=1
              |       ^^^^^
              |
              = help: did you mean `peaks`?

            error: `--set sede`: the pipeline has no stage `sede`
             --> command line:2:7
              |
            2 | --set sede=1
              |       ^^^^
              |
              = help: did you mean `seed`?

            error: `stages.ingest` cannot be set
             --> command line:3:7
              |
            3 | --set stages.ingest=1
              |       ^^^^^^^^^^^^^
              |
              = help: parameters can (`node.parameter=value`), and `seed`, `name`, `tracking.experiment`, `tracking.uri` and `tracking.registered_model`

            error: `--set peaks` has no `=`
             --> command line:4:7
              |
            4 | --set peaks
              |       ^^^^^
              |
              = help: write `--set node.parameter=value`

            error: `--set peaks` names no parameter
             --> command line:5:7
              |
            5 | --set peaks=1
              |       ^^^^^
              |
              = help: write `--set node.parameter=value`

            error: `peaks..x` is not a path
             --> command line:6:7
              |
            6 | --set peaks..x=1
              |       ^^^^^^^^
              |
              = help: write `--set node.parameter=value`

            error: `--set peaks.x=` gives no value
             --> command line:7:7
              |
            7 | --set peaks.x=
              |       ^^^^^^^^
              |
              = help: write `''` for an empty text, `null` for no value

            error: not YAML: while parsing a flow sequence, expected ',' or ']'
             --> command line:8:15
              |
            8 | --set peaks.x=[1, 2
              |               ^
              |
              = help: close every bracket; put text with special characters in quotes

            error: `seed` wants a whole number from 0 to 2^64 - 1, but is the text `soon`
             --> command line:9:12
              |
            9 | --set seed=soon
              |            ^^^^
              |
              = help: for example `seed: 2025`

            error: `tracking` has no key `experimnt`
              --> command line:10:16
               |
            10 | --set tracking.experimnt=a
               |                ^^^^^^^^^
               |
               = help: did you mean `experiment`?

            error: the tag `!x` has no meaning in a pipeline
              --> command line:11:19
               |
            11 | --set peaks.größe=!x 5
               |                   ^^^^
               |
               = help: remove it; quotes make a value text
        "#]],
    );
}

#[test]
fn a_set_is_read_as_if_it_stood_in_the_file() {
    check(
        &[("base.yaml", BASE)],
        &[
            "peaks.band={low_hz: 1}",
            "peaks.band.steep.order_n=4",
            "ingest.records=['0100', 101, \"a,b\"]",
            "ingest.database='it''s # here'",
            "train.note=a=b, c",
            "train.rate=null",
            "train.epoch_n=5",
            "train.epoch_n=6",
            "name=other",
        ],
        expect![[r#"
            other seed=1 Tracking { experiment: None, uri: None, registered_model: None }
            ingest: ingest_wfdb [] {"database":"it's # here","records":["0100",101,"a,b"]}
            peaks: detect_peaks ["annotations=ingest.annotations", "signals=ingest.signals"] {"band":{"low_hz":1,"steep":{"order_n":4}}}
            train: train_cnn ["windows=w.w"] {"epoch_n":6,"note":"a=b, c","rate":null}
            a.txt <- ["peaks.x"]
            b/ <- ["train.y"]
        "#]],
    );
}

#[test]
fn a_value_that_yaml_would_cut_short_is_refused() {
    check(
        &[("base.yaml", BASE)],
        &[
            "ingest.database=#5",
            "train.note= run #3 ",
            "train.other='run #3'  # kept",
            "train.title=a: b: c",
            "train.x=@y",
        ],
        expect![[r#"
            error: `#` begins a comment: of `#5` nothing would be read
             --> command line:1:23
              |
            1 | --set ingest.database=#5
              |                       ^^
              |
              = help: put it in quotes: `'#5'`

            error: `#` begins a comment: of `run #3` only `run` would be read
             --> command line:2:19
              |
            2 | --set train.note= run #3 
              |                   ^^^^^^
              |
              = help: put it in quotes: `'run #3'`

            error: not YAML: mapping values are not allowed in this context
             --> command line:4:23
              |
            4 | --set train.title=a: b: c
              |                       ^
              |
              = help: close every bracket; put text with special characters in quotes

            error: not YAML: unexpected character: `@'
             --> command line:5:15
              |
            5 | --set train.x=@y
              |               ^
              |
              = help: close every bracket; put text with special characters in quotes
        "#]],
    );
}

#[test]
fn a_chain_of_files_is_followed_from_folder_to_folder() {
    let files = [
        ("p/q/top.yaml", "extends: ../mid.yaml\nseed: 3\nstages: {a: {with: {y: null}}, b: null, c: {uses: w}}\n"),
        (
            "p/mid.yaml",
            "extends: ./r/base.yaml\nseed: 2\nstages: {a: {with: {x: [3], z: {k: 1}}}, c: {in: {i: null}}}\n",
        ),
        (
            "p/r/base.yaml",
            "stages: {a: {uses: u, with: {x: [1, 2], y: 5, z: {l: 2}}}, b: {uses: v}, c: {uses: v, in: {i: a.o, j: a.o}, with: {q: 1}}}\n",
        ),
    ];
    check(
        &files,
        &[],
        expect![[r#"
        top seed=3 Tracking { experiment: None, uri: None, registered_model: None }
        a: u [] {"x":[3],"y":null,"z":{"k":1,"l":2}}
        c: w ["j=a.o"] 
    "#]],
    );
    check(
        &[("p/a.yaml", "extends: a.yaml\n")],
        &[],
        expect![[r#"
            error: pipelines extend each other in a loop: `p/a.yaml` -> `p/a.yaml`
             --> p/a.yaml:1:10
              |
            1 | extends: a.yaml
              |          ^^^^^^
              |
              = help: take one `extends` out
        "#]],
    );
    check(
        &[
            ("p/a.yaml", "extends: b.yaml\n"),
            ("p/b.yaml", "extends: ../c.yaml\n"),
            ("c.yaml", "extends: ./p/../p/b.yaml\n"),
        ],
        &[],
        expect![[r#"
            error: pipelines extend each other in a loop: `p/b.yaml` -> `c.yaml` -> `p/b.yaml`
             --> c.yaml:1:10
              |
            1 | extends: ./p/../p/b.yaml
              |          ^^^^^^^^^^^^^^^
              |
              = help: take one `extends` out
        "#]],
    );
}
