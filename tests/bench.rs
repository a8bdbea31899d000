// SPDX-License-Identifier: MPL-2.0
//! `examples/bench`, run as a user would run it, on shapes of a few hundred kilobytes.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::fixture;
use serde_json::Value;

fn bench(folder: &Path, args: &[&str]) -> Output {
    let program = std::env::current_exe().unwrap();
    let program = program.ancestors().nth(2).unwrap().join("examples/bench");
    let mut command = Command::new(program);
    command.current_dir(folder).args(args).output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

#[track_caller]
fn prints(output: &Output) -> String {
    let fault = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{fault}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn row<'a>(report: &'a Value, what: &str, stored: u64) -> &'a Value {
    let found = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["what"] == what && row["stored"].as_u64() == Some(stored));
    found.unwrap_or_else(|| panic!("no {what} at {stored} in {report:#}"))
}

#[test]
fn made_up_shapes_are_measured_written_down_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for shape in ["tiny", "tiny-qwen"] {
        let args = ["--shape", shape, "--repeat", "2", "--chunk", "4", "--frame-size", "64x48"];
        let with = |more: &[&str]| bench(folder, &[&args, more].concat());
        let more =
            ["--stored", "72,120", "--store", "q8", "--cameras", "2", "--json", "first.json"];
        let text = prints(&with(&more));
        assert!(text.contains("time of 2 cameras over one"), "{text}");
        let report: Value =
            serde_json::from_slice(&std::fs::read(folder.join("first.json")).unwrap()).unwrap();
        // What of a frame is the decoder's is left out where stages that run side by side leave nothing.
        for what in ["ingest", "first token", "decode", "memory of the video"] {
            for stored in [72, 120] {
                let row = row(&report, what, stored);
                assert!(row["value"].as_f64().unwrap() > 0.0 && row["method"] == "rekv", "{row}");
            }
        }
        assert!(report["about"]["model"].as_str().unwrap().starts_with(shape), "{report:#}");

        let text = prints(&with(&["--stored", "72,120", "--baseline", "first.json"]));
        let mut lines = text.lines().filter(|line| line.starts_with("memory of one more"));
        let line = lines.nth(1).unwrap();
        assert!(line.contains("rekv at 120"), "{line}");
        let times: f64 = line.rsplit_once("x ").unwrap().1.parse().unwrap();
        assert!((0.2..0.8).contains(&times), "f32 keys are no smaller than those of q8: {line}");
    }
}

#[test]
fn a_device_is_compared_with_the_cpu_and_what_is_off_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("ov-shrunk");
    let check = |more: &[&str]| {
        let args = ["check", model.to_str().unwrap(), "--device", "cpu", "--frames", "12"];
        bench(folder.path(), &[&args, more].concat())
    };
    let text = prints(&check(&["--method", "rekv,memstream", "--json", "check.json"]));
    assert!(text.contains("all 4 comparisons are right"), "{text}");
    let rows: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("check.json")).unwrap()).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["error"] == 0.0 && row["same_ids"] == true), "{rows:?}");

    let output = check(&["--method", "rekv", "--limit=-1"]);
    let fault = String::from_utf8_lossy(&output.stderr);
    assert_eq!(fault.trim(), "bench: 1 of 2 comparisons are off");
    assert!(!output.status.success());
}

#[test]
fn what_cannot_be_measured_is_one_line() {
    for (args, part) in [
        (vec![], "one of --model and --shape"),
        (vec!["--shape", "tiny", "--chunk", "0"], "at least 1"),
        (vec!["--shape", "tiny", "--method", "rekw"], "unknown method `rekw`"),
        (vec!["--shape", "tiny", "--set", "window=no"], "window"),
        (vec!["--shape", "tiny", "--load-limit", "0.001"], "is not below 0.001"),
    ] {
        let output = bench(Path::new("."), &args);
        let fault = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && fault.lines().count() == 1, "{args:?}: {fault}");
        assert!(fault.starts_with("bench: ") && fault.contains(part), "{args:?}: {fault}");
    }
}
