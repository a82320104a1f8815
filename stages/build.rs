//! Gives every stage the identity of its code, so that forgetting to bump a number is impossible; what it covers, what it
//! leaves out and why is told in [`identity`].

use std::{env, fs, path::PathBuf, process::Command};

#[path = "build/identity.rs"]
mod identity;

fn main() {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let workspace = here.parent().expect("stages/ lies in the workspace");
    println!("cargo:rerun-if-changed={}", here.display());

    let found = identity::identities(workspace, &toolchain(&variable)).unwrap_or_else(|problems| {
        panic!("the identity of the stages' code cannot be known:\n{}", problems.join("\n"))
    });
    for path in &found.watched {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let arms: String =
        found.by_module.iter().map(|(name, identity)| format!("        {name:?} => {identity:?},\n")).collect();
    let code = format!(
        "/// The identity of the code of the stage in module `name`, 64 hex characters.\n\
         fn code_identity(name: &str) -> &'static str {{\n    match name {{\n{arms}        _ => \"\",\n    }}\n}}\n"
    );
    let out = PathBuf::from(variable("OUT_DIR")).join("code_identity.rs");
    fs::write(&out, code).unwrap_or_else(|error| panic!("failed to write {}: {error}", out.display()));
}

/// What decides how floats are computed: the compiler's version and the target with its features (a fused multiply-add
/// rounds once, not twice), and the features of this package. Cargo runs this program again when one of them changes.
fn toolchain(variable: &dyn Fn(&str) -> String) -> String {
    let output = Command::new(variable("RUSTC")).arg("-vV").output();
    let output = output.unwrap_or_else(|error| panic!("failed to ask the compiler for its version: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The host is left out: a cross compiler makes the same code.
    let version = text.lines().filter(|line| !line.starts_with("host:") && !line.starts_with("binary:"));
    let mut features: Vec<String> = env::vars().map(|(name, _)| name).collect();
    features.retain(|name| name.starts_with("CARGO_FEATURE_"));
    features.sort();
    let parts = [variable("TARGET"), variable("CARGO_CFG_TARGET_FEATURE"), features.join(",")];
    version.map(str::to_owned).chain(parts).collect::<Vec<_>>().join("\n")
}
