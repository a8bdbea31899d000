// SPDX-License-Identifier: MPL-2.0
//! The first part of `make soak`.

use std::process::Command;

/// As `make soak` sets them: what the C library keeps of memory that was given back to it, for threads that are
/// gone and below the highest peak so far, is no growth of ours.
const SETTINGS: [(&str, &str); 3] =
    [("SOAK_MINUTES", "0.6"), ("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

#[test]
fn half_a_minute_of_questions_reconnects_and_kills_leaves_the_process_as_large_as_it_was() {
    let output = Command::new(env!("CARGO_BIN_EXE_soak")).envs(SETTINGS).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("every question has had its last word"), "{text}");
}
