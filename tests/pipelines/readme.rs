// SPDX-License-Identifier: MPL-2.0
//! The README's commands, as they stand there.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Output};

use super::{ALIVE, TRACED, plugins, root};

/// The commands behind a dollar sign, each in one piece, that a part of them tells from others.
fn command(part: &str) -> String {
    let page = fs::read_to_string(root().join("README.md")).unwrap();
    let mut blocks = page.split("```console\n").skip(1);
    let block = blocks.find(|block| block.split("```").next().unwrap().contains(part));
    let block = block.unwrap_or_else(|| panic!("the README has no command with `{part}`"));
    let block = block.split("```").next().unwrap();
    block.trim().strip_prefix("$ ").expect("a command").to_owned()
}

/// Runs it in a folder that has what the repository has, for so many seconds if it does not end itself.
fn run(command: &str, seconds: u32) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["examples", "models", "pipelines"] {
        symlink(root().join(name), folder.path().join(name)).unwrap();
    }
    let output = Command::new("timeout")
        .args(["--signal=INT", "--kill-after=5", &seconds.to_string(), "sh", "-c", command])
        .current_dir(folder.path())
        .env("GST_PLUGIN_PATH", plugins())
        .envs(TRACED)
        .env_remove("DISPLAY")
        .env_remove("WAYLAND_DISPLAY")
        .output()
        .expect("sh starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    for bad in ["ERROR", "panicked", ALIVE] {
        assert!(!errors.contains(bad), "{command}\n{errors}");
    }
    (folder, output)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_question_every_three_seconds_is_answered_on_the_terminal() {
    let (_folder, output) = run(&command("text-format=json"), 110);
    let lines: Vec<serde_json::Value> =
        said(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 25, "{lines:?}");
    assert!(lines.iter().all(|line| line["status"] == "ok"), "{lines:?}");
}

#[test]
fn questions_at_set_times_become_subtitles() {
    let (folder, _output) = run(&command("srtenc"), 110);
    let subtitles = fs::read_to_string(folder.path().join("answers.srt")).unwrap();
    assert!(subtitles.matches("-->").count() >= 10, "{subtitles}");
}

#[test]
fn answers_are_written_into_a_picture() {
    // There is no display here.
    let command = command("autovideosink").replace("autovideosink", "fakesink");
    let (_folder, output) = run(&command, 110);
    assert!(said(&output).contains("Got EOS"), "{}", said(&output));
}

#[test]
fn a_camera_is_asked() {
    // No camera is here, and one that is a test picture for seven seconds will do.
    let command =
        command("v4l2src").replace("v4l2src", "videotestsrc is-live=true num-buffers=210");
    let (_folder, output) = run(&command.replace("DIR", "models/everyday"), 60);
    assert!(said(&output).contains("streamkvqa/answer"), "{}", said(&output));
}

#[test]
fn playbin_takes_the_element_as_a_filter() {
    let command = command("playbin").replace("-m playbin", "-m playbin video-sink=fakesink");
    let (_folder, output) = run(&command, 115);
    assert!(said(&output).contains("seen at"), "{}", said(&output));
}
