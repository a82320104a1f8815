//! Planning through data: YAML in, a rendered report or a plan out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::{test_stages::registry, *};
use crate::pipeline::load_with;

fn made(yaml: &str, sets: &[&str]) -> Result<Plan, Report> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let pipeline = load_with("p.yaml".as_ref(), &sets, &|_| Ok(yaml.to_owned()))?;
    plan(&pipeline, &registry())
}

#[track_caller]
fn check(yaml: &str, expected: Expect) {
    check_with(yaml, &[], expected);
}

#[track_caller]
fn check_with(yaml: &str, sets: &[&str], expected: Expect) {
    match made(yaml, sets) {
        Ok(plan) => {
            let lines: Vec<String> = plan.nodes().iter().map(|node| line(&plan, node)).collect();
            expected.assert_eq(&(lines.join("\n") + "\n"));
        }
        Err(report) => {
            expected.assert_eq(&report.plain());
            let bare = report.diagnostics().iter().find(|one| one.help.is_none() || one.span.is_none());
            assert_eq!(bare, None, "every error says where it is and what to do");
        }
    }
}

fn line(plan: &Plan, node: &PlanNode) -> String {
    let inputs = node.inputs.iter().map(|(port, edge)| {
        let gather = if edge.gather { " (all)" } else { "" };
        format!("{port}={}.{}{gather}", plan.nodes()[edge.node_idx].name, edge.port)
    });
    let flags = [("source", node.source), ("per_record", node.per_record), ("seeded", node.seeded)];
    let flags = flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| format!("[{name}]"));
    let parts: Vec<String> = [format!("{}: {}", node.name, node.uses)].into_iter().chain(inputs).chain(flags).collect();
    parts.join(" ")
}

const GOOD: &str = "
stages:
  ingest: {uses: ingest, with: {records: [100, 0101, 'x'], leads: first}}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals}}
  windows: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}, with: {length_n: 200}}
  split: {uses: split, in: {beats: peaks.beats}}
  train: {uses: train, in: {windows: windows.windows, split: split.split}}
  curves: {uses: plot, in: {metrics: train.metrics}}
publish: {plots/: [curves.figures, train.metrics], models/net.json: train.model}
";

#[test]
fn a_plan_is_in_topological_order() {
    check(
        GOOD,
        expect![[r#"
        ingest: ingest [source] [per_record]
        peaks: detect_peaks signals=ingest.signals [per_record]
        split: split beats=peaks.beats (all)
        windows: window beats=peaks.beats signals=ingest.signals [per_record]
        train: train split=split.split windows=windows.windows (all) [seeded]
        curves: plot metrics=train.metrics
    "#]],
    );
}

#[test]
fn a_plan_as_json() {
    expect![[r#"
        {
          "format": 1,
          "name": "p",
          "nodes": [
            {
              "code": "c0de01",
              "exclusive": false,
              "inputs": {},
              "name": "ingest",
              "outputs": {
                "signals": {
                  "cardinality": "each",
                  "kind": {
                    "name": "signals",
                    "version": 1
                  }
                }
              },
              "params": {
                "database": "mitdb",
                "leads": "first",
                "limit_n": null,
                "records": [
                  "100",
                  "0101",
                  "x"
                ]
              },
              "per_record": true,
              "seeded": false,
              "source": true,
              "uses": "ingest"
            },
            {
              "code": "c0de02",
              "exclusive": false,
              "inputs": {
                "signals": {
                  "from": "ingest.signals",
                  "gather": false,
                  "kind": {
                    "name": "signals",
                    "version": 1
                  }
                }
              },
              "name": "peaks",
              "outputs": {
                "beats": {
                  "cardinality": "each",
                  "kind": {
                    "name": "beats",
                    "version": 1
                  }
                }
              },
              "params": {
                "band": {
                  "high_hz": 15.0,
                  "low_hz": 5.0
                },
                "search_back": false,
                "threshold": {
                  "method": "adaptive",
                  "rate": 0.125
                }
              },
              "per_record": true,
              "seeded": false,
              "source": false,
              "uses": "detect_peaks"
            },
            {
              "code": "c0de04",
              "exclusive": false,
              "inputs": {
                "beats": {
                  "from": "peaks.beats",
                  "gather": true,
                  "kind": {
                    "name": "beats",
                    "version": 1
                  }
                }
              },
              "name": "split",
              "outputs": {
                "split": {
                  "cardinality": "one",
                  "kind": {
                    "name": "split",
                    "version": 1
                  }
                }
              },
              "params": {},
              "per_record": false,
              "seeded": false,
              "source": false,
              "uses": "split"
            },
            {
              "code": "c0de03",
              "exclusive": false,
              "inputs": {
                "beats": {
                  "from": "peaks.beats",
                  "gather": false,
                  "kind": {
                    "name": "beats",
                    "version": 1
                  }
                },
                "signals": {
                  "from": "ingest.signals",
                  "gather": false,
                  "kind": {
                    "name": "signals",
                    "version": 1
                  }
                }
              },
              "name": "windows",
              "outputs": {
                "windows": {
                  "cardinality": "each",
                  "kind": {
                    "name": "windows",
                    "version": 1
                  }
                }
              },
              "params": {
                "before_n": 90,
                "length_n": 200
              },
              "per_record": true,
              "seeded": false,
              "source": false,
              "uses": "window"
            },
            {
              "code": "c0de05",
              "exclusive": true,
              "inputs": {
                "split": {
                  "from": "split.split",
                  "gather": false,
                  "kind": {
                    "name": "split",
                    "version": 1
                  }
                },
                "windows": {
                  "from": "windows.windows",
                  "gather": true,
                  "kind": {
                    "name": "windows",
                    "version": 1
                  }
                }
              },
              "name": "train",
              "outputs": {
                "metrics": {
                  "cardinality": "one",
                  "kind": {
                    "name": "metrics",
                    "version": 1
                  }
                },
                "model": {
                  "cardinality": "one",
                  "kind": {
                    "name": "model",
                    "version": 1
                  }
                }
              },
              "params": {},
              "per_record": false,
              "seeded": true,
              "source": false,
              "uses": "train"
            },
            {
              "code": "c0de06",
              "exclusive": false,
              "inputs": {
                "metrics": {
                  "from": "train.metrics",
                  "gather": false,
                  "kind": {
                    "name": "metrics",
                    "version": 1
                  }
                }
              },
              "name": "curves",
              "outputs": {
                "figures": {
                  "cardinality": "one",
                  "kind": {
                    "name": "files",
                    "version": 1
                  }
                }
              },
              "params": {},
              "per_record": false,
              "seeded": false,
              "source": false,
              "uses": "plot"
            }
          ],
          "publish": [
            {
              "folder": false,
              "from": "train.model",
              "target": "models/net.json"
            },
            {
              "folder": true,
              "from": "curves.figures",
              "target": "plots"
            },
            {
              "folder": true,
              "from": "train.metrics",
              "target": "plots"
            }
          ],
          "seed": 0,
          "tracking": {
            "experiment": null,
            "registered_model": null,
            "uri": null
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&made(GOOD, &[]).unwrap()).unwrap());
}

#[test]
fn records_keep_their_digits_where_text_is_wanted() {
    let plan = made(GOOD, &["ingest.database=0042"]).unwrap();
    let params = plan.nodes()[0].params.as_json();
    assert_eq!(params["records"], json!(["100", "0101", "x"]));
    assert_eq!(params["database"], json!("0042"));
}

#[test]
fn an_unknown_stage() {
    check(
        "stages: {p: {uses: detect_peak}, q: {uses: report}, r: {uses: smooth, in: {signals: p.x}}}",
        expect![[r#"
        error: stage `p`: there is no stage `detect_peak` to use
         --> p.yaml:1:20
          |
        1 | stages: {p: {uses: detect_peak}, q: {uses: report}, r: {uses: smooth, in: {signals: p.x}}}
          |                    ^^^^^^^^^^^
          |
          = help: did you mean `detect_peaks`?

        error: stage `q`: there is no stage `report` to use
         --> p.yaml:1:44
          |
        1 | stages: {p: {uses: detect_peak}, q: {uses: report}, r: {uses: smooth, in: {signals: p.x}}}
          |                                            ^^^^^^
          |
          = help: stages are `confused`, `detect_peaks`, `ingest`, `plot`, `smooth`, `split`, `train` and `window`
    "#]],
    );
}

#[test]
fn unknown_ports_nodes_and_outputs() {
    check(
        "
stages:
  ingest: {uses: ingest, in: {raw: ingest.signals}}
  a: {uses: smooth, in: {signal: ingest.signals}}
  b: {uses: smooth, in: {signals: ingets.signal}}
  c: {uses: smooth, in: {signals: ingest.signal}}
  d: {uses: smooth, in: {signals: ingest}}
  e: {uses: smooth, in: {signals: nowhere.signals}}
  f: {uses: train, in: {windows: a.signals, split: g.model.x}}
  g: {uses: train}
",
        expect![[r#"
            error: stage `ingest`: `ingest` has no input `raw`
             --> p.yaml:3:31
              |
            3 |   ingest: {uses: ingest, in: {raw: ingest.signals}}
              |                               ^^^
              |
              = help: it takes no inputs

            error: stage `a`: `smooth` has no input `signal`
             --> p.yaml:4:26
              |
            4 |   a: {uses: smooth, in: {signal: ingest.signals}}
              |                          ^^^^^^
              |
              = help: did you mean `signals`?

            error: stage `b`: port `signals`: there is no stage `ingets`
             --> p.yaml:5:35
              |
            5 |   b: {uses: smooth, in: {signals: ingets.signal}}
              |                                   ^^^^^^^^^^^^^
              |
              = help: did you mean `ingest.signals`?

            error: stage `c`: port `signals`: `ingest` (ingest) has no output `signal`
             --> p.yaml:6:35
              |
            6 |   c: {uses: smooth, in: {signals: ingest.signal}}
              |                                   ^^^^^^^^^^^^^
              |
              = help: did you mean `ingest.signals`?

            error: stage `d`: port `signals`: `ingest` is a stage, not an output of one
             --> p.yaml:7:35
              |
            7 |   d: {uses: smooth, in: {signals: ingest}}
              |                                   ^^^^^^
              |
              = help: did you mean `ingest.signals`?

            error: stage `e`: port `signals`: there is no stage `nowhere`
             --> p.yaml:8:35
              |
            8 |   e: {uses: smooth, in: {signals: nowhere.signals}}
              |                                   ^^^^^^^^^^^^^^^
              |
              = help: the stages of this pipeline are `a`, `b`, `c`, `d`, `e`, `f`, `g` and `ingest`

            error: stage `f`: port `windows` wants windows, but `a.signals` gives signals
             --> p.yaml:9:34
              |
            9 |   f: {uses: train, in: {windows: a.signals, split: g.model.x}}
              |                                  ^^^^^^^^^
              |
              = help: no other stage of this pipeline gives the windows artifacts of all records

            error: stage `f`: port `split`: `g` (train) has no output `model.x`
             --> p.yaml:9:52
              |
            9 |   f: {uses: train, in: {windows: a.signals, split: g.model.x}}
              |                                                    ^^^^^^^^^
              |
              = help: did you mean `g.model`?

            error: stage `g`: input `split` is not connected
              --> p.yaml:10:3
               |
            10 |   g: {uses: train}
               |   ^
               |
               = help: no other stage of this pipeline gives a single split artifact

            error: stage `g`: input `windows` is not connected
              --> p.yaml:10:3
               |
            10 |   g: {uses: train}
               |   ^
               |
               = help: no other stage of this pipeline gives the windows artifacts of all records
        "#]],
    );
}

#[test]
fn kinds_that_do_not_fit() {
    check(
        "
stages:
  ingest: {uses: ingest}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals}}
  clean: {uses: smooth, in: {signals: peaks.beats}}
  curves: {uses: plot, in: {metrics: peaks.beats}}
",
        expect![[r#"
            error: stage `clean`: port `signals` wants signals, but `peaks.beats` gives beats
             --> p.yaml:5:39
              |
            5 |   clean: {uses: smooth, in: {signals: peaks.beats}}
              |                                       ^^^^^^^^^^^
              |
              = help: did you mean `ingest.signals`?

            error: stage `curves`: port `metrics` wants metrics, but `peaks.beats` gives beats
             --> p.yaml:6:38
              |
            6 |   curves: {uses: plot, in: {metrics: peaks.beats}}
              |                                      ^^^^^^^^^^^
              |
              = help: no other stage of this pipeline gives a single metrics artifact
        "#]],
    );
}

#[test]
fn cardinalities_that_do_not_fit() {
    // The registry has no pair of stages that differ in cardinality alone for every case, so ports are compared directly.
    use ecgpipe_sdk::{All, Beats, Each, One, Port};
    let each = Each::<Beats>::spec("beats", "");
    let all = All::<Beats>::spec("beats", "");
    let one = One::<Beats>::spec("beats", "");
    let text = |input, output| misfit(input, output).map_or_else(|| "fits".to_owned(), |reason| reason("a.beats"));
    let table = [(&each, &each), (&each, &one), (&all, &each), (&all, &one), (&one, &each), (&one, &one), (&one, &all)];
    let lines: Vec<String> = table.into_iter().map(|(input, output)| text(input, output)).collect();
    expect![[r#"
        fits
        wants one beats artifact for every record, but `a.beats` gives a single beats artifact for all records
        fits
        wants the beats artifacts of all records, but `a.beats` gives a single beats artifact for all records
        wants a single beats artifact, but `a.beats` gives one beats artifact for every record
        fits
        wants a single beats artifact, but `a.beats` gives all beats artifacts at once"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn a_stage_with_mixed_ports_is_refused() {
    check(
        "
stages:
  ingest: {uses: ingest}
  odd: {uses: confused, in: {signals: ingest.signals}}
",
        expect![[r#"
            error: stage `odd`: `confused` mixes ports for one record and for all
             --> p.yaml:4:15
              |
            4 |   odd: {uses: confused, in: {signals: ingest.signals}}
              |               ^^^^^^^^
              |
              = help: this is a defect of the stage: all its outputs must be `Each`, or all `One` without `Each` inputs
        "#]],
    );
}

#[test]
fn loops_are_named_whole() {
    check(
        "
stages:
  a: {uses: smooth, in: {signals: c.signals}}
  b: {uses: smooth, in: {signals: a.signals}}
  c: {uses: smooth, in: {signals: b.signals}}
  me: {uses: smooth, in: {signals: me.signals}}
  after: {uses: smooth, in: {signals: a.signals}}
",
        expect![[r#"
            error: stages need each other in a loop: `a` -> `b` -> `c` -> `a`
             --> p.yaml:4:35
              |
            3 |   a: {uses: smooth, in: {signals: c.signals}}
              |                                   --------- `a` needs `c`
            4 |   b: {uses: smooth, in: {signals: a.signals}}
              |                                   ^^^^^^^^^ `b` needs `a`
            5 |   c: {uses: smooth, in: {signals: b.signals}}
              |                                   --------- `c` needs `b`
              |
              = help: take one of these inputs from a stage outside the loop

            error: stages need each other in a loop: `me` -> `me`
             --> p.yaml:6:36
              |
            6 |   me: {uses: smooth, in: {signals: me.signals}}
              |                                    ^^^^^^^^^^ `me` needs `me`
              |
              = help: take one of these inputs from a stage outside the loop
        "#]],
    );
}

#[test]
fn unknown_parameters_at_any_depth() {
    check_with(
        "
stages:
  ingest: {uses: ingest, with: {databse: mitdb, colour: red}}
  peaks:
    uses: detect_peaks
    in: {signals: ingest.signals}
    with:
      band: {low_hz: 4, hihg_hz: 20}
      threshold: {method: adaptive, rate: 0.5, level_mv: 2}
  split: {uses: split, in: {beats: peaks.beats}, with: {a: 1}}
",
        &["ingest.record=[100]", "peaks.band.lo_hz=1", "peeks.band=1"],
        expect![[r#"
            error: stage `ingest`: `ingest` has no parameter `record`
             --> command line:1:14
              |
            1 | --set ingest.record=[100]
              |              ^^^^^^
              |
              = help: did you mean `records`?

            error: stage `peaks`: `band` of `detect_peaks` has no parameter `lo_hz`
             --> command line:2:18
              |
            2 | --set peaks.band.lo_hz=1
              |                  ^^^^^
              |
              = help: did you mean `low_hz`?

            error: `--set peeks.band`: the pipeline has no stage `peeks`
             --> command line:3:7
              |
            3 | --set peeks.band=1
              |       ^^^^^
              |
              = help: did you mean `peaks`?

            error: stage `ingest`: `ingest` has no parameter `databse`
             --> p.yaml:3:33
              |
            3 |   ingest: {uses: ingest, with: {databse: mitdb, colour: red}}
              |                                 ^^^^^^^
              |
              = help: did you mean `database`?

            error: stage `ingest`: `ingest` has no parameter `colour`
             --> p.yaml:3:49
              |
            3 |   ingest: {uses: ingest, with: {databse: mitdb, colour: red}}
              |                                                 ^^^^^^
              |
              = help: its parameters are `database`, `leads`, `limit_n` and `records`

            error: stage `peaks`: `band` of `detect_peaks` has no parameter `hihg_hz`
             --> p.yaml:8:25
              |
            8 |       band: {low_hz: 4, hihg_hz: 20}
              |                         ^^^^^^^
              |
              = help: did you mean `high_hz`?

            error: stage `peaks`: `threshold` of `detect_peaks` has no parameter `level_mv`
             --> p.yaml:9:48
              |
            9 |       threshold: {method: adaptive, rate: 0.5, level_mv: 2}
              |                                                ^^^^^^^^
              |
              = help: its parameters are `method` and `rate`

            error: stage `split`: `split` has no parameter `a`
              --> p.yaml:10:57
               |
            10 |   split: {uses: split, in: {beats: peaks.beats}, with: {a: 1}}
               |                                                         ^
               |
               = help: it takes none
        "#]],
    );
}

#[test]
fn parameters_of_a_wrong_type_or_out_of_range() {
    check_with(
        "
stages:
  ingest: {uses: ingest, with: {records: 100, leads: frist, limit_n: 5000000000}}
  peaks:
    uses: detect_peaks
    in: {signals: ingest.signals}
    with:
      band: 5
      search_back: yes
      threshold: {method: median}
  windows:
    uses: window
    in: {signals: ingest.signals, beats: peaks.beats}
    with: {length_n: '187', before_n: -3}
",
        &["ingest.database=[a]", "ingest.limit_n=1_000"],
        expect![[r#"
            error: stage `ingest`: parameter `database` wants text, but is a list
             --> command line:1:23
              |
            1 | --set ingest.database=[a]
              |                       ^
              |
              = help: the default is `"mitdb"`

            error: stage `ingest`: parameter `limit_n` wants a whole number of at least 0 or `null`, but is the text `1_000`
             --> command line:2:22
              |
            2 | --set ingest.limit_n=1_000
              |                      ^^^^^
              |
              = help: write `1000`

            error: stage `ingest`: parameter `records` wants a list, but is the number `100`
             --> p.yaml:3:42
              |
            3 |   ingest: {uses: ingest, with: {records: 100, leads: frist, limit_n: 5000000000}}
              |                                          ^^^
              |
              = help: write `[100]` for a list of one

            error: stage `ingest`: parameter `leads` cannot be `frist`
             --> p.yaml:3:54
              |
            3 |   ingest: {uses: ingest, with: {records: 100, leads: frist, limit_n: 5000000000}}
              |                                                      ^^^^^
              |
              = help: did you mean `first`? allowed are `all` and `first`

            error: stage `peaks`: parameter `band` wants a mapping, but is the number `5`
             --> p.yaml:8:13
              |
            8 |       band: 5
              |             ^
              |
              = help: the default is `{"high_hz":15.0,"low_hz":5.0}`

            error: stage `peaks`: parameter `search_back` wants `true` or `false`, but is the text `yes`
             --> p.yaml:9:20
              |
            9 |       search_back: yes
              |                    ^^^
              |
              = help: YAML 1.2 says `true`

            error: stage `peaks`: parameter `threshold.method` cannot be `median`
              --> p.yaml:10:27
               |
            10 |       threshold: {method: median}
               |                           ^^^^^^
               |
               = help: allowed are `fixed` and `adaptive`

            error: stage `windows`: parameter `length_n` wants a whole number of at least 0, but is the text `187`
              --> p.yaml:14:22
               |
            14 |     with: {length_n: '187', before_n: -3}
               |                      ^^^^^
               |
               = help: remove the quotes

            error: stage `windows`: parameter `before_n` wants a whole number of at least 0 and at most 65535, but is the number `-3`
              --> p.yaml:14:39
               |
            14 |     with: {length_n: '187', before_n: -3}
               |                                       ^^
               |
               = help: the default is `90`
        "#]],
    );
}

#[test]
fn what_the_stage_itself_refuses() {
    check_with(
        "
stages:
  ingest: {uses: ingest}
  peaks:
    uses: detect_peaks
    in: {signals: ingest.signals}
    with: {band: {low_hz: 20}}
  peaks2: {uses: detect_peaks, in: {signals: ingest.signals}, with: {band: {high_hz: 1}}}
  windows: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
",
        &["windows.length_n=0"],
        expect![[r#"
            error: stage `windows`: `length_n` must be 1 or more, not 0
             --> command line:1:24
              |
            1 | --set windows.length_n=0
              |                        ^
              |
              = help: the default is `187`

            error: stage `peaks`: `band.low_hz` must be below `band.high_hz`, not 20
             --> p.yaml:7:27
              |
            7 |     with: {band: {low_hz: 20}}
              |                           ^^
              |
              = help: the default is `5.0`

            error: stage `peaks2`: `band.low_hz` must be below `band.high_hz`, not 5
             --> p.yaml:8:76
              |
            8 |   peaks2: {uses: detect_peaks, in: {signals: ingest.signals}, with: {band: {high_hz: 1}}}
              |                                                                            ^
              |
              = help: the default is `5.0`
        "#]],
    );
}

#[test]
fn errors_of_form_do_not_hide_errors_of_meaning() {
    check_with(
        "
sed: 5
stages:
  ingest: {uses: ingest, with: 5}
  lost: detect_peaks
  half: {uses: window, in: {signals: , beats: lost.beats}}
  curves: {uses: plot, in: {metrics: ingest.signals}}
  more: {uses: smooth, in: [ingest.signals]}
publish: {a.txt: more.signal, b.txt: ingest.sig}
",
        &["ingest.database=", "peeks.x=1"],
        expect![[r#"
            error: `--set ingest.database=` gives no value
             --> command line:1:7
              |
            1 | --set ingest.database=
              |       ^^^^^^^^^^^^^^^^
              |
              = help: write `''` for an empty text, `null` for no value

            error: `--set peeks.x`: the pipeline has no stage `peeks`
             --> command line:2:7
              |
            2 | --set peeks.x=1
              |       ^^^^^
              |
              = help: its stages are `ingest`, `lost`, `half`, `curves` and `more`

            error: a pipeline file has no key `sed`
             --> p.yaml:2:1
              |
            2 | sed: 5
              | ^^^
              |
              = help: did you mean `seed`?

            error: stage `ingest`: `with` wants a mapping, but is the number `5`
             --> p.yaml:4:32
              |
            4 |   ingest: {uses: ingest, with: 5}
              |                                ^
              |
              = help: for example `with: {length_n: 187}`

            error: stage `lost` wants a mapping, but is the text `detect_peaks`
             --> p.yaml:5:9
              |
            5 |   lost: detect_peaks
              |         ^^^^^^^^^^^^
              |
              = help: for example `{uses: detect_peaks, in: {signals: ingest.signals}}`

            error: stage `half`: input `signals` wants an output, written `node.port`, but is nothing
             --> p.yaml:6:29
              |
            6 |   half: {uses: window, in: {signals: , beats: lost.beats}}
              |                             ^^^^^^^
              |
              = help: for example `ingest.signals`

            error: stage `curves`: port `metrics` wants metrics, but `ingest.signals` gives signals
             --> p.yaml:7:38
              |
            7 |   curves: {uses: plot, in: {metrics: ingest.signals}}
              |                                      ^^^^^^^^^^^^^^
              |
              = help: no other stage of this pipeline gives a single metrics artifact

            error: stage `more`: `in` wants a mapping, but is a list
             --> p.yaml:8:28
              |
            8 |   more: {uses: smooth, in: [ingest.signals]}
              |                            ^
              |
              = help: for example `in: {signals: ingest.signals}`

            error: publish `b.txt`: `ingest` (ingest) has no output `sig`
             --> p.yaml:9:38
              |
            9 | publish: {a.txt: more.signal, b.txt: ingest.sig}
              |                                      ^^^^^^^^^^
              |
              = help: did you mean `ingest.signals`?
        "#]],
    );
}

#[test]
fn missing_inputs() {
    check(
        "
stages:
  ingest: {uses: ingest}
  peaks: {uses: detect_peaks}
  windows: {uses: window, in: {beats: peaks.beats}}
  curves: {uses: plot, in: {}}
",
        expect![[r#"
            error: stage `peaks`: input `signals` is not connected
             --> p.yaml:4:3
              |
            4 |   peaks: {uses: detect_peaks}
              |   ^^^^^
              |
              = help: add `signals: ingest.signals` under `in:`

            error: stage `windows`: input `signals` is not connected
             --> p.yaml:5:27
              |
            5 |   windows: {uses: window, in: {beats: peaks.beats}}
              |                           ^^
              |
              = help: add `signals: ingest.signals` under `in:`

            error: stage `curves`: input `metrics` is not connected
             --> p.yaml:6:24
              |
            6 |   curves: {uses: plot, in: {}}
              |                        ^^
              |
              = help: no other stage of this pipeline gives a single metrics artifact
        "#]],
    );
}

#[test]
fn what_cannot_be_published() {
    check(
        "
stages:
  ingest: {uses: ingest}
  peaks: {uses: detect_peaks, in: {signals: ingest.signals}}
  unused: {uses: smooth, in: {signals: ingest.signals}}
publish:
  a.txt: peaks.beat
  b.txt: peeks.beats
  c.txt: peaks.beats
  d/: [peaks.beats, peaks.beats]
  ./d//: ingest.signals
  e: nothing
  e/f.txt: ingest
",
        expect![[r#"
            error: publish `a.txt`: `peaks` (detect_peaks) has no output `beat`
             --> p.yaml:7:10
              |
            7 |   a.txt: peaks.beat
              |          ^^^^^^^^^^
              |
              = help: did you mean `peaks.beats`?

            error: publish `b.txt`: there is no stage `peeks`
             --> p.yaml:8:10
              |
            8 |   b.txt: peeks.beats
              |          ^^^^^^^^^^^
              |
              = help: did you mean `peaks.beats`?

            error: publish `c.txt`: `peaks.beats` gives one beats artifact for every record, but the target is one file
             --> p.yaml:9:10
              |
            9 |   c.txt: peaks.beats
              |          ^^^^^^^^^^^
              |
              = help: publish it to a folder: `c.txt/`

            error: publish `d/`: `peaks.beats` is listed twice
              --> p.yaml:10:21
               |
            10 |   d/: [peaks.beats, peaks.beats]
               |                     ^^^^^^^^^^^
               |
               = help: take it out here

            error: two entries of `publish` write to `d`
              --> p.yaml:11:3
               |
            10 |   d/: [peaks.beats, peaks.beats]
               |   -- first here
            11 |   ./d//: ingest.signals
               |   ^^^^^
               |
               = help: give a folder, ending with `/`, one list of outputs

            error: publish `e`: there is no stage `nothing`
              --> p.yaml:12:6
               |
            12 |   e: nothing
               |      ^^^^^^^
               |
               = help: the stages of this pipeline are `ingest`, `peaks` and `unused`

            error: `e/f.txt` would lie in `e`, which is published as a file
              --> p.yaml:13:3
               |
            12 |   e: nothing
               |   - published here
            13 |   e/f.txt: ingest
               |   ^^^^^^^
               |
               = help: choose another target for one of them

            error: publish `e/f.txt`: `ingest` is a stage, not an output of one
              --> p.yaml:13:12
               |
            13 |   e/f.txt: ingest
               |            ^^^^^^
               |
               = help: did you mean `ingest.signals`?
        "#]],
    );
}

#[test]
fn selecting_a_target_takes_what_it_needs() {
    let plan = made(GOOD, &[]).unwrap();
    let names = |targets: &[&str]| {
        let targets: Vec<String> = targets.iter().map(|target| (*target).to_owned()).collect();
        let selected = plan.select(&targets)?;
        Ok::<_, Report>(selected.into_iter().map(|idx| plan.nodes()[idx].name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(&["windows"]).unwrap(), ["ingest", "peaks", "windows"]);
    assert_eq!(names(&["split.split", "peaks"]).unwrap(), ["ingest", "peaks", "split"]);
    assert_eq!(names(&[]).unwrap().len(), plan.nodes().len());
    expect![[r#"
        error: `--target peaks.beat`: stage `peaks` has no such output
         |
         = help: did you mean `beats`?

        error: `--target windwos`: the pipeline has no stage `windwos`
         |
         = help: did you mean `windows`?

        error: `--target zzzzz`: the pipeline has no stage `zzzzz`
         |
         = help: its stages are `ingest`, `peaks`, `split`, `windows`, `train` and `curves`
    "#]]
    .assert_eq(&names(&["windwos", "peaks.beat", "zzzzz"]).unwrap_err().plain());
    let peaks = plan.find("peaks").unwrap();
    let of = |idxs: BTreeSet<usize>| idxs.into_iter().map(|idx| plan.nodes()[idx].name.as_str()).collect::<Vec<_>>();
    assert_eq!(of(plan.downstream(peaks)), ["split", "windows"]);
    assert_eq!(of(plan.upstream(peaks)), ["ingest"]);
}

/// GOOD, with stages, ports and parameters in an order given by `shuffle`, and nodes renamed by `rename`.
fn shuffled(shuffle: u64, rename: &dyn Fn(&str) -> String) -> String {
    let mut state = shuffle;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut order = |mut items: Vec<String>| {
        for at in (1..items.len()).rev() {
            items.swap(at, usize::try_from(next()).unwrap() % (at + 1));
        }
        items.join(", ")
    };
    let name = |node: &str| rename(node);
    let window_in =
        order(vec![format!("signals: {}.signals", name("ingest")), format!("beats: {}.beats", name("peaks"))]);
    let train_in =
        order(vec![format!("windows: {}.windows", name("windows")), format!("split: {}.split", name("split"))]);
    let with = order(vec!["records: [100, 0101, 'x']".to_owned(), "leads: first".to_owned()]);
    let band = order(vec!["low_hz: 4".to_owned(), "high_hz: 20.0".to_owned()]);
    let stages = order(vec![
        format!("{}: {{uses: ingest, with: {{{with}}}}}", name("ingest")),
        format!(
            "{}: {{in: {{signals: {}.signals}}, with: {{band: {{{band}}}}}, uses: detect_peaks}}",
            name("peaks"),
            name("ingest")
        ),
        format!("{}: {{uses: window, in: {{{window_in}}}}}", name("windows")),
        format!("{}: {{uses: split, in: {{beats: {}.beats}}}}", name("split"), name("peaks")),
        format!("{}: {{uses: train, in: {{{train_in}}}}}", name("train")),
    ]);
    let both = order(vec![format!("{}.model", name("train")), format!("{}.metrics", name("train"))]);
    let publish = order(vec![format!("m/: [{both}]"), format!("s.json: {}.split", name("split"))]);
    format!("{{publish: {{{publish}}}, stages: {{{stages}}}}}")
}

proptest! {
    #[test]
    fn the_order_in_the_file_changes_nothing(shuffle in any::<u64>()) {
        let plain = made(&shuffled(0, &str::to_owned), &[]).unwrap().json();
        prop_assert_eq!(made(&shuffled(shuffle, &str::to_owned), &[]).unwrap().json(), plain);
    }

    #[test]
    fn names_reach_nothing_but_names(shuffle in any::<u64>(), prefixes in prop::collection::vec("[a-z]{1,3}", 5)) {
        let rename = |node: &str| {
            let idx = ["ingest", "peaks", "windows", "split", "train"].iter().position(|one| *one == node).unwrap();
            format!("{}_{node}", prefixes[idx])
        };
        let plan = made(&shuffled(shuffle, &rename), &[]).unwrap();
        // Everything but names, with references followed to the stage that they mean.
        let essence = |plan: &Plan| {
            let mut nodes: Vec<String> = plan.nodes().iter().map(|node| {
                let inputs: Vec<String> = node.inputs.iter().map(|(port, edge)| {
                    format!("{port}<-{}.{}", plan.nodes()[edge.node_idx].uses, edge.port)
                }).collect();
                format!("{} {:?} {inputs:?}", node.uses, node.params)
            }).collect();
            nodes.sort();
            nodes
        };
        prop_assert_eq!(essence(&plan), essence(&made(&shuffled(0, &str::to_owned), &[]).unwrap()));
        // No node stands before one that it needs, whatever the names say.
        for (idx, node) in plan.nodes().iter().enumerate() {
            for edge in node.inputs.values() {
                prop_assert!(edge.node_idx < idx, "{} before its input", node.name);
            }
        }
    }
}

#[test]
fn null_gives_a_parameter_its_default_back() {
    let params = |with: &str, sets: &[&str]| {
        let planned = made(&format!("stages: {{ingest: {{uses: ingest, with: {with}}}}}"), sets);
        planned.map(|plan| plan.nodes()[0].params.as_json().to_string()).map_err(|report| report.plain())
    };
    let default = params("{}", &[]).unwrap();
    assert_ne!(params("{database: x, limit_n: 3}", &[]).unwrap(), default);
    assert_eq!(params("{database: x, limit_n: 3}", &["ingest.database=null", "ingest.limit_n=~"]).unwrap(), default);
    assert_eq!(params("{database: null, records: Null}", &[]).unwrap(), default);
    let forgotten = params("{database: , records: []}", &[]).unwrap_err();
    assert!(forgotten.contains("parameter `database` wants text, but is nothing"), "{forgotten}");
    let unknown = params("{databse: null}", &[]).unwrap_err();
    assert!(unknown.contains("did you mean `database`?"), "{unknown}");
}
