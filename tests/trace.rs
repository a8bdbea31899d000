// SPDX-License-Identifier: MPL-2.0
//! `examples/trace`, run as a user would run it, on the Qwen2.5-VL fixtures: what it writes down is
//! what Hugging Face transformers answered. The fixtures' frames are in the file that it reads.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use candle_core::Tensor;
use common::{assert_close, fixture, tensors};
use serde_json::{Value, json};

/// A run of `trace` in a folder of its own.
struct Run {
    folder: tempfile::TempDir,
    command: Command,
}

impl Run {
    fn new(model: &str, questions: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("questions.json"), questions.to_string()).unwrap();
        let mut command = Command::new(program());
        command
            .current_dir(&folder)
            .args(["--questions", "questions.json"])
            .args(["--out", "trace.json", "--logits", "logits.safetensors"])
            .arg("--model")
            .arg(fixture(model))
            .arg("--frames")
            .arg(fixture(model).join("expected.safetensors"));
        Self { folder, command }
    }

    fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    fn output(&mut self) -> Output {
        self.command.output().unwrap_or_else(|e| panic!("{:?}: {e}", self.command.get_program()))
    }

    /// The trace and the logits of each answer's first token.
    #[track_caller]
    fn succeeds(mut self) -> (Value, HashMap<String, Tensor>) {
        let output = self.output();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?}: {}\n{errors}", self.command, output.status);
        let trace = fs::read(self.folder.path().join("trace.json")).unwrap();
        let logits = tensors(&self.folder.path().join("logits.safetensors"));
        (serde_json::from_slice(&trace).unwrap(), logits)
    }
}

/// Cargo builds the examples along with the tests; this test lies in `<target>/<profile>/deps`.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/trace")
}

fn expected(model: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(model).join("expected.json")).unwrap()).unwrap()
}

/// The fixture's questions after its last frame, as many tokens as it has answers of.
fn questions(expected: &Value) -> Value {
    let questions = expected["questions"].as_array().unwrap().iter();
    questions.map(|q| json!({"question": q["question"], "max_tokens": 12})).collect()
}

#[test]
fn keeping_everything_it_writes_down_what_transformers_answers() {
    for model in ["qwen-wide", "qwen-hub", "qwen-tree"] {
        let expected = expected(model);
        let stored = tensors(&fixture(model).join("expected.safetensors"));
        let fps = expected["fps"].to_string();
        for (rule, flags) in [("", &[][..]), ("compat_", &["--mrope-compat"])] {
            let run = Run::new(model, &questions(&expected));
            let run = run.args(&["--method", "full", "--fps", &fps]).args(flags);
            let (trace, logits) = run.succeeds();
            for (i, wanted) in expected["questions"].as_array().unwrap().iter().enumerate() {
                let (found, what) = (&trace["questions"][i], format!("{model} {rule}q{i}"));
                assert_eq!(found["question"], wanted["question"], "{what}");
                let mut ids = wanted[format!("{rule}greedy_ids")].as_array().unwrap().clone();
                let ended = wanted[format!("{rule}stopped_at_eos")] == true;
                if ended {
                    ids.pop();
                }
                assert_eq!(found["ids"], Value::from(ids), "{what}");
                assert_eq!(found["finish"], if ended { "stop" } else { "length" }, "{what}");
                let found: Vec<f32> = logits[&format!("q{i}")].to_vec1().unwrap();
                let rows = &stored[&format!("{rule}logits_q{i}")];
                let last = rows.get(rows.dims()[0] - 1).unwrap().to_vec1::<f32>().unwrap();
                assert_close(&found, &last, 1e-4, &what);
            }
        }
    }
}

/// Two frames a unit, and the fifth without a partner.
#[test]
fn it_says_what_each_layer_kept_retrieved_and_looked_at() {
    let asked = json!([
        {"question": "what?", "after_frame": 2, "max_tokens": 2},
        {"question": "What color was the ring?", "max_tokens": 2},
    ]);
    let run = Run::new("qwen-wide", &asked);
    let (trace, _) = run.args(&["--method", "rekv", "--set", "retrieve=2"]).succeeds();
    let options = trace["options"].as_array().unwrap();
    assert!(options.contains(&json!(["retrieve", "2"])), "{options:?}");

    let stream = &trace["stream"];
    assert_eq!((&stream["frames"], &stream["open_frames"]), (&json!(5), &json!(1)));
    let units = stream["units"].as_array().unwrap();
    let frames: Vec<&Value> = units.iter().map(|unit| &unit["frames"]).collect();
    assert_eq!(frames, [&json!([0, 2]), &json!([2, 4])]);
    assert_eq!((&units[1]["start"], &units[1]["end"]), (&json!(2.0), &json!(3.0)));
    for layer in stream["layers"].as_array().unwrap() {
        assert_eq!(layer["frames"], json!([[0, 2], [2, 4]]));
    }
    // When the first question came there was a unit and a frame, in the end two and a frame.
    for (asked, seconds) in trace["questions"].as_array().unwrap().iter().zip([2.0, 4.0]) {
        for layer in asked["layers"].as_array().unwrap() {
            assert_eq!(layer["retrieved"].as_array().unwrap().len(), 2, "{layer}");
        }
        let evidence = asked["evidence"].as_array().unwrap();
        let ends = evidence.iter().map(|e| e["end"].as_f64().unwrap());
        assert!(!evidence.is_empty() && ends.clone().all(|end| end <= seconds), "{evidence:?}");
        assert!(asked["milliseconds"]["first_token"].as_f64().unwrap() > 0.0);
    }
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_that_this_build_cannot_use_is_one_line() {
    let mut run = Run::new("qwen-wide", &json!([])).args(&["--device", "cuda"]);
    let output = run.output();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.lines().count()), (Some(1), 1), "{errors}");
    assert!(errors.starts_with("trace: device `cuda:0`: this build has no CUDA"), "{errors}");
    assert!(errors.contains("--features cuda"), "{errors}");
    assert!(!run.folder.path().join("trace.json").exists());
}
