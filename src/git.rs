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
    /// True when tracked files differ from the commit.
    pub dirty: bool,
}

/// Asks git; `None` outside a work tree, before the first commit, or without git.
#[must_use]
pub fn state(project: &Path) -> Option<GitState> {
    let output = Command::new("git")
        .arg("-C")
        .arg(project)
        .args(["--no-optional-locks", "status", "--porcelain=v2", "--branch", "--untracked-files=no"])
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
