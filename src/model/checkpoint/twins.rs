// SPDX-License-Identifier: MPL-2.0
//! Folders of quantised weights, which are not read, and the name of the one that is: the same model as
//! it was published.

use std::path::Path;

use serde_json::Value;

/// What a quantised model's name has more than its twin's.
const ENDINGS: [&str; 15] = [
    "-gguf",
    "-awq",
    "-gptq",
    "-fp8",
    "-fp4",
    "-nvfp4",
    "-bnb-4bit",
    "-4bit",
    "-8bit",
    "-mlx",
    "-int4",
    "-int8",
    "-w8a8",
    "-w4a16",
    "-autoround",
];

/// Why a path that leads to a GGUF file, or to a folder of them, is not read; `None` of any other.
pub fn gguf(path: &Path) -> Option<String> {
    let is_gguf = |path: &Path| {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    };
    if path.is_dir() {
        let mut files = std::fs::read_dir(path).ok()?.filter_map(Result::ok);
        if path.join("config.json").exists() || !files.any(|entry| is_gguf(&entry.path())) {
            return None;
        }
    } else if !is_gguf(path) {
        return None;
    }
    Some(refusal("GGUF", path))
}

/// Why a model that is called so on the hub is not read, before anything is looked for or downloaded: such
/// folders hold nothing else.
pub fn gguf_by_name(name: &str) -> Option<String> {
    let name = name.split('@').next().unwrap_or(name);
    let is_gguf = name.to_ascii_lowercase().ends_with("-gguf");
    is_gguf.then(|| refusal("GGUF", Path::new(name)))
}

/// Why a folder whose config says that its weights are quantised is not read.
pub fn quantised(path: &Path, config: &Value) -> Option<String> {
    // What MLX says of its own, which names no method, it says twice.
    let places = [
        "/quantization_config",
        "/text_config/quantization_config",
        "/compression_config",
        "/quantization",
    ];
    let found = places.iter().find_map(|place| config.pointer(place).filter(|v| !v.is_null()))?;
    let own = if config.get("quantization").is_some() { "MLX" } else { "an unknown method" };
    let method = found.get("quant_method").and_then(Value::as_str).map(str::to_uppercase);
    Some(refusal(&method.unwrap_or_else(|| own.to_owned()), path))
}

fn refusal(method: &str, path: &Path) -> String {
    let twin = twin(path).map_or_else(
        || "the folder of the same model without quantisation".to_owned(),
        |name| format!("`{name}`, the same model without quantisation"),
    );
    format!("weights quantised by {method} are not read; take {twin}, and dtype=q8 for eight bits")
}

/// The name of the same model without quantisation, as far as that of a path tells.
fn twin(path: &Path) -> Option<String> {
    let names = path.components().rev().take(4).filter_map(|part| part.as_os_str().to_str());
    for name in names {
        // In the cache of the hub a folder is called after owner and name.
        let name = name.strip_prefix("models--").map_or(name.to_owned(), |n| n.replace("--", "/"));
        let lower = name.to_ascii_lowercase();
        // The first of them: a name may have two.
        let at = ENDINGS.iter().filter_map(|ending| lower.find(ending)).min();
        if let Some(twin) = at.and_then(|at| name.get(..at)).filter(|twin| !twin.is_empty()) {
            return Some(twin.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_so_on_the_hub_is_refused_by_name() {
        for name in ["unsloth/Qwen3-VL-2B-Instruct-GGUF", "a/Qwen3-VL-2B-Instruct-gguf@main"] {
            assert!(gguf_by_name(name).unwrap().contains("Qwen3-VL-2B-Instruct`"), "{name}");
        }
        assert_eq!(gguf_by_name("a/gguf-tools"), None);
    }

    #[test]
    fn a_twin_is_named_after_what_is_left_without_the_method() {
        for (path, expected) in [
            ("/models/Qwen3-VL-8B-Instruct-FP8", Some("Qwen3-VL-8B-Instruct")),
            ("Qwen2.5-VL-7B-Instruct-AWQ", Some("Qwen2.5-VL-7B-Instruct")),
            ("Qwen2-VL-7B-Instruct-GPTQ-Int4", Some("Qwen2-VL-7B-Instruct")),
            ("/x/Qwen3-VL-2B-Instruct-GGUF/Qwen3VL-2B-Q4_K_M.gguf", Some("Qwen3-VL-2B-Instruct")),
            (
                "/hub/models--unsloth--Qwen3-VL-2B-Instruct-bnb-4bit/snapshots/0123",
                Some("unsloth/Qwen3-VL-2B-Instruct"),
            ),
            ("/models/Qwen3-VL-4B-Instruct-4bit", Some("Qwen3-VL-4B-Instruct")),
            ("/models/Qwen3-VL-8B-Instruct-MLX-8bit", Some("Qwen3-VL-8B-Instruct")),
            ("/models/mine", None),
        ] {
            assert_eq!(twin(Path::new(path)).as_deref(), expected, "{path}");
        }
    }
}
