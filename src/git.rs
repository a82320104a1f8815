//! Owns what is known of the project's git work tree. Read by the `git` program, once a run; no git, no state.

use std::{path::Path, process::Command};

use serde::{Deserialize, Serialize};

/// The state of the code at the start of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitState {
    /// The commit, 40 hex characters.
    pub commit: String,
    /// The branch, or `(detached)`.
    pub branch: String,
    /// True when tracked files differ from the commit, but for those in the folders of what runs leave ([`OUTPUT_FOLDERS`]).
    pub dirty: bool,
}

/// Folders of the project that runs write to. A published model that is kept under git is no change of the code that makes
/// the next one.
const OUTPUT_FOLDERS: [&str; 4] = ["data", "models", "plots", "runs"];

/// Asks git; `None` outside a work tree, before the first commit, or without git.
#[must_use]
pub fn state(project: &Path) -> Option<GitState> {
    let output = Command::new("git")
        .arg("-C")
        .arg(project)
        .args(["--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", ":/"])
        .args(OUTPUT_FOLDERS.map(|folder| format!(":(exclude){folder}")))
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The address of the remote `origin`, for trackers; credentials are cut out.
#[must_use]
pub fn remote_url(project: &Path) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(project).args(["remote", "get-url", "origin"]).output().ok()?;
    let url = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || url.is_empty() {
        return None;
    }
    Some(match (url.split_once("://"), url.find('@')) {
        (Some((scheme, rest)), Some(_)) => {
            format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
        }
        _ => url,
    })
}

fn parse(status: &str) -> Option<GitState> {
    let header = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix("# branch.")?.strip_prefix(name)?.strip_prefix(' '))
    };
    let commit = header("oid").filter(|commit| commit.len() == 40)?.to_owned();
    let branch = header("head").unwrap_or("(detached)").to_owned();
    let dirty = status.lines().any(|line| !line.starts_with('#') && !line.is_empty());
    Some(GitState { commit, branch, dirty })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_publishes_is_no_change_of_the_code() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=n", "-c", "user.email=n@example.org"];
            let output = Command::new("git").arg("-C").arg(path).args(identity).args(arguments).output().expect("git");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let write = |name: &str, text: &str| std::fs::write(path.join(name), text).expect("written");
        std::fs::create_dir(path.join("models")).expect("a folder");
        write("models/m.onnx", "one");
        write("code.rs", "one");
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "-m", "first"]);
        let is_dirty = || state(path).expect("a state").dirty;
        assert!(!is_dirty());
        write("models/m.onnx", "two");
        assert!(!is_dirty());
        write("code.rs", "two");
        assert!(is_dirty());
    }

    #[test]
    fn reads_commit_branch_and_dirt() {
        let oid = "a".repeat(40);
        let clean = format!("# branch.oid {oid}\n# branch.head main\n");
        let state = parse(&clean).expect("a state");
        assert_eq!((state.commit.as_str(), state.branch.as_str(), state.dirty), (oid.as_str(), "main", false));
        let dirty = format!("{clean}1 .M N... 100644 100644 100644 aa bb README.md\n");
        assert!(parse(&dirty).expect("a state").dirty);
        assert_eq!(parse("# branch.oid (initial)\n# branch.head main\n"), None);
    }
}
