// SPDX-License-Identifier: MPL-2.0
//! The first part of `make soak`.

use std::process::Command;

/// As `make soak` sets them: what the C library keeps of memory that was given back to it, for threads that are
/// gone and below the highest peak so far, is no growth of ours.
const SETTINGS: [(&str, &str); 3] =
    [("SOAK_MINUTES", "0.6"), ("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")];
/// What is alive at its end is written to its standard error.
const TRACED: [(&str, &str); 3] =
    [("GST_TRACERS", "leaks"), ("GST_DEBUG", "GST_TRACER:7"), ("GST_DEBUG_NO_COLOR", "1")];

#[test]
fn half_a_minute_of_questions_reconnects_and_kills_leaves_the_process_as_large_as_it_was() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_soak")).envs(SETTINGS).envs(TRACED).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(!errors.contains("object-alive, type-name=(string)Gst"), "{errors}");
    assert!(text.contains("every question has had its last word"), "{text}");
}
