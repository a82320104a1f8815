//! Owns `ecgpipe stages new`: a stage that works, with a test that passes, to begin from.
//!
//! The skeletons are real files in `templates/`, of a stage named `new_stage`; writing one is replacing that name. So what is
//! written cannot differ from what is tested: `tests/skeletons.rs` compiles the Rust one as a module of its own and runs its
//! tests, and `tests/example_plugins.rs` runs the others as they are written.
//!
//! Invariant: nothing that exists is overwritten, and nothing is written unless all can be
//! (`nothing_is_written_over_or_by_halves`).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    cli::NewStage,
    commands::{Exit, Failure, Wiring, print},
    whole_file,
};

/// The name that stands in the templates, and as a type.
const PLACEHOLDER: &str = "new_stage";
const PLACEHOLDER_TYPE: &str = "NewStage";

const RUST: &str = include_str!("templates/rust/new_stage.rs");
const PYTHON: &[(&str, &str)] = &[
    ("stage.yaml", include_str!("templates/python/stage.yaml")),
    ("new_stage.py", include_str!("templates/python/new_stage.py")),
    ("test_new_stage.py", include_str!("templates/python/test_new_stage.py")),
    ("requirements.txt", include_str!("templates/python/requirements.txt")),
    ("README.md", include_str!("templates/python/README.md")),
];
const SH: &[(&str, &str)] = &[
    ("stage.yaml", include_str!("templates/sh/stage.yaml")),
    ("new_stage.sh", include_str!("templates/sh/new_stage.sh")),
    ("test_new_stage.sh", include_str!("templates/sh/test_new_stage.sh")),
    ("README.md", include_str!("templates/sh/README.md")),
];

/// Words that cannot be the name of a Rust module.
const RUST_WORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false final fn \
    for gen if impl in let loop macro match mod move mut override priv pub ref return self static struct super trait true try \
    type typeof unsafe unsized use virtual where while yield";

/// Words that cannot be the name of a Python module, and modules that a program of that name would hide from the libraries
/// that import them (Python looks into the program's folder first): the standard library of 3.11 and what the skeleton uses.
const PYTHON_WORDS: &str = "and as assert async await break class continue def del elif else except finally for from global \
    if import in is lambda nonlocal not or pass raise return try while with yield \
    abc aifc antigravity argparse array ast asynchat asyncio asyncore atexit audioop base64 bdb binascii bisect \
    builtins bz2 calendar cgi cgitb chunk cmath cmd code codecs codeop collections colorsys compileall concurrent \
    configparser contextlib contextvars copy copyreg crypt csv ctypes curses dataclasses datetime dbm decimal \
    difflib dis distutils doctest email encodings ensurepip enum errno faulthandler fcntl filecmp fileinput fnmatch \
    fractions ftplib functools gc genericpath getopt getpass gettext glob graphlib grp gzip hashlib heapq hmac html \
    http idlelib imaplib imghdr imp importlib inspect io ipaddress itertools json keyword lib2to3 linecache locale \
    logging lzma mailbox mailcap marshal math mimetypes mmap modulefinder msilib msvcrt multiprocessing netrc nis \
    nntplib nt ntpath nturl2path numbers opcode operator optparse os ossaudiodev pathlib pdb pickle pickletools \
    pipes pkgutil platform plistlib poplib posix posixpath pprint profile pstats pty pwd py_compile pyclbr pydoc \
    pydoc_data pyexpat queue quopri random re readline reprlib resource rlcompleter runpy sched secrets select \
    selectors shelve shlex shutil signal site smtpd smtplib sndhdr socket socketserver spwd sqlite3 sre_compile \
    sre_constants sre_parse ssl stat statistics string stringprep struct subprocess sunau symtable sys sysconfig \
    syslog tabnanny tarfile telnetlib tempfile termios textwrap this threading time timeit tkinter token tokenize \
    tomllib trace traceback tracemalloc tty turtle turtledemo types typing unicodedata unittest urllib uu uuid venv \
    warnings wave weakref webbrowser winreg winsound wsgiref xdrlib xml xmlrpc zipapp zipfile zipimport zlib \
    zoneinfo numpy pyarrow";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Rust,
    Python,
    Sh,
}

/// Files to write, with their content, and at most one to replace.
struct Skeleton {
    new: Vec<(PathBuf, String)>,
    replaced: Option<(PathBuf, String)>,
}

pub(super) fn new(args: &NewStage, wiring: &Wiring) -> Result<Exit, Failure> {
    let language = match (args.rust, args.python) {
        (true, _) => Language::Rust,
        (_, true) => Language::Python,
        _ => Language::Sh,
    };
    let name = args.name.as_str();
    check_name(name, language)?;
    if wiring.registry.get(name).is_some() || wiring.registry.refused().contains_key(name) {
        return Err(Failure::usage(format!("there is a stage `{name}` already"))
            .help(format!("choose another name, or see it: ecgpipe stages {name}")));
    }
    let skeleton = skeleton(Path::new("stages"), name, language)?;
    write(&skeleton)?;
    let written = skeleton.new.iter().map(|(path, _)| path).chain(skeleton.replaced.as_ref().map(|(path, _)| path));
    print(&written.map(|path| format!("{}\n", path.display())).collect::<String>());
    eprintln!("next: {}", next(name, language));
    Ok(Exit::Success)
}

fn next(name: &str, language: Language) -> String {
    match language {
        Language::Rust => format!(
            "cargo test --release -p ecgpipe-stages {name}, then renew pipelines/schema.json (ecgpipe stages --schema) and \
             the catalogue in stages/README.md (ecgpipe stages --catalogue)"
        ),
        Language::Python => format!("python3 stages/{name}/test_{name}.py; what it needs is in requirements.txt there"),
        Language::Sh => format!("sh stages/{name}/test_{name}.sh"),
    }
}

/// A name in snake_case that means nothing else in the language.
fn check_name(name: &str, language: Language) -> Result<(), Failure> {
    let snake = snake_case(name);
    if name != snake || name.is_empty() || name.len() > 64 {
        let failure = Failure::usage(format!("`{name}` cannot name a stage"));
        let rule = "a name has at most 64 small letters, digits and single `_` between words, and starts with a letter";
        return Err(failure.help(if snake.is_empty() || snake.len() > 64 || snake == name {
            rule.to_owned()
        } else {
            format!("{rule}: `{snake}`, for example")
        }));
    }
    let taken = match language {
        // A crate that the skeleton names as `name::`, or a type that it has.
        Language::Rust => {
            has_word(RUST_WORDS, name) || RUST.contains(&format!("{name}::")) || has_word(RUST, &camel_case(name))
        }
        Language::Python => has_word(PYTHON_WORDS, name),
        Language::Sh => false,
    };
    // `ecgpipe stages new` is this verb, so that a stage of the name could not be shown.
    if taken || name == "new" {
        return Err(Failure::usage(format!("`{name}` cannot name a stage: the word has another meaning"))
            .help(format!("take two words, for example `{name}_ecg`")));
    }
    Ok(())
}

/// The nearest name in snake_case; empty if nothing is left.
fn snake_case(text: &str) -> String {
    let mut snake = String::new();
    let mut after_small = false;
    for letter in text.chars() {
        if letter.is_ascii_uppercase() && after_small {
            snake.push('_');
        }
        after_small = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        snake.push(if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
    }
    let words: Vec<&str> = snake.split('_').filter(|word| !word.is_empty()).collect();
    words.join("_").trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '_').to_owned()
}

fn camel_case(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').any(|found| found == word)
}

/// Everything that is to be written, or why not.
fn skeleton(stages: &Path, name: &str, language: Language) -> Result<Skeleton, Failure> {
    let (folder, file) = (stages.join(name), stages.join(format!("{name}.rs")));
    if let Some(taken) = [&folder, &file].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::usage(format!("{} is there already", taken.display()))
            .help("choose another name; nothing is ever overwritten"));
    }
    let named = |text: &str| text.replace(PLACEHOLDER_TYPE, &camel_case(name)).replace(PLACEHOLDER, name);
    let files = match language {
        Language::Rust => {
            let list = stages.join("lib.rs");
            let registered = read_list(&list)?.and_then(|text| register(&text, name));
            let Some(registered) = registered else { return Err(no_list(name, &list)) };
            return Ok(Skeleton { new: vec![(file, named(RUST))], replaced: Some((list, registered)) });
        }
        Language::Python => PYTHON,
        Language::Sh => SH,
    };
    let new = files.iter().map(|(file, text)| (folder.join(named(file)), named(text))).collect();
    Ok(Skeleton { new, replaced: None })
}

fn read_list(list: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(list) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", list, &error)),
    }
}

fn no_list(name: &str, list: &Path) -> Failure {
    let camel = camel_case(name);
    Failure::usage(format!("this is no checkout of ecgpipe: {} is not its list of stages", list.display())).help(format!(
        "a stage in Rust is compiled into the program: go to the root of a checkout (or name it with -C). Where the list \
         looks otherwise, write stages/{name}.rs as stages/README.md tells and add `pub mod {name};` and \
         `add::<{name}::{camel}>(registry);`. Without a checkout, a stage is a folder: ecgpipe stages new {name} --python"
    ))
}

/// The list of stages with one more, both lines in the order of names; `None` if the text is not such a list.
fn register(list: &str, name: &str) -> Option<String> {
    let lines: Vec<&str> = list.lines().collect();
    let registered = |line: &str| Some(line.strip_prefix("    add::<")?.split_once("::")?.0.to_owned());
    let declared = |line: &str| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned());
    let stages: Vec<String> = lines.iter().filter_map(|line| registered(line)).collect();
    // Modules that are no stages stand in a block of their own.
    let is_stage = |line: &str| declared(line).is_some_and(|module| stages.contains(&module));
    let module_at = place(&lines, name, |line| declared(line).filter(|_| is_stage(line)))?;
    let add_at = place(&lines, name, registered)?;
    let (module, add) = (format!("pub mod {name};"), format!("    add::<{name}::{}>(registry);", camel_case(name)));
    let mut text = String::new();
    for (idx, line) in lines.iter().chain([&""]).enumerate() {
        for (at, new) in [(module_at, &module), (add_at, &add)] {
            if at == idx {
                text.push_str(new);
                text.push('\n');
            }
        }
        if idx < lines.len() {
            text.push_str(line);
            text.push('\n');
        }
    }
    Some(text)
}

/// Before which line a name goes: the first with a later name, else behind the last one that has a name.
fn place(lines: &[&str], name: &str, name_of: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let named: Vec<(usize, String)> =
        lines.iter().enumerate().filter_map(|(idx, line)| Some((idx, name_of(line)?))).collect();
    let later = named.iter().find(|(_, other)| other.as_str() > name).map(|(idx, _)| *idx);
    later.or_else(|| named.last().map(|(idx, _)| idx + 1))
}

/// Writes everything; what was written is taken back if a part of it fails.
fn write(skeleton: &Skeleton) -> Result<(), Failure> {
    let mut written: Vec<&Path> = Vec::new();
    let result = write_each(skeleton, &mut written);
    if result.is_err() {
        for path in written.iter().rev() {
            // What cannot be taken back is named by the error that stopped the writing, as the folder is.
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
    result
}

fn write_each<'a>(skeleton: &'a Skeleton, written: &mut Vec<&'a Path>) -> Result<(), Failure> {
    for (path, text) in &skeleton.new {
        let folder = path.parent().expect("every file of a skeleton lies below stages/");
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(|error| failed("make", folder, &error))?;
            written.push(folder);
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| failed("make", path, &error))?;
        written.push(path);
        file.write_all(text.as_bytes()).map_err(|error| failed("write", path, &error))?;
    }
    let Some((path, text)) = &skeleton.replaced else { return Ok(()) };
    let replace = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = whole_file::temporary(folder, ".ecgpipe-")?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    replace().map_err(|error| failed("replace", path, &error))
}

fn failed(act: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::environment(format!("failed to {act} {}: {error}", path.display()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;

    const LIST: &str = "\
pub mod aami;
pub mod zigzag;

pub mod detect_peaks;
pub mod window;

fn register(registry: &mut Registry) {
    add::<detect_peaks::DetectPeaks>(registry);
    add::<window::Window>(registry);
}
";

    /// Every file below a folder with its text.
    fn files(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.insert(path.display().to_string(), fs::read_to_string(&path).unwrap());
            }
        }
        found
    }

    fn refused(name: &str, language: Language) -> String {
        let failure = check_name(name, language).unwrap_err();
        format!("{}; {}", failure.message, failure.help.unwrap())
    }

    #[test]
    fn both_lines_go_where_their_names_belong() {
        for (name, before_module, before_add) in [
            ("abc", "pub mod detect_peaks;", "    add::<detect_peaks::DetectPeaks>(registry);"),
            ("median", "pub mod window;", "    add::<window::Window>(registry);"),
            ("zzz", "", "}"),
        ] {
            let text = register(LIST, name).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let after = |line: &str| lines[lines.iter().position(|found| *found == line).unwrap() + 1];
            assert_eq!(after(&format!("pub mod {name};")), before_module, "{name}");
            assert_eq!(after(&format!("    add::<{name}::{}>(registry);", camel_case(name))), before_add, "{name}");
            let others: Vec<&str> = lines.into_iter().filter(|line| !has_word(line, name)).collect();
            assert_eq!(others, LIST.lines().collect::<Vec<_>>(), "{name}");
        }
        assert_eq!(register("pub mod window;\n", "abc"), None);
        assert_eq!(register("", "abc"), None);
    }

    #[test]
    fn names_are_words_in_snake_case_without_another_meaning() {
        for name in ["denoise", "median_filter", "a2_b3"] {
            for language in [Language::Rust, Language::Python, Language::Sh] {
                assert!(check_name(name, language).is_ok(), "{name}");
            }
        }
        for (name, near) in [
            ("MedianFilter", "median_filter"),
            ("my-stage", "my_stage"),
            ("_a__b_", "a_b"),
            ("3d", "d"),
            ("QRSWidth", "qrswidth"),
        ] {
            let text = refused(name, Language::Sh);
            assert!(text.contains(&format!("`{near}`, for example")), "{text}");
        }
        for name in ["", "é", "..", &"x".repeat(65)] {
            assert!(!refused(name, Language::Sh).contains("for example"), "{name}");
        }
        assert!(refused("../up", Language::Sh).contains("`up`"));
        for (name, language) in [
            ("type", Language::Rust),
            ("serde", Language::Rust),
            ("beats", Language::Rust),
            ("signal", Language::Python),
            ("class", Language::Python),
            ("numpy", Language::Python),
            ("new", Language::Sh),
        ] {
            assert!(refused(name, language).contains("another meaning"), "{name}");
        }
    }

    #[test]
    fn no_trace_of_the_placeholder_is_left() {
        let stages = TempDir::new().unwrap();
        fs::write(stages.path().join("lib.rs"), LIST).unwrap();
        for (name, language) in [("in_rust", Language::Rust), ("in_python", Language::Python), ("in_sh", Language::Sh)]
        {
            write(&skeleton(stages.path(), name, language).unwrap()).unwrap();
        }
        let found = files(stages.path());
        assert_eq!(found.len(), 1 + 1 + PYTHON.len() + SH.len());
        for (path, text) in found {
            for placeholder in [PLACEHOLDER, PLACEHOLDER_TYPE] {
                assert!(!path.contains(placeholder) && !text.contains(placeholder), "{path}");
            }
        }
    }

    #[test]
    fn nothing_is_written_over_or_by_halves() {
        let stages = TempDir::new().unwrap();
        let list = stages.path().join("lib.rs");
        let refused = |name, language| skeleton(stages.path(), name, language).err().unwrap().message;
        assert!(refused("count", Language::Rust).contains("no checkout"));
        fs::write(&list, LIST).unwrap();
        fs::create_dir(stages.path().join("taken")).unwrap();
        fs::write(stages.path().join("other.rs"), "").unwrap();
        for name in ["taken", "other"] {
            for language in [Language::Rust, Language::Python, Language::Sh] {
                assert!(refused(name, language).contains("is there already"));
            }
        }
        let before = files(stages.path());

        // A file that appeared meanwhile: the others are taken back, and it stays.
        let late = skeleton(stages.path(), "late", Language::Python).unwrap();
        fs::create_dir(stages.path().join("late")).unwrap();
        fs::write(stages.path().join("late/requirements.txt"), "mine").unwrap();
        assert!(write(&late).is_err());
        assert_eq!(fs::read_to_string(stages.path().join("late/requirements.txt")).unwrap(), "mine");
        fs::remove_dir_all(stages.path().join("late")).unwrap();
        assert_eq!(files(stages.path()), before);

        // The list that cannot be replaced: the stage is taken back.
        let lost = skeleton(stages.path(), "lost", Language::Rust).unwrap();
        fs::remove_file(&list).unwrap();
        fs::create_dir(&list).unwrap();
        assert!(write(&lost).is_err());
        assert!(!stages.path().join("lost.rs").exists());
    }
}
