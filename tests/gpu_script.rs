// SPDX-License-Identifier: MPL-2.0
//! `tools/gpu/run.sh` where there is no GPU: every step runs on a tiny shape, and the table says that
//! none of it counts.

#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn the_script_for_a_gpu_runs_as_far_as_it_can_without_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let test = std::env::current_exe().unwrap();
    let bench = test.ancestors().nth(2).unwrap().join("examples/bench");
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(root.join("tools/gpu/run.sh"));
    // No `nvidia-smi`: whoever has a GPU is to see the same here.
    let hidden = out.path().join("hidden");
    std::fs::create_dir(&hidden).unwrap();
    std::os::unix::fs::symlink("/bin/false", hidden.join("nvidia-smi")).unwrap();
    let path = format!("{}:{}", hidden.display(), std::env::var("PATH").unwrap());
    let output = command.arg(out.path()).env("BENCH", bench).env("PATH", path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let log = std::fs::read_to_string(out.path().join("log.txt")).unwrap();
    assert!(output.status.success(), "{text}\n{log}");

    let results = std::fs::read(out.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&results).unwrap();
    for step in ["check", "device", "host", "cameras", "q4", "long"] {
        assert!(text.contains(&format!("== {step}: status 0 ")), "{step}: {text}\n{log}");
        assert!(!results[step].is_null(), "{step}: {results:#}");
    }
    let found = |step: &str, what: &str, method: &str| {
        let rows = results[step]["rows"].as_array().unwrap().iter();
        let mut rows = rows.filter(|row| row["what"] == what && row["method"] == method);
        assert!(
            rows.any(|row| row["value"].as_f64().unwrap() > 0.0),
            "{step}: no {what}, {method}"
        );
    };
    for method in ["rekv", "streamkv", "auto"] {
        found("device", "first token", method);
        found("device", "decode over the memory roofline", method);
    }
    found("host", "first token", "rekv");
    found("q4", "memory of one more frame", "streamkv");
    found("cameras", "time of 4 cameras over one", "rekv");
    found("long", "time of a frame over that at 30", "rekv");

    let table = std::fs::read_to_string(out.path().join("table.txt")).unwrap();
    assert!(text.ends_with(&table), "{text}");
    let equal = table.lines().find(|line| line.starts_with("toyworld         f32 ")).unwrap();
    let (right, of) = equal[20..].trim().split_once(" of ").unwrap();
    assert!(of.starts_with(&format!("{right} methods within the limit")), "{equal}");
    assert!(right.parse::<usize>().unwrap() >= 15, "{equal}");
    assert!(table.contains("GOALS (no device: nothing measured counts)"), "{table}");
    // The rows of the goals end with the goal: what a CPU measured is not held against them.
    let goal = table.lines().find(|line| line.starts_with("first token, auto")).unwrap();
    assert!(goal.ends_with("<= 100 ms"), "{goal}");
}
