//! Owns the identity of a stage's code: a digest over all that decides what its body computes, found by reading sources.
//!
//! The identity of `stages/<name>.rs` (or folder) covers, each followed as far as it reaches:
//!
//! | | how it is found |
//! |---|---|
//! | its own files, every file of its folder | by place; what is not Rust counts by its bytes |
//! | other modules of this package | `crate::name`, `crate::{...}`, `super::name` |
//! | workspace crates | their name as a word anywhere |
//! | files read in by `include!`, `include_str!`, `include_bytes!`, `#[path]` | the literal; anything but a literal is refused |
//! | libraries | their name before `::` or after `use`: locked version and checksum, those of all that they need, and the features that the manifests ask for |
//! | `env!("CARGO_PKG_VERSION")` | its value; any other variable is refused |
//! | compiler, target, target features, features of this package | what the build script says: they decide how floats are computed |
//!
//! Not covered, on purpose: comments and white space outside of literals; what only `#[cfg(test)]` compiles; optimisation
//! level, debug assertions and other flags (Rust reorders and contracts no float operation at any level); features that
//! some other package turns on in a shared library; the engine, whose keys have a format number of their own; the CPU at
//! hand and the C library, which a key does not hold either.
//!
//! What could carry meaning past this reading is refused while building rather than guessed: re-exports and macros in
//! `lib.rs`, `crate::*`, `use crate as ...`, `#[macro_export]` and `#[macro_use]` in a stage. One gap is known: a trait of
//! one module that a second implements for a type of a third, used by a stage that names only the first and the third.
//!
//! Invariant: an edit changes the identities of exactly those stages that reach it (`tests/code_identity.rs`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// The package of the stages.
const STAGES: &str = "ecgpipe-stages";

/// What was found.
#[derive(Debug)]
pub(crate) struct Identities {
    /// 64 hex characters by module of `stages/`.
    pub(crate) by_module: BTreeMap<String, String>,
    /// Files outside of `stages/` that were read; a build must run again when one changes.
    pub(crate) watched: BTreeSet<PathBuf>,
}

/// Reads a workspace. `toolchain` is what compiles it, in any words.
///
/// # Errors
/// What cannot be followed, one sentence each.
pub(crate) fn identities(workspace: &Path, toolchain: &str) -> Result<Identities, Vec<String>> {
    let mut reading = Reading::of(workspace).map_err(|error| vec![error])?;
    let modules = reading.modules();
    reading.check_lib(&modules);
    let by_module = modules
        .keys()
        .map(|name| (name.clone(), identity(name, &modules, &reading.members, &reading.lock, toolchain)))
        .collect();
    if reading.problems.is_empty() {
        Ok(Identities { by_module, watched: reading.watched })
    } else {
        Err(reading.problems)
    }
}

/// Sources of a module or a crate, and what they name.
#[derive(Default)]
struct Unit {
    /// Text or digest that counts, by path in the workspace.
    files: BTreeMap<String, String>,
    /// Modules of this package.
    siblings: BTreeSet<String>,
    /// Member crates, by the word that names them.
    members: BTreeSet<String>,
    /// What the manifests say of the libraries named, and their keys in the lock file.
    libraries: BTreeSet<(String, String)>,
}

struct Reading {
    workspace: PathBuf,
    lock: Lock,
    manifest: Manifest,
    /// Crates of the workspace, by the word that names them.
    members: BTreeMap<String, Unit>,
    /// Words of `lib.rs`, which must not hold anything that a stage uses.
    lib_words: BTreeSet<String>,
    modules: BTreeMap<String, Vec<PathBuf>>,
    watched: BTreeSet<PathBuf>,
    problems: Vec<String>,
}

impl Reading {
    fn of(workspace: &Path) -> Result<Self, String> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| format!("failed to read {}: {error}", path.display()))
        };
        let root = read(&workspace.join("Cargo.toml"))?;
        let lock = Lock::parse(&read(&workspace.join("Cargo.lock"))?);
        let lib = read(&workspace.join("stages/lib.rs"))?;
        let mut reading = Self {
            workspace: workspace.to_owned(),
            lock,
            manifest: Manifest::parse(&read(&workspace.join("stages/Cargo.toml"))?, &root),
            members: BTreeMap::new(),
            lib_words: tokens(&lib).iter().map(|token| token.text.to_owned()).collect(),
            modules: modules(&workspace.join("stages"))?,
            watched: ["Cargo.toml", "Cargo.lock"].map(|name| workspace.join(name)).into(),
            problems: Vec::new(),
        };
        let mut members = BTreeMap::new();
        for folder in member_folders(&root) {
            let manifest = Manifest::parse(&read(&workspace.join(&folder).join("Cargo.toml"))?, &root);
            let paths = ["src", "build.rs"].map(|name| workspace.join(&folder).join(name));
            let paths: Vec<PathBuf> = paths.into_iter().filter(|path| path.exists()).collect();
            let word = manifest.package.replace('-', "_");
            members.insert(word, (paths, manifest));
        }
        let words: BTreeSet<String> = members.keys().cloned().collect();
        for (word, (paths, manifest)) in members {
            let mut unit = reading.unit(&paths, &manifest, &words);
            // Inside another crate `crate::` means that crate, which counts as a whole.
            unit.siblings.clear();
            reading.members.insert(word, unit);
        }
        Ok(reading)
    }

    fn modules(&mut self) -> BTreeMap<String, Unit> {
        let manifest = std::mem::take(&mut self.manifest);
        let words: BTreeSet<String> = self.members.keys().cloned().collect();
        let paths = self.modules.clone();
        let unit = |(name, paths): (String, Vec<PathBuf>)| (name, self.unit(&paths, &manifest, &words));
        paths.into_iter().map(unit).collect()
    }

    /// Refuses what would let a stage reach code through `lib.rs`.
    fn check_lib(&mut self, modules: &BTreeMap<String, Unit>) {
        let text = fs::read_to_string(self.workspace.join("stages/lib.rs")).unwrap_or_default();
        let tokens = tokens(&text);
        for (at, token) in tokens.iter().enumerate() {
            let next = tokens.get(at + 1).map_or("", |next| next.text);
            let own = modules.contains_key(next) || ["crate", "self"].contains(&next);
            if token.text == "use" && own {
                self.problems
                    .push(format!("stages/lib.rs re-exports from `{next}`: name the module that owns it instead"));
            }
            if ["macro_rules", "macro_use", "macro_export"].contains(&token.text) {
                self.problems.push("stages/lib.rs has a macro: move it into the module that owns it".to_owned());
            }
        }
    }

    /// Everything below these paths but what is compiled for tests alone.
    fn unit(&mut self, paths: &[PathBuf], manifest: &Manifest, members: &BTreeSet<String>) -> Unit {
        let mut all = BTreeMap::new();
        let mut open = paths.to_vec();
        while let Some(path) = open.pop() {
            if path.is_dir() {
                match fs::read_dir(&path) {
                    Ok(entries) => open.extend(entries.flatten().map(|entry| entry.path())),
                    Err(error) => self.problems.push(format!("failed to list {}: {error}", path.display())),
                }
                continue;
            }
            match fs::read(&path) {
                Ok(bytes) => drop(all.insert(path, bytes)),
                Err(error) => self.problems.push(format!("failed to read {}: {error}", path.display())),
            }
        }
        let is_rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
        let texts: BTreeMap<&PathBuf, String> = all
            .iter()
            .filter(|(path, _)| is_rust(path))
            .map(|(path, bytes)| (path, String::from_utf8_lossy(bytes).into_owned()))
            .collect();
        let mut test_only = BTreeSet::new();
        let mut kept = BTreeMap::new();
        for (path, text) in &texts {
            let (tokens, test_modules) = without_tests(tokens(text));
            let folder = module_folder(path);
            test_only.extend(test_modules.iter().map(|name| folder.join(name)));
            kept.insert(*path, tokens);
        }
        let is_test = |path: &Path| {
            test_only
                .iter()
                .any(|module| path.starts_with(module) || path.with_extension("") == *module && is_rust(path))
        };
        let mut unit = Unit::default();
        for (path, bytes) in all.iter().filter(|(path, _)| !is_test(path)) {
            let name = self.name(path);
            match kept.get(path) {
                Some(tokens) => {
                    unit.files.insert(name, significant(tokens));
                    self.follow(path, tokens, manifest, members, &mut unit);
                }
                None => drop(unit.files.insert(name, blake3::hash(bytes).to_hex().to_string())),
            }
        }
        unit
    }

    /// The path in the workspace, with `/`.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.workspace).unwrap_or(path).to_string_lossy().replace('\\', "/")
    }

    /// Adds what one file names.
    fn follow(
        &mut self,
        path: &Path,
        tokens: &[Token<'_>],
        manifest: &Manifest,
        members: &BTreeSet<String>,
        unit: &mut Unit,
    ) {
        let name = self.name(path);
        let is_stage = manifest.package == STAGES;
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
        let is_path = |at: usize| text(at) == ":" && text(at + 1) == ":";
        // Braces that are open, each with whether it is that of an inline module.
        let mut braces: Vec<bool> = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            match token.text {
                "{" => braces.push(at >= 2 && text(at - 2) == "mod"),
                "}" => drop(braces.pop()),
                "include" | "include_str" | "include_bytes" if text(at + 1) == "!" => {
                    self.include(path, tokens.get(at + 3), unit);
                }
                "path" if text(at + 1) == "=" && at >= 2 && text(at - 1) == "[" && text(at - 2) == "#" => {
                    self.include(path, tokens.get(at + 2), unit);
                }
                "env" | "option_env" if text(at + 1) == "!" => match text(at + 3) {
                    "\"CARGO_PKG_VERSION\"" => {
                        unit.libraries.insert((format!("version {}", manifest.version), String::new()));
                    }
                    other => self.problems.push(format!(
                        "{name}: `{}!({other})` takes a value from the build that no identity holds",
                        token.text
                    )),
                },
                "macro_export" | "macro_use" if is_stage => {
                    self.problems.push(format!(
                        "{name}: `#[{}]` lets others use a macro without naming this module",
                        token.text
                    ));
                }
                "crate" if is_stage && text(at + 1) == "as" => {
                    self.problems.push(format!("{name}: `use crate as ...` hides which module is meant"));
                }
                "crate" if is_stage && is_path(at + 1) && text(at.wrapping_sub(1)) != "extern" => {
                    for word in heads(tokens, at + 3) {
                        self.sibling(&name, word, unit);
                    }
                }
                "super" if is_stage && is_path(at + 1) && !(at >= 2 && is_path(at - 2)) => {
                    let mut above_n = 1;
                    let mut place = at + 3;
                    while text(place) == "super" && is_path(place + 1) {
                        above_n += 1;
                        place += 3;
                    }
                    let inline_n = braces.iter().filter(|is_module| **is_module).count();
                    if above_n >= depth(&name) + inline_n {
                        for word in heads(tokens, place) {
                            self.sibling(&name, word, unit);
                        }
                    }
                }
                word => {
                    if members.contains(word) {
                        unit.members.insert(word.to_owned());
                    }
                    let is_named = is_path(at + 1) || at >= 1 && ["use", "crate"].contains(&text(at - 1));
                    if let Some(dependency) = manifest.dependencies.get(word).filter(|_| is_named) {
                        let key = self.lock.direct(&manifest.package, &dependency.package);
                        unit.libraries.insert((dependency.declared.clone(), key));
                    }
                }
            }
        }
    }

    fn sibling(&mut self, name: &str, word: &str, unit: &mut Unit) {
        if self.modules.contains_key(word) {
            unit.siblings.insert(word.to_owned());
        } else if word == "*" || self.lib_words.contains(word) {
            self.problems
                .push(format!("{name}: `crate::{word}` is no module of its own: name the module that owns it"));
        }
    }

    fn include(&mut self, path: &Path, literal: Option<&Token<'_>>, unit: &mut Unit) {
        let name = self.name(path);
        let written = literal.and_then(|token| token.text.strip_prefix('"')?.strip_suffix('"'));
        let Some(written) = written.filter(|written| !written.contains('\\')) else {
            self.problems.push(format!("{name}: what is included is not written as a plain path"));
            return;
        };
        let included = lexical(&path.parent().unwrap_or(Path::new("")).join(written));
        match fs::read(&included) {
            Ok(bytes) => {
                if !included.starts_with(self.workspace.join("stages")) {
                    self.watched.insert(included.clone());
                }
                // A file of this unit stays as it was read.
                let digest = blake3::hash(&bytes).to_hex().to_string();
                unit.files.entry(self.name(&included)).or_insert(digest);
            }
            Err(error) => self.problems.push(format!("{name}: failed to read {written}: {error}")),
        }
    }
}

fn identity(
    name: &str,
    modules: &BTreeMap<String, Unit>,
    members: &BTreeMap<String, Unit>,
    lock: &Lock,
    toolchain: &str,
) -> String {
    let mut sources: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut declared, mut keys) = (BTreeSet::new(), BTreeSet::new());
    let (mut seen, mut open) = (BTreeSet::new(), vec![name]);
    while let Some(next) = open.pop() {
        if !seen.insert(next) {
            continue;
        }
        let Some(unit) = modules.get(next).or_else(|| members.get(next)) else { continue };
        sources.extend(unit.files.iter().map(|(file, text)| (file.as_str(), text.as_str())));
        open.extend(unit.siblings.iter().chain(&unit.members).map(String::as_str));
        declared.extend(unit.libraries.iter().map(|(declared, _)| declared.as_str()));
        keys.extend(unit.libraries.iter().map(|(_, key)| key.as_str()));
    }
    let libraries = lock.closure(&keys);
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    };
    add("ecgpipe stage identity 2");
    add(toolchain);
    sources.into_iter().for_each(|(file, text)| [file, text].into_iter().for_each(&mut add));
    add("libraries");
    declared.into_iter().chain(libraries).for_each(&mut add);
    hasher.finalize().to_hex().to_string()
}

/// The modules of the package by name: `name.rs` or `name/mod.rs`, with the folder `name/`. Other folders (member crates,
/// plugins, this one) are none.
fn modules(stages: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>, String> {
    let entries = fs::read_dir(stages).map_err(|error| format!("failed to list {}: {error}", stages.display()))?;
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_file = path.is_file() && path.extension().is_some_and(|extension| extension == "rs");
        let is_folder = path.join("mod.rs").is_file();
        if (is_file && !["lib", "build"].contains(&stem.as_str())) || is_folder {
            let paths = found.entry(stem.clone()).or_default();
            let folder = stages.join(&stem);
            if is_file && folder.is_dir() && !folder.join("mod.rs").exists() {
                paths.push(folder);
            }
            paths.push(path);
        }
    }
    Ok(found)
}

/// The folders of `members` of the workspace, but the root and `stages` itself.
fn member_folders(root: &str) -> Vec<String> {
    let list = root.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    let folders = list.split(',').map(|one| one.trim().trim_matches('"').to_owned());
    folders.filter(|folder| !["", ".", "stages"].contains(&folder.as_str())).collect()
}

/// How many modules above a file of a stage the crate's root is: 1 for `stages/a.rs` and `stages/a/mod.rs`.
fn depth(name: &str) -> usize {
    let inside = name.trim_start_matches("stages/").trim_end_matches("/mod.rs");
    inside.split('/').count()
}

/// Where the modules that a file declares are.
fn module_folder(path: &Path) -> PathBuf {
    let is_root = path.file_name().is_some_and(|name| ["mod.rs", "lib.rs", "main.rs"].iter().any(|root| name == *root));
    if is_root { path.parent().unwrap_or(path).to_owned() } else { path.with_extension("") }
}

fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(clean.pop()),
            other => clean.push(other),
        }
    }
    clean
}

/// The first names of a path or of each path of a group, given the place behind the `::`.
fn heads<'a>(tokens: &[Token<'a>], at: usize) -> Vec<&'a str> {
    let Some(first) = tokens.get(at) else { return Vec::new() };
    if first.text != "{" {
        return vec![first.text];
    }
    let (mut depth, mut begins, mut found) = (0, true, Vec::new());
    for token in &tokens[at..] {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => begins = true,
            word if begins => {
                found.push(word);
                begins = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

/// A token of Rust, as far as it matters here: a word, a literal, or one character.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    /// Whether nothing stands between it and the one before.
    glued: bool,
}

/// The tokens of a source; comments and white space are what lies between them.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut at, mut glued) = (0, false);
    while let Some(first) = source[at..].chars().next() {
        let rest = &source[at..];
        let gap = if first.is_whitespace() { Some(first.len_utf8()) } else { comment(rest) };
        if let Some(length) = gap {
            at += length;
            glued = false;
            continue;
        }
        let length = literal(rest).unwrap_or_else(|| match word_length(rest) {
            0 => first.len_utf8(),
            length => length,
        });
        found.push(Token { text: &rest[..length], glued });
        at += length;
        glued = true;
    }
    found
}

/// The length of a comment that begins here.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(rest.len())
}

/// The length of a text or character literal that begins here.
fn literal(rest: &str) -> Option<usize> {
    let prefix = &rest[..word_length(rest)];
    let body = &rest[prefix.len()..];
    if ["", "b", "c"].contains(&prefix) && body.starts_with('"') {
        return Some(prefix.len() + quoted(body, '"'));
    }
    if ["r", "br", "cr"].contains(&prefix) {
        let hash_n = body.len() - body.trim_start_matches('#').len();
        let inside = body[hash_n..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hash_n));
        let length = inside.find(&end).map_or(inside.len(), |place| place + end.len());
        return Some(prefix.len() + hash_n + 1 + length);
    }
    if ["", "b"].contains(&prefix) && body.starts_with('\'') {
        let mut inside = body[1..].chars();
        return match (inside.next(), inside.next()) {
            (Some('\\'), _) | (Some(_), Some('\'')) => Some(prefix.len() + quoted(body, '\'')),
            // A lifetime.
            _ if prefix.is_empty() => Some(1 + word_length(&body[1..])),
            _ => None,
        };
    }
    None
}

/// The length of what stands between two quotes, with them.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn word_length(text: &str) -> usize {
    text.find(|character: char| !(character.is_alphanumeric() || character == '_')).unwrap_or(text.len())
}

/// The tokens as one text: a space wherever anything lay between two of them, so that `a - -b` is not `a --b`.
fn significant(tokens: &[Token<'_>]) -> String {
    let mut text = String::new();
    for token in tokens {
        if !token.glued {
            text.push(' ');
        }
        text.push_str(token.text);
    }
    text
}

/// Takes out every item behind `#[cfg(test)]`, and gives the names of the modules whose files it keeps for tests alone.
fn without_tests<'a>(tokens: Vec<Token<'a>>) -> (Vec<Token<'a>>, Vec<&'a str>) {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut modules) = (Vec::with_capacity(tokens.len()), Vec::new());
    let (mut at, mut glued) = (0, true);
    while at < tokens.len() {
        let is_mark =
            MARK.iter().enumerate().all(|(idx, text)| tokens.get(at + idx).is_some_and(|one| one.text == *text));
        match is_mark.then(|| item_end(&tokens, at + MARK.len())).flatten() {
            Some((end, module)) => {
                modules.extend(module);
                (at, glued) = (end, false);
            }
            None => {
                let token = tokens[at];
                kept.push(Token { glued: token.glued && glued, ..token });
                (at, glued) = (at + 1, true);
            }
        }
    }
    (kept, modules)
}

/// The place behind the item that begins here, and its name if it is a module in a file; nothing if it is no item.
fn item_end<'a>(tokens: &[Token<'a>], mut at: usize) -> Option<(usize, Option<&'a str>)> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    while text(at) == "#" && text(at + 1) == "[" {
        at = closing(tokens, at + 1)? + 1;
    }
    if text(at) == "pub" {
        at += 1;
        if text(at) == "(" {
            at = closing(tokens, at)? + 1;
        }
    }
    if text(at) == "mod" && text(at + 2) == ";" {
        return Some((at + 3, Some(text(at + 1))));
    }
    let ends_with_block = match (text(at), text(at + 1)) {
        ("const" | "unsafe" | "async" | "extern", "fn" | "unsafe" | "async" | "extern") => true,
        ("mod" | "fn" | "impl" | "trait" | "struct" | "enum" | "union" | "unsafe" | "macro_rules", _) => true,
        ("use" | "const" | "static" | "type", _) => false,
        _ => return None,
    };
    while at < tokens.len() {
        match text(at) {
            ";" => return Some((at + 1, None)),
            "{" if ends_with_block => return Some((closing(tokens, at)? + 1, None)),
            "{" | "(" | "[" => at = closing(tokens, at)? + 1,
            _ => at += 1,
        }
    }
    None
}

/// The place of the bracket that closes the one here.
fn closing(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let mut depth = 0;
    for (place, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(place);
        }
    }
    None
}

/// A `Cargo.toml`, as far as it matters here.
#[derive(Default)]
struct Manifest {
    package: String,
    version: String,
    /// By the word that names the crate in source code.
    dependencies: BTreeMap<String, Dependency>,
}

struct Dependency {
    package: String,
    /// What the manifests ask for: version requirement and features.
    declared: String,
}

impl Manifest {
    fn parse(own: &str, root: &str) -> Self {
        let value = |text: &str, section: &str, key: &str| {
            let found = section_entries(text, section).into_iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.trim_matches('"').to_owned()).unwrap_or_default()
        };
        let shared: BTreeMap<String, String> = section_entries(root, "workspace.dependencies").into_iter().collect();
        let mut dependencies = BTreeMap::new();
        for (written, own) in section_entries(own, "dependencies") {
            let name = written.trim_end_matches(".workspace").to_owned();
            let shared = shared.get(&name).cloned().unwrap_or_default();
            let renamed = [&own, &shared].into_iter().find_map(|text| {
                let (_, rest) = text.split_once("package = \"")?;
                rest.split('"').next().map(str::to_owned)
            });
            let package = renamed.unwrap_or_else(|| name.clone());
            let declared = format!("{name}: {own} / {shared}");
            dependencies.insert(name.replace('-', "_"), Dependency { package, declared });
        }
        Self {
            package: value(own, "package", "name"),
            version: value(root, "workspace.package", "version"),
            dependencies,
        }
    }
}

/// The entries of one section, each on one line or until its brackets are closed, without comments.
fn section_entries(text: &str, section: &str) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    let mut open = String::new();
    let mut is_inside = false;
    for line in text.lines() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if open.is_empty() && line.starts_with('[') {
            is_inside = line == format!("[{section}]");
            continue;
        }
        if !is_inside || line.is_empty() || line.starts_with('#') {
            continue;
        }
        open = format!("{open} {line}").trim().to_owned();
        let count = |characters: &[char]| open.matches(characters).count();
        if count(&['[', '{']) == count(&[']', '}'])
            && let Some((name, value)) = open.split_once('=')
        {
            entries.push((name.trim().to_owned(), value.trim().to_owned()));
            open.clear();
        }
    }
    entries
}

/// `Cargo.lock`, as far as it matters here.
struct Lock {
    /// By `name version`.
    packages: BTreeMap<String, Package>,
    /// A key by name; the lock file gives the version wherever there are several.
    by_name: BTreeMap<String, String>,
}

struct Package {
    /// Name, version and checksum.
    line: String,
    /// `name` or `name version` of what it needs.
    needs: Vec<String>,
}

impl Lock {
    fn parse(text: &str) -> Self {
        let (mut packages, mut by_name) = (BTreeMap::new(), BTreeMap::new());
        for block in text.split("[[package]]").skip(1) {
            let value = |key: &str| {
                let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
                line.unwrap_or_default().trim_matches('"').to_owned()
            };
            let (name, version) = (value("name"), value("version"));
            let listed = block.split_once("dependencies = [").and_then(|(_, rest)| rest.split_once(']'));
            let needs = listed.map_or("", |(list, _)| list).lines().map(|line| line.trim().trim_matches([',', '"']));
            let needs = needs.filter(|line| !line.is_empty()).map(str::to_owned).collect();
            let line = format!("{name} {version} {}", value("checksum"));
            let key = format!("{name} {version}");
            packages.insert(key.clone(), Package { line, needs });
            by_name.insert(name, key);
        }
        Self { packages, by_name }
    }

    /// The key of what `package` means by a dependency on `name`: the lock file gives the version where there are several.
    fn direct(&self, package: &str, name: &str) -> String {
        let own = self.find(package).map(|(_, package)| package);
        let needs = own.into_iter().flat_map(|own| &own.needs);
        let named = needs.into_iter().find(|need| need.split(' ').next() == Some(name));
        named.cloned().unwrap_or_else(|| name.to_owned())
    }

    /// The package that `name` or `name version` means.
    fn find(&self, need: &str) -> Option<(&String, &Package)> {
        // A third word, the registry, would stand there for one version from two registries.
        let key = self.by_name.get(need).map_or(need, String::as_str);
        self.packages.get_key_value(key)
    }

    /// The lines of these packages and of all that they need; packages of the workspace count by their sources instead.
    fn closure<'a>(&'a self, keys: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let (mut lines, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<&str> = keys.iter().copied().collect();
        while let Some(need) = open.pop() {
            let Some((key, package)) = self.find(need) else { continue };
            if key.starts_with("ecgpipe") || !seen.insert(key) {
                continue;
            }
            lines.insert(package.line.as_str());
            open.extend(package.needs.iter().map(String::as_str));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::{heads, significant, tokens, without_tests};

    fn counted(source: &str) -> String {
        significant(&without_tests(tokens(source)).0).trim().to_owned()
    }

    #[test]
    fn comments_and_white_space_do_not_count_outside_of_literals() {
        let plain = "fn f(a: &'a str) -> char { g(a, '\\'', \"x // y\", b'\"', r#\"/* \"# , 1.5e-3) }";
        let odd = "fn f(a: /* a /* b */ */ &'a str)\n    -> char // why\n{ g(a, '\\'', \"x // y\", b'\"', r#\"/* \"# , 1.5e-3)\n}\n";
        // Where something stands between two tokens stays visible, and nothing else does.
        assert_eq!(counted(plain).replace(' ', ""), counted(odd).replace(' ', ""));
        assert_eq!(counted("a  /* b */\n\tc"), "a c");
        for (one, other) in [("\"a b\"", "\"a  b\""), ("a && b", "a & & b"), ("'a'", "'b'"), ("r\"//a\"", "r\"//b\"")] {
            assert_ne!(counted(one), counted(other));
        }
    }

    #[test]
    fn what_is_compiled_for_tests_alone_does_not_count() {
        let source =
            "fn a() {} #[cfg(test)] #[expect(x, reason = \"}\")] pub(crate) mod tests { fn t() { '}'; } } fn b() {}
            #[cfg(test)] mod more; #[cfg(test)] use x::{y, z}; #[cfg(test)] const C: [u8; 2] = [1, 2]; fn c() {}";
        assert_eq!(counted(source), "fn a() {} fn b() {} fn c() {}");
        assert_eq!(without_tests(tokens(source)).1, ["more"]);
        let kept = "S { #[cfg(test)] field: 1 } #[cfg(all(test, x))] fn d() {} #[cfg(not(test))] fn e() {}";
        assert_eq!(counted(kept), kept);
    }

    #[test]
    fn the_first_names_of_a_group_are_found() {
        let tokens = tokens("{self, a::{b, c}, d as e, *}; x");
        assert_eq!(heads(&tokens, 0), ["self", "a", "d", "*"]);
        assert_eq!(heads(&tokens[1..], 0), ["self"]);
    }
}
