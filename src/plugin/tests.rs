//! What a `stage.yaml` may say, what it means, and how artifacts pass through the protocol. Programs that run are tested in
//! `tests/plugins.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::atomic::AtomicBool,
    time::Duration,
};

use ecgpipe_sdk::{
    Artifact, Beats, Context, ErasedStage, Files, NamedFile, PortValue, PortValues, RecordId, SourceContext,
    StageEvent, kinds::PeakSource,
};
use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Plugin,
    description::{Description, FILE, Limits, Records},
    program, protocol,
};

const GOOD: &str = "\
name: denoise
summary: Removes noise.
command: [python3, denoise.py]
inputs: {signals: {kind: signals, cardinality: each, doc: The recording.}}
outputs: {signals: {kind: signals, cardinality: each, doc: Without noise.}}
params:
  width_ms: {type: number, default: 200, minimum: 1, maximum: 5000, doc: Width of the filter in milliseconds.}
  mode: {type: text, default: fast, one_of: [fast, exact], doc: How it counts.}
  widths: {type: list, of: integer, default: [3, 5], minimum: 1, doc: More widths.}
  label: {type: text, default: 0100, doc: A text that looks like a number.}
  smooth: {type: boolean, default: false, doc: Whether it smooths.}
";

/// A folder `denoise` with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let parent = TempDir::new().expect("a temporary folder");
    let own = parent.path().join("denoise");
    fs::create_dir(&own).expect("a new folder");
    for (name, text) in files {
        let path = own.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
        fs::write(path, text).expect("a new file");
    }
    parent
}

fn read(yaml: &str, files: &[(&str, &str)]) -> Result<Description, String> {
    let parent = folder(files);
    fs::write(parent.path().join("denoise").join(FILE), yaml).expect("a new file");
    Description::read(&parent.path().join("denoise"), "stages/denoise/stage.yaml").map_err(|report| report.plain())
}

fn good() -> Description {
    read(GOOD, &[("denoise.py", "print()")]).unwrap_or_else(|report| panic!("{report}"))
}

fn check(yaml: &str, expected: Expect) {
    let report = read(yaml, &[("denoise.py", "print()")]).expect_err("it is wrong");
    expected.assert_eq(&report);
}

#[test]
fn a_description_becomes_a_stage() {
    let description = good();
    let spec = &description.spec;
    assert_eq!((spec.name, spec.summary, spec.seeded, spec.exclusive), ("denoise", "Removes noise.", false, false));
    assert!(spec.per_record());
    assert_eq!(format!("{:?} {:?}", spec.inputs[0].kind, spec.inputs[0].cardinality), "signals v1 Each");
    assert_eq!(description.command, ["python3", "denoise.py"]);
    assert_eq!(description.limits, Limits { time: Some(Duration::from_secs(3600)), memory_mb: Some(4096) });
    let defaults = json!({"width_ms": 200.0, "mode": "fast", "widths": [3, 5], "label": "0100", "smooth": false});
    assert_eq!(spec.defaults, defaults);
    assert_eq!(
        spec.schema["properties"]["mode"],
        json!({"type": "string", "enum": ["fast", "exact"], "default": "fast", "description": "How it counts."})
    );
    assert_eq!(spec.code.len(), 64);
    let more = GOOD.to_owned()
        + "seeded: true\nexclusive: true\nlimits: {time_s: 1.5, memory_mb: 64}\nenvironment: [B, A, B]\nsources: [denoise.py]\n";
    let description = read(&more, &[("denoise.py", "")]).unwrap_or_else(|report| panic!("{report}"));
    assert!(description.spec.seeded && description.spec.exclusive);
    assert_eq!(description.limits, Limits { time: Some(Duration::from_millis(1500)), memory_mb: Some(64) });
    assert_eq!(description.environment, ["A", "B"]);
}

#[test]
fn all_errors_of_a_description_are_shown_at_once() {
    let yaml = "\
name: denoiser
comand: [sh]
summary:
inputs: {signals: {kind: signal, cardinality: every, doc: x}}
outputs: {Signals: {kind: signals, cardinality: all, hint: x}}
params:
  width_ms: {type: nubmer, default: 1, doc: x}
  least: {type: number, default: 0, minimum: 1, doc: x}
  mode: {type: text, default: slow, one_of: [fast, exact], doc: x}
  list: {type: list, default: [1]}
sources: [denoise.py, lib/, ../other.py, none.py]
seeded: yes
limits: {time_s: 0, memory: 5}
environment: [A=1]
";
    check(
        yaml,
        expect![[r#"
            error: the plugin has no `command`
             --> stages/denoise/stage.yaml:1:1
              |
            1 | name: denoiser
              | ^
              |
              = help: for example `command: [python3, denoise.py]`

            error: the plugin is named `denoiser`, but its folder `denoise`
             --> stages/denoise/stage.yaml:1:7
              |
            1 | name: denoiser
              |       ^^^^^^^^
              |
              = help: give both one name

            error: a stage.yaml has no key `comand`
             --> stages/denoise/stage.yaml:2:1
              |
            2 | comand: [sh]
              | ^^^^^^
              |
              = help: did you mean `command`?

            error: `summary` wants text, but is nothing
             --> stages/denoise/stage.yaml:3:1
              |
            3 | summary:
              | ^^^^^^^
              |
              = help: write a word, or a text in quotes

            error: `inputs.signals`: there is no kind `signal`
             --> stages/denoise/stage.yaml:4:26
              |
            4 | inputs: {signals: {kind: signal, cardinality: every, doc: x}}
              |                          ^^^^^^
              |
              = help: did you mean `signals`?

            error: `inputs.signals`: there is no cardinality `every`
             --> stages/denoise/stage.yaml:4:47
              |
            4 | inputs: {signals: {kind: signal, cardinality: every, doc: x}}
              |                                               ^^^^^
              |
              = help: cardinalities are `each`, `all` and `one`

            error: `Signals` cannot be the name of a port
             --> stages/denoise/stage.yaml:5:11
              |
            5 | outputs: {Signals: {kind: signals, cardinality: all, hint: x}}
              |           ^^^^^^^
              |
              = help: a name has lower-case letters, digits and `_`, and begins with a letter

            error: `outputs.Signals` has no `doc`
             --> stages/denoise/stage.yaml:5:11
              |
            5 | outputs: {Signals: {kind: signals, cardinality: all, hint: x}}
              |           ^^^^^^^
              |
              = help: for example `{kind: signals, cardinality: each, doc: The recording.}`

            error: `outputs.Signals`: an output cannot be `all`
             --> stages/denoise/stage.yaml:5:49
              |
            5 | outputs: {Signals: {kind: signals, cardinality: all, hint: x}}
              |                                                 ^^^
              |
              = help: give one artifact a record (`each`) or a single one (`one`)

            error: `outputs.Signals` has no key `hint`
             --> stages/denoise/stage.yaml:5:54
              |
            5 | outputs: {Signals: {kind: signals, cardinality: all, hint: x}}
              |                                                      ^^^^
              |
              = help: its keys are `kind`, `cardinality`, `doc` and `optional`

            error: parameter `width_ms`: there is no type `nubmer`
             --> stages/denoise/stage.yaml:7:20
              |
            7 |   width_ms: {type: nubmer, default: 1, doc: x}
              |                    ^^^^^^
              |
              = help: did you mean `number`?

            error: parameter `least` wants a number of at least 1, but this is the number `0`
             --> stages/denoise/stage.yaml:8:34
              |
            8 |   least: {type: number, default: 0, minimum: 1, doc: x}
              |                                  ^

            error: parameter `mode` wants `fast` or `exact`, but this is the text `slow`
             --> stages/denoise/stage.yaml:9:31
              |
            9 |   mode: {type: text, default: slow, one_of: [fast, exact], doc: x}
              |                               ^^^^

            error: parameter `list` has no `doc`
              --> stages/denoise/stage.yaml:10:3
               |
            10 |   list: {type: list, default: [1]}
               |   ^^^^
               |
               = help: for example `{type: number, default: 200, minimum: 1, doc: Width of the filter in milliseconds.}`

            error: parameter `list`: a list of what?
              --> stages/denoise/stage.yaml:10:16
               |
            10 |   list: {type: list, default: [1]}
               |                ^^^^
               |
               = help: for example `{type: list, of: integer, ...}`

            error: there is no file `lib/` in the plugin's folder
              --> stages/denoise/stage.yaml:11:23
               |
            11 | sources: [denoise.py, lib/, ../other.py, none.py]
               |                       ^^^^
               |
               = help: list files, not folders or patterns

            error: the source `../other.py` is not a path within the plugin's folder
              --> stages/denoise/stage.yaml:11:29
               |
            11 | sources: [denoise.py, lib/, ../other.py, none.py]
               |                             ^^^^^^^^^^^

            error: there is no file `none.py` in the plugin's folder
              --> stages/denoise/stage.yaml:11:42
               |
            11 | sources: [denoise.py, lib/, ../other.py, none.py]
               |                                          ^^^^^^^
               |
               = help: list files, not folders or patterns

            error: `seeded` wants `true` or `false`, but is the text `yes`
              --> stages/denoise/stage.yaml:12:9
               |
            12 | seeded: yes
               |         ^^^

            error: `limits.time_s` wants a number above 0, but is the number `0`
              --> stages/denoise/stage.yaml:13:18
               |
            13 | limits: {time_s: 0, memory: 5}
               |                  ^

            error: `limits` has no key `memory`
              --> stages/denoise/stage.yaml:13:21
               |
            13 | limits: {time_s: 0, memory: 5}
               |                     ^^^^^^
               |
               = help: did you mean `memory_mb`?

            error: `A=1` is not the name of a variable
              --> stages/denoise/stage.yaml:14:15
               |
            14 | environment: [A=1]
               |               ^^^
               |
               = help: list names only; values come from where ecgpipe runs, and what decides a result is a parameter
        "#]],
    );
}

#[test]
fn ports_must_make_a_shape_of_jobs() {
    let shape = |ports: &str| {
        let base = "name: denoise\nsummary: x\ncommand: [sh]\n".to_owned();
        let report = read(&(base + ports), &[]).expect_err("it is wrong");
        let message = report.lines().next().unwrap_or_default().to_owned();
        let help = report.lines().rev().find_map(|line| line.split("help: ").nth(1)).unwrap_or_default().to_owned();
        (message, help)
    };
    let port = |cardinality: &str| format!("{{kind: files, cardinality: {cardinality}, doc: x}}");
    let (each, one) = (port("each"), port("one"));
    let mixed = "error: ports for one record and for all are mixed";
    assert_eq!(shape(&format!("outputs: {{a: {each}, b: {one}}}\ninputs: {{c: {each}}}\n")).0, mixed);
    assert_eq!(shape(&format!("outputs: {{a: {one}}}\ninputs: {{c: {each}}}\n")).0, mixed);
    let (message, help) = shape(&format!("outputs: {{a: {each}}}\ninputs: {{c: {one}}}\n"));
    assert_eq!(message, "error: the outputs are `each`, but nothing says which records there are");
    assert!(help.contains("`records`"), "{help}");
    let records = "records: {folder: texts, suffix: .txt}\n";
    let (message, _) = shape(&format!("outputs: {{a: {one}}}\n{records}"));
    assert_eq!(message, "error: a stage with these ports has no use for `records`");
    let outside = shape(&format!("outputs: {{a: {each}}}\nrecords: {{folder: ../texts, suffix: .txt}}\n")).0;
    assert_eq!(outside, "error: `../texts` is not a path within `data/raw`");
}

#[test]
fn an_empty_description_and_one_that_is_no_yaml_are_named() {
    check(
        "",
        expect![[r#"
            error: `stages/denoise/stage.yaml` is empty
             |
             = help: a stage.yaml has at least `name`, `summary`, `command` and `outputs`
        "#]],
    );
    check(
        "name: [",
        expect![[r#"
            error: not YAML: while parsing a node, did not find expected node content
             --> stages/denoise/stage.yaml:1:1
              |
            1 | name: [
              | ^
              |
              = help: check indentation, quotes, `: ` after keys and closing brackets above this place
        "#]],
    );
}

#[test]
fn a_number_has_one_form() {
    let bound = |given: Value| good().bind(&given).map(|params| params.as_json()["width_ms"].to_string());
    assert_eq!(bound(json!({"width_ms": 300})), Ok("300.0".to_owned()));
    assert_eq!(bound(json!({"width_ms": 300.0})), Ok("300.0".to_owned()));
    assert_eq!(bound(Value::Null), Ok("200.0".to_owned()));
    let refused = |given: Value| good().bind(&given).map(|_| ()).expect_err("it is refused").message;
    assert_eq!(refused(json!({"width_ms": 0})), "`width_ms` wants a number from 1 to 5000, but is `0`");
    assert_eq!(refused(json!({"mode": "slow"})), "`mode` wants `fast` or `exact`, but is `slow`");
    assert_eq!(refused(json!({"widths": [1, 2.5]})), "`widths` wants a whole number of at least 1, but is `[1,2.5]`");
    assert_eq!(refused(json!({"wdth": 1})), "there is no parameter `wdth`");
}

#[test]
fn the_identity_follows_what_decides_the_result() {
    let code = |yaml: &str, files: &[(&str, &str)]| {
        let description = read(yaml, files).unwrap_or_else(|report| panic!("{report}"));
        description.spec.code
    };
    let files = [("denoise.py", "print()"), ("lib/filter.py", "x = 1")];
    let first = code(GOOD, &files);
    // Not where it lies (every call is another folder), not what nobody computes with.
    assert_eq!(code(GOOD, &files), first);
    let others =
        [("README.md", "x"), ("tests/test.py", "x"), (".hidden", "x"), ("__pycache__/a.pyc", "x"), ("b.pyc", "x")];
    assert_eq!(code(GOOD, &[&files[..], &others].concat()), first);
    let same = [
        GOOD.replace("Removes noise", "Takes noise out"),
        GOOD.replace("How it counts", "How"),
        GOOD.to_owned() + "limits: {time_s: 7}\n",
        GOOD.to_owned() + "sources: [lib/filter.py, denoise.py]\n",
    ];
    for yaml in same {
        assert_eq!(code(&yaml, &files), first, "{yaml}");
    }
    let mut codes = BTreeSet::from([first]);
    let others = [
        GOOD.replace("[python3, denoise.py]", "[python3, -O, denoise.py]"),
        GOOD.replace("[python3, denoise.py]", "[python3 denoise.py]"),
        GOOD.replace("outputs: {signals: {kind: signals", "outputs: {signals: {kind: beats"),
        GOOD.replace("type: boolean, default: false", "type: text, default: no"),
        GOOD.to_owned() + "environment: [CUDA_VISIBLE_DEVICES]\n",
        GOOD.to_owned() + "sources: [denoise.py]\n",
    ];
    for yaml in &others {
        assert!(codes.insert(code(yaml, &files)), "{yaml}");
    }
    for files in [
        vec![("denoise.py", "print(1)"), ("lib/filter.py", "x = 1")],
        vec![("denoise.py", "print()"), ("lib/filter.py", "x = 2")],
        vec![("denoise.py", "print()"), ("lib/filters.py", "x = 1")],
        vec![("denoise.py", "print()"), ("lib/filter.py", "x = 1"), ("table.csv", "")],
    ] {
        assert!(codes.insert(code(GOOD, &files)), "{files:?}");
    }
    assert_eq!(codes.len(), 1 + others.len() + 4);
}

#[test]
fn a_source_lists_the_files_of_its_folder() {
    let yaml = "name: denoise\nsummary: x\ncommand: [sh]\noutputs: {a: {kind: files, cardinality: each, doc: x}}\n\
                records: {folder: texts/new, suffix: .txt}\n";
    let description = read(yaml, &[]).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(description.records, Some(Records { folder: "texts/new".to_owned(), suffix: ".txt".to_owned() }));
    let stage = Plugin { description };
    let params = stage.bind(&Value::Null).expect("defaults");
    let folder = TempDir::new().expect("a temporary folder");
    let list = |shared: Option<&Path>| {
        let data_folder = folder.path().join("data");
        let cx = SourceContext { data_folder, shared_data: shared.map(Path::to_owned), offline: true, events: &|_| {} };
        let listed = stage.sources(&params, &cx).map_err(|error| error.message)?;
        let names = listed.iter().map(|source| format!("{} {}", source.record, source.files[0].name));
        Ok::<_, String>(names.collect::<Vec<_>>())
    };
    let missing = list(None).expect_err("no folder");
    assert!(missing.starts_with("there is no folder") && missing.ends_with("data/raw/texts/new"), "{missing}");
    let put = |base: &str, names: &[&str]| {
        fs::create_dir_all(folder.path().join(base)).expect("a new folder");
        for name in names {
            fs::write(folder.path().join(base).join(name), name).expect("a new file");
        }
    };
    put("shared/texts/new", &["s.txt"]);
    assert_eq!(list(Some(&folder.path().join("shared"))), Ok(vec!["s s.txt".to_owned()]));
    put("data/raw/texts/new", &["b.txt", "a.txt", "notes.md", ".c.txt"]);
    assert_eq!(list(Some(&folder.path().join("shared"))), Ok(vec!["a a.txt".to_owned(), "b b.txt".to_owned()]));
    put("data/raw/texts/new", &["b d.txt"]);
    assert!(list(None).expect_err("a bad name").contains("`b d` is not a record name"));
}

/// An artifact of every shape that the protocol knows, out of one folder and into another.
#[test]
fn artifacts_pass_unchanged() {
    let port = |kind: &str, cardinality: &str| format!("{{kind: {kind}, cardinality: {cardinality}, doc: x}}");
    let yaml = format!(
        "name: denoise\nsummary: x\ncommand: [sh]\nseeded: true\ninputs: {{one: {}, all: {}, bundles: {}, none: {}}}\n\
         outputs: {{beats: {}, files: {}}}\n",
        port("beats", "one"),
        port("beats", "all"),
        port("files", "all"),
        port("files", "one").replace("doc: x", "doc: x, optional: true"),
        port("beats", "one"),
        port("files", "one"),
    );
    let description = read(&yaml, &[]).unwrap_or_else(|report| panic!("{report}"));
    let spec = &description.spec;
    let record = |name: &str| RecordId::new(name).expect("a valid name");
    let beats = |name: &str| Beats {
        record: record(name),
        patient: name.to_owned(),
        sampling_frequency_hz: 31.245_270_191_439_438,
        sample_n: 5,
        source: PeakSource::Reference,
        beats: Vec::new(),
        missed: Vec::new(),
    };
    let bundle =
        |text: &str| Files::new(vec![NamedFile { name: "a b.txt".to_owned(), bytes: text.as_bytes().to_vec() }]);
    let shared = |value: Beats| std::sync::Arc::new(value) as Artifact;
    let inputs = PortValues::from([
        ("one", PortValue::Single(shared(beats("a")))),
        (
            "all",
            PortValue::Many(BTreeMap::from(
                [("a", ()), ("b", ())].map(|(name, ())| (record(name), shared(beats(name)))),
            )),
        ),
        ("bundles", PortValue::Many(BTreeMap::from([(record("a"), std::sync::Arc::new(bundle("x")) as Artifact)]))),
    ]);
    let folder = TempDir::new().expect("a temporary folder");
    let (cancel, events) = (AtomicBool::new(false), |_: StageEvent| {});
    let cx = Context::new(&cancel, &events).with_seed(Some(u64::MAX)).with_threads(3);
    protocol::lay_out(folder.path(), spec, &json!({}), &inputs, &cx, None).expect("it can be laid out");
    let job = protocol::read_job(&folder.path().join(protocol::JOB)).expect("its own job");
    assert_eq!((job.seed.as_deref(), job.threads, job.record.as_ref()), (Some("18446744073709551615"), 3, None));
    assert_eq!(job.outputs["files"].path, "outputs/files");
    assert_eq!(job.outputs["beats"].path, "outputs/beats.parquet");
    let loaded = protocol::load(folder.path(), spec, &job).expect("its own inputs");
    assert_eq!(loaded.keys().copied().collect::<Vec<&str>>(), ["all", "bundles", "one"]);
    let Some(PortValue::Many(all)) = loaded.get("all") else { panic!("every record") };
    assert_eq!(all[&record("b")].downcast_ref::<Beats>(), Some(&beats("b")));
    let Some(PortValue::Many(bundles)) = loaded.get("bundles") else { panic!("every record") };
    assert_eq!(bundles[&record("a")].downcast_ref::<Files>(), Some(&bundle("x")));
    let outputs = PortValues::from([
        ("beats", PortValue::Single(shared(beats("c")))),
        ("files", PortValue::Single(std::sync::Arc::new(Files::default()))),
    ]);
    protocol::store(folder.path(), spec, &outputs).expect("it can be written");
    let collected = protocol::collect(folder.path(), spec, None).expect("its own outputs");
    let single = |port: &str| match &collected[port] {
        PortValue::Single(artifact) => artifact.clone(),
        PortValue::Many(_) | PortValue::Encoded(_) => panic!("a single one"),
    };
    assert_eq!(single("beats").downcast_ref::<Beats>(), Some(&beats("c")));
    assert_eq!(single("files").downcast_ref::<Files>(), Some(&Files::default()));
}

#[test]
fn text_from_outside_cannot_steer_a_terminal() {
    assert_eq!(program::printable("\u{1b}[31mred\r\n\tx"), "\u{fffd}[31mred\u{fffd}\n\tx");
}
