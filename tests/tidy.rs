//! The rules of the house that a compiler does not check: who may import whom, that every stage is registered, that every
//! module says what it owns, and that every invariant names a test that exists.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under these folders of the repository with its text, sorted by path.
fn sources(folders: &[&str]) -> BTreeMap<PathBuf, String> {
    fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().unwrap() != "target" {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(path.strip_prefix(root()).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    for folder in folders.iter().map(|folder| root().join(folder)).filter(|folder| folder.is_dir()) {
        walk(&folder, &mut found);
    }
    assert!(!found.is_empty());
    found
}

fn all_sources() -> BTreeMap<PathBuf, String> {
    sources(&["src", "stages", "tests", "benches"])
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What each module of the engine may use: the table in `src/lib.rs`; `None` means everything.
fn import_table(lib: &str) -> BTreeMap<String, Option<BTreeSet<String>>> {
    let mut table = BTreeMap::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! | `")) {
        let (modules, uses) = line.split_once('|').expect("a row has two cells");
        let modules = quoted(&format!("`{modules}")).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        let mut allowed: BTreeSet<String> = quoted(uses).into_iter().map(str::to_owned).collect();
        if uses.contains("each other") {
            allowed.extend(modules.iter().cloned());
        }
        if uses.contains("all of the above") {
            allowed.extend(table.keys().cloned());
        }
        let known = ["nothing of ours", "each other", "all of the above", "everything"];
        assert!(!allowed.is_empty() || known.iter().any(|words| uses.contains(words)), "what does {uses:?} mean?");
        for module in modules {
            let everything = uses.contains("everything");
            assert!(
                table.insert(module, (!everything).then(|| allowed.clone())).is_none(),
                "a module stands there twice"
            );
        }
    }
    table
}

/// The modules that a file names behind `crate::`, comments left out.
fn crate_paths(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut found = BTreeSet::new();
    for (position, _) in code.match_indices("crate::") {
        let before = code[..position].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == '$') {
            continue;
        }
        let rest = &code[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.extend(first_word(rest)),
            Some(group) => found.extend(top_level_items(group).into_iter().filter_map(first_word)),
        }
    }
    found
}

fn first_word(path: &str) -> Option<String> {
    let word: String =
        path.trim_start().chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// The items of a group, given what follows its opening brace.
fn top_level_items(group: &str) -> Vec<&str> {
    let (mut items, mut depth, mut start) = (Vec::new(), 0, 0);
    for (position, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.push(&group[start..position]);
                return items;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&group[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    panic!("a group without an end: {group}");
}

#[test]
fn paths_are_found_in_groups_and_on_their_own() {
    let text = "use crate::{\n    digest::{Digest, Key},\n    event::Event,\n};\n// crate::plan\nfn f() { crate::store::x(); $crate::sdk }";
    assert_eq!(crate_paths(text), ["digest", "event", "store"].map(str::to_owned).into());
}

#[test]
fn modules_import_in_the_direction_of_the_table() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let table = import_table(&lib);
    let declared: BTreeSet<String> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    assert_eq!(table.keys().cloned().collect::<BTreeSet<_>>(), declared, "the table has every module");
    let mut wrong = Vec::new();
    for (path, text) in sources(&["src"]) {
        let module = path.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let Some(allowed) = &table[&module] else { continue };
        for used in crate_paths(&text).into_iter().filter(|used| declared.contains(used)) {
            if used != module && !allowed.contains(&used) {
                wrong.push(format!(
                    "{}: `{module}` uses `{used}`, which the table in src/lib.rs does not allow",
                    path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The dependencies on our own packages that a `Cargo.toml` lists outside of tests.
fn own_dependencies(manifest: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if section == "dependencies" && line.starts_with("ecgpipe") {
            found.extend(line.split(['.', ' ', '=']).next().map(str::to_owned));
        }
    }
    found
}

#[test]
fn packages_depend_in_one_direction() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    for leaf in ["sdk", "wfdb", "nn", "tables"] {
        assert_eq!(own_dependencies(&format!("stages/{leaf}/Cargo.toml")), set(&[]), "{leaf} uses none of ours");
    }
    assert_eq!(own_dependencies("stages/formats/Cargo.toml"), set(&["ecgpipe-wfdb"]));
    let stages = set(&["ecgpipe-formats", "ecgpipe-nn", "ecgpipe-sdk", "ecgpipe-tables", "ecgpipe-wfdb"]);
    assert_eq!(own_dependencies("stages/Cargo.toml"), stages);
    let root = set(&["ecgpipe-formats", "ecgpipe-sdk", "ecgpipe-stages", "ecgpipe-wfdb"]);
    assert_eq!(own_dependencies("Cargo.toml"), root);
}

#[test]
fn only_main_names_the_stages() {
    for (path, text) in sources(&["src"]) {
        let names = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .any(|line| line.contains("ecgpipe_stages"));
        assert_eq!(names, path == Path::new("src/main.rs"), "{}", path.display());
    }
}

#[test]
fn every_stage_is_registered_under_the_name_of_its_file() {
    let lib = fs::read_to_string(root().join("stages/lib.rs")).unwrap();
    let mut stage_n = 0;
    for (path, text) in sources(&["stages"]) {
        let module = path.iter().nth(1).unwrap().to_str().unwrap().trim_end_matches(".rs");
        if ["sdk", "wfdb", "formats", "nn", "tables"].contains(&module) || text.contains("#[cfg(test)]\nimpl Stage for")
        {
            continue;
        }
        for line in text.lines() {
            let Some(name) = line.strip_prefix("impl Stage for ").and_then(first_word) else { continue };
            stage_n += 1;
            let shown = path.display();
            assert!(
                lib.contains(&format!("add::<{module}::{name}>(registry);")),
                "{shown}: {name} is missing from stages/lib.rs"
            );
            assert!(lib.contains(&format!("pub mod {module};")), "{shown}: {module} is missing from stages/lib.rs");
            assert!(
                text.contains(&format!("const NAME: &'static str = \"{module}\";")),
                "{shown}: NAME is the file's name"
            );
            let camel: String = module.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
            assert_eq!(name, camel, "{shown}: the type is named after the file");
        }
    }
    assert_eq!(stage_n, lib.matches("    add::<").count(), "one registration a stage");
    assert!(stage_n > 10);
}

#[test]
fn every_file_opens_with_what_it_owns() {
    let generated = concat!("@", "generated");
    for (path, text) in all_sources().into_iter().filter(|(_, text)| !text.contains(generated)) {
        assert!(text.starts_with("//! "), "{} does not open with `//!`", path.display());
    }
}

#[test]
fn lints_are_silenced_with_a_reason_only() {
    let forbidden = [concat!("#[", "allow("), concat!("#![", "allow(")];
    for (path, text) in all_sources() {
        for (line_idx, line) in text.lines().enumerate() {
            let found = forbidden.iter().any(|words| line.contains(words));
            assert!(!found, "{}:{}: use `expect` with a reason", path.display(), line_idx + 1);
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    let forbidden = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("\"TM", "P\""),
    ];
    for (path, text) in all_sources() {
        for (line_idx, line) in text.lines().enumerate() {
            let found = forbidden.iter().find(|words| line.contains(**words));
            assert_eq!(found, None, "{}:{}", path.display(), line_idx + 1);
        }
    }
}

/// The paragraphs of doc comments that start with `Invariant:`.
fn invariants(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim_start();
        let comment = line.strip_prefix("//!").or_else(|| line.strip_prefix("///")).map(str::trim);
        match comment {
            Some(comment) if comment.starts_with("Invariant:") => {
                found.push(comment.to_owned());
                inside = true;
            }
            Some(comment) if inside && !comment.is_empty() => {
                found.last_mut().unwrap().push_str(&format!(" {comment}"))
            }
            _ => inside = false,
        }
    }
    found
}

#[test]
fn every_test_that_an_invariant_names_exists() {
    let sources = all_sources();
    let everything: String = sources.values().map(String::as_str).collect();
    let mut named_n = 0;
    for (path, text) in &sources {
        for invariant in invariants(text) {
            let tests = quoted(&invariant).into_iter().map(|path| path.rsplit("::").next().unwrap()).filter(|name| {
                // The names of tests are sentences; what else stands in backticks is shorter.
                name.matches('_').count() >= 3
                    && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            });
            for test in tests {
                named_n += 1;
                assert!(everything.contains(&format!("fn {test}(")), "{}: there is no test `{test}`", path.display());
            }
        }
    }
    assert!(named_n > 20, "only {named_n} tests are named");
}
