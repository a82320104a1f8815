//! Gives every stage the identity of its code, so that forgetting to bump a number is impossible.
//!
//! The identity of `stages/<name>.rs` (or folder) is a digest over: its sources; the sources of every other module of this
//! package that it names as `crate::...`, transitively; the sources of the workspace crates that any of them names; and the
//! locked versions of the libraries below those, transitively. Test modules do not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

/// Sources of a module or a crate, and what they name.
struct Unit {
    files: BTreeMap<String, String>,
    /// Modules named as `crate::...`.
    siblings: BTreeSet<String>,
    /// Crates named as `...::`, among other words.
    crates: BTreeSet<String>,
}

fn main() {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = here.parent().expect("stages/ lies in the workspace").to_owned();
    let lock = Lock::read(&workspace.join("Cargo.lock"));
    println!("cargo:rerun-if-changed={}", workspace.join("Cargo.lock").display());
    println!("cargo:rerun-if-changed={}", here.display());

    let members: BTreeMap<&str, Unit> =
        [("ecgpipe_sdk", "sdk"), ("ecgpipe_wfdb", "wfdb"), ("ecgpipe_nn", "nn"), ("ecgpipe_tables", "tables")]
            .into_iter()
            .map(|(name, folder)| (name, unit(&here, &[here.join(folder).join("src")])))
            .collect();
    let modules = modules(&here);

    let mut arms = String::new();
    for name in modules.keys() {
        let identity = identity(name, &modules, &members, &lock);
        arms.push_str(&format!("        {name:?} => {identity:?},\n"));
    }
    let code = format!(
        "/// The identity of the code of the stage in module `name`, 64 hex characters.\n\
         fn code_identity(name: &str) -> &'static str {{\n    match name {{\n{arms}        _ => \"\",\n    }}\n}}\n"
    );
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it")).join("code_identity.rs");
    fs::write(&out, code).unwrap_or_else(|error| panic!("failed to write {}: {error}", out.display()));
}

/// The modules of this package by name: `name.rs`, `name/`, or both.
fn modules(here: &Path) -> BTreeMap<String, Unit> {
    let packages = ["sdk", "wfdb", "nn", "tables", "target"];
    let mut paths: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(here).expect("the package's folder is readable").flatten() {
        let path = entry.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_module = if path.is_dir() {
            // A folder with a `stage.yaml` is a plugin: it is not compiled, and its host knows the identity of its code.
            !packages.contains(&stem.as_str()) && !path.join("stage.yaml").exists()
        } else {
            path.extension().is_some_and(|extension| extension == "rs") && !["lib", "build"].contains(&stem.as_str())
        };
        if is_module {
            paths.entry(stem).or_default().push(path);
        }
    }
    paths.into_iter().map(|(name, paths)| (name, unit(here, &paths))).collect()
}

fn unit(here: &Path, paths: &[PathBuf]) -> Unit {
    let mut files = BTreeMap::new();
    let mut open = paths.to_vec();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("a source folder is readable").flatten().map(|entry| entry.path()));
            continue;
        }
        let name = path.strip_prefix(here).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        let is_test = name.ends_with("/tests.rs") || name.contains("/tests/");
        if is_test {
            continue;
        }
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()));
        // What is not Rust (a font, a table) counts by its bytes.
        let text = if name.ends_with(".rs") {
            without_tests(&String::from_utf8_lossy(&bytes))
        } else {
            blake3::hash(&bytes).to_hex().to_string()
        };
        files.insert(name, text);
    }
    let rust = || files.iter().filter(|(name, _)| name.ends_with(".rs")).map(|(_, text)| text.as_str());
    let (siblings, crates) = (rust().flat_map(siblings).collect(), rust().flat_map(paths_begun).collect());
    Unit { files, siblings, crates }
}

/// The first names in `crate::name` and in `crate::{name, name::..., ...}`.
fn siblings(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, found) in source.match_indices("crate::") {
        let rest = &source[at + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let (mut depth, mut begins) = (1, true);
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => begins = true,
                _ if begins && !character.is_whitespace() => {
                    names.push(word(&group[at..]));
                    begins = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

/// Every word that is followed by `::`.
fn paths_begun(source: &str) -> Vec<String> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let begun = source.match_indices("::").map(|(at, _)| {
        let start = source[..at].rfind(|character| !is_word(character)).map_or(0, |before| before + 1);
        source.get(start..at).unwrap_or_default().to_owned()
    });
    begun.collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The source up to its test module, which by the style of this project comes last.
fn without_tests(source: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let begins_tests = |at: usize| {
        lines[at].trim() == "#[cfg(test)]"
            && lines[at + 1..]
                .iter()
                .map(|line| line.trim_start())
                .find(|line| !line.starts_with("#[") && !line.starts_with("//"))
                .is_some_and(|line| line.trim_start_matches("pub(crate) ").starts_with("mod tests {"))
    };
    let end = (0..lines.len()).find(|&at| begins_tests(at)).unwrap_or(lines.len());
    lines[..end].join("\n")
}

fn identity(name: &str, modules: &BTreeMap<String, Unit>, members: &BTreeMap<&str, Unit>, lock: &Lock) -> String {
    let mut sources: BTreeMap<&str, &str> = BTreeMap::new();
    let mut libraries = BTreeSet::new();
    let (mut seen, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
    while let Some(next) = open.pop() {
        if !seen.insert(next.clone()) {
            continue;
        }
        let Some(unit) = modules.get(&next).or_else(|| members.get(next.as_str())) else { continue };
        sources.extend(unit.files.iter().map(|(file, text)| (file.as_str(), text.as_str())));
        if modules.contains_key(&next) {
            open.extend(unit.siblings.iter().cloned());
        }
        for name in &unit.crates {
            if members.contains_key(name.as_str()) {
                open.push(name.clone());
            } else if let Some(package) = lock.by_word.get(name) {
                libraries.insert(package.clone());
            }
        }
    }
    let mut hasher = blake3::Hasher::new();
    for (file, text) in sources {
        for part in [file, text] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
    }
    for library in lock.closure(&libraries) {
        hasher.update(library.as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}

/// `Cargo.lock`, as far as it matters here.
struct Lock {
    /// `name version checksum` by `name` and, for names with several versions, by `name version`.
    packages: BTreeMap<String, Package>,
    /// Package by the word that names its crate in source code.
    by_word: BTreeMap<String, String>,
}

struct Package {
    line: String,
    needs: Vec<String>,
}

impl Lock {
    fn read(path: &Path) -> Self {
        let text =
            fs::read_to_string(path).unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()));
        let (mut packages, mut by_word) = (BTreeMap::new(), BTreeMap::new());
        for block in text.split("[[package]]").skip(1) {
            let value = |key: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
                line.unwrap_or_default().trim_matches('"').to_owned()
            };
            let (name, version) = (value("name"), value("version"));
            if name.starts_with("ecgpipe") {
                continue;
            }
            let listed = block
                .split_once("dependencies = [")
                .and_then(|(_, rest)| rest.split_once(']'))
                .map_or("", |(list, _)| list);
            let needs = listed
                .lines()
                .map(|line| line.trim().trim_matches([',', '"']).to_owned())
                .filter(|line| !line.is_empty());
            let line = format!("{name} {version} {}", value("checksum"));
            for key in [name.clone(), format!("{name} {version}")] {
                packages.insert(key, Package { line: line.clone(), needs: needs.clone().collect() });
            }
            by_word.insert(name.replace('-', "_"), name);
        }
        Self { packages, by_word }
    }

    /// The lines of these packages and of all that they need.
    fn closure(&self, names: &BTreeSet<String>) -> BTreeSet<&str> {
        let (mut lines, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            if let Some(package) = self.packages.get(name) {
                lines.insert(package.line.as_str());
                open.extend(package.needs.iter().map(String::as_str));
            }
        }
        lines
    }
}
