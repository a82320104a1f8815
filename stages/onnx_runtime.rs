//! Chooses what computes an ONNX file: ONNX Runtime where it can be found or fetched, else tract, which is compiled in.

use std::path::Path;

use ecgpipe_nn::{Engine, Search};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What computes an ONNX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EngineChoice {
    /// ONNX Runtime if it is installed or can be fetched, else tract.
    Auto,
    /// ONNX Runtime or nothing.
    Onnxruntime,
    /// tract.
    Tract,
}

/// The engine of choice and what there is to say about it.
pub struct Chosen {
    /// The engine.
    pub engine: Engine,
    /// Why it is not the first choice; empty if it is.
    pub notes: Vec<String>,
}

/// Finds the engine. ONNX Runtime is looked for at `$ORT_DYLIB_PATH`, in `data/onnxruntime`, in the installed Python
/// package, and, unless `offline`, fetched from PyPI into `data/onnxruntime`.
///
/// # Errors
/// If ONNX Runtime was asked for and is not to be had; the text says what was tried.
pub fn choose(choice: EngineChoice, data_folder: &Path, offline: bool) -> Result<Chosen, String> {
    if choice == EngineChoice::Tract {
        return Ok(Chosen { engine: Engine::Tract, notes: Vec::new() });
    }
    let search = Search { cache_folder: Some(data_folder.join("onnxruntime")), ask_python: true, offline };
    let found = search.run();
    match (found.library, choice) {
        (Some(library), _) => Ok(Chosen { engine: Engine::Ort(library), notes: Vec::new() }),
        (None, EngineChoice::Onnxruntime) => Err(format!("ONNX Runtime was not found: {}", found.notes.join("; "))),
        (None, _) => {
            let mut notes =
                vec!["ONNX Runtime was not found; tract computes instead (equal to 1e-5, slower)".to_owned()];
            notes.extend(found.notes);
            Ok(Chosen { engine: Engine::Tract, notes })
        }
    }
}
