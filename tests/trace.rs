// SPDX-License-Identifier: MPL-2.0
//! `examples/trace`, run as a user would run it, on the Qwen2.5-VL fixtures: what it writes down is
//! what Hugging Face transformers answered. The fixtures' frames are in the file that it reads.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
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
        Self::on(model, questions, &fixture(model).join("expected.safetensors"))
    }

    /// With other frames; a relative path is meant from the folder of the run.
    fn on(model: &str, questions: &Value, frames: &Path) -> Self {
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
            .arg(frames);
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
    // The last frame has no partner yet: its unit is open, and the last answer saw it.
    assert_eq!(frames, [&json!([0, 2]), &json!([2, 4]), &json!([4, 5])]);
    let open: Vec<&Value> = units.iter().map(|unit| &unit["open"]).collect();
    assert_eq!(open, [&json!(false), &json!(false), &json!(true)]);
    assert_eq!((&units[1]["start"], &units[1]["end"]), (&json!(2.0), &json!(3.0)));
    for layer in stream["layers"].as_array().unwrap() {
        assert_eq!(layer["frames"], json!([[0, 2], [2, 4]]));
    }
    // When the first question came there was a unit and a frame, in the end two and a frame.
    for (asked, seconds) in trace["questions"].as_array().unwrap().iter().zip([2.0, 4.0]) {
        for layer in asked["layers"].as_array().unwrap() {
            assert_eq!(layer["retrieved"].as_array().unwrap().len(), 2, "{layer}");
        }
        let open = asked["open_units"].as_array().unwrap();
        assert_eq!((open.len(), &open[0]["end"]), (1, &json!(seconds)));
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

/// Every id that an answer names is explained, by the stream's units or by its own.
#[test]
fn no_id_is_left_unexplained() {
    for method in ["streamkv", "rekv", "auto", "full", "mukv"] {
        let asked = json!([
            {"question": "what?", "after_frame": 0, "max_tokens": 1},
            {"question": "what?", "after_frame": 3, "max_tokens": 1},
            {"question": "what?", "max_tokens": 1},
        ]);
        let (trace, _) = Run::new("qwen-wide", &asked).args(&["--method", method]).succeeds();
        let ids = |units: &Value| -> Vec<u64> {
            units.as_array().unwrap().iter().map(|unit| unit["id"].as_u64().unwrap()).collect()
        };
        let stored = ids(&trace["stream"]["units"]);
        for asked in trace["questions"].as_array().unwrap() {
            let open = ids(&asked["open_units"]);
            for layer in asked["layers"].as_array().unwrap() {
                for id in layer["retrieved"].as_array().unwrap() {
                    let id = id.as_u64().unwrap();
                    assert!(stored.contains(&id) || open.contains(&id), "{method}: {id}");
                }
            }
        }
    }
}

/// The message with which a run is refused, in one line.
#[track_caller]
fn refused(mut run: Run) -> String {
    let output = run.output();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !run.folder.path().join("trace.json").exists());
    assert!(!errors.contains("panicked"), "{errors}");
    errors
}

#[test]
fn a_rate_that_is_none_is_refused_by_name() {
    for fps in ["0", "-1", "NaN", "inf", "1e-400", "fast"] {
        let errors = refused(Run::new("qwen-wide", &json!([])).args(&[&format!("--fps={fps}")]));
        assert!(errors.contains("--fps") && errors.contains("positive number"), "{errors}");
    }
}

#[test]
fn files_that_are_not_what_they_should_be_are_told_what_was_expected() {
    let questions = [
        json!([{"question": "what?", "max_tokens": 1_000_000_000_000u64}]),
        json!([{"question": "what?", "max_tokens": 0}]),
        json!([{"question": "what?", "after_frame": 5}]),
        json!([{"question": "what?", "after": 5}]),
        json!([{"text": "what?"}]),
        json!({"question": "what?"}),
        json!("what?"),
        json!([{"question": 3}]),
    ];
    for asked in questions {
        let errors = refused(Run::new("qwen-wide", &asked));
        for part in ["trace: questions.json: ", "JSON list of {\"question\"", "max_tokens"] {
            assert!(errors.contains(part), "{asked}: {errors}");
        }
    }
    let tensor = |data: Vec<u8>, shape: &[usize]| {
        Tensor::from_vec(data, shape, &candle_core::Device::Cpu).unwrap()
    };
    let times = |times: &[f64]| Tensor::new(times, &candle_core::Device::Cpu).unwrap();
    let frames = || tensor(vec![7; 2 * 12], &[2, 2, 2, 3]);
    type Tensors = Vec<(&'static str, Tensor)>;
    let files: Vec<Tensors> = vec![
        vec![("pictures", frames())],
        vec![("frames", tensor(vec![7; 16], &[2, 2, 4]))],
        vec![("frames", tensor(vec![7; 16], &[1, 2, 2, 4]))],
        vec![("frames", frames().to_dtype(candle_core::DType::F32).unwrap())],
        vec![("frames", frames()), ("times", times(&[0.0]))],
        vec![("frames", frames()), ("times", times(&[0.0, f64::NAN]))],
        vec![("frames", frames()), ("times", tensor(vec![0, 1], &[2]))],
    ];
    for file in files {
        let what =
            format!("{:?}", file.iter().map(|(name, t)| (name, t.dims())).collect::<Vec<_>>());
        let run = Run::on("qwen-wide", &json!([]), Path::new("frames.safetensors"));
        let path = run.folder.path().join("frames.safetensors");
        let file: HashMap<&str, Tensor> = file.into_iter().collect();
        candle_core::safetensors::save(&file, &path).unwrap();
        let errors = refused(run);
        for part in ["trace: frames.safetensors: ", "u8 [n, h, w, 3]", "`times`, f64 [n]"] {
            assert!(errors.contains(part), "{what}: {errors}");
        }
    }
    let errors = refused(Run::on("qwen-wide", &json!([]), Path::new("questions.json")));
    assert!(errors.contains("questions.json: ") && errors.contains("u8 [n, h, w, 3]"), "{errors}");
    let errors = refused(Run::on("qwen-wide", &json!([]), Path::new("no.safetensors")));
    assert!(errors.contains("cannot read no.safetensors"), "{errors}");
}
