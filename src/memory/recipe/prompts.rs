// SPDX-License-Identifier: MPL-2.0
//! The words that methods came with, as released.

/// StreamKV's guidance prompt, as released.
pub const STREAMKV_GUIDANCE: &str = "For this event segment in the video, please prioritize retaining \
the following visual information:1)Key objects, people, and their attributes, and any changes or \
transitions during the event.2)Major actions, state transitions, and interactions (e.g., who/what \
is doing what, when, and where), including the precise timing of key moments.3)On-screen text, \
numbers, and all visible cues (such as labels, scores, timer, signs, etc.).4)Causal relationships, \
outcome(s), anomalies, and salient shifts within the segment (e.g., cause-effect chains, rare or \
surprising events, turning points).5)Counts and spatial arrangements of important objects or \
people, as well as layout details that may support summarization, prediction, or sequential \
reasoning in later queries.6)Any misleading, ambiguous, or easily confused visual \
clues\u{2014}ensure enough context is preserved to distinguish the current event state from similar \
past/future states.";

/// ReKV's system message, as released.
pub const REKV_SYSTEM: &str = "You are a helpful assistant.";

/// StreamKV's system message, as released.
pub const STREAMKV_SYSTEM: &str = "You are a helpful assistant. Please actively track and remember \
current objects, actions, on-screen texts/numbers, temporal changes, and any anomalies. Focus on \
capturing key visual clues, filtering misleading or outdated context, and keep in mind prior key \
events to support sequential and time-critical queries or proactive outputs throughout the \
streaming video.";

/// HERMES's pseudo-queries, as released.
pub const HERMES_LOCAL: &str = "Describe the current scene in detail, focusing on specific objects, \
fine-grained actions, and spatial relationships.";
pub const HERMES_GLOBAL: &str = "Summarize the video narrative, identifying main characters, key \
events, timeline changes, and the overall theme.";

/// SAVEMem's pseudo-questions, as released.
pub const SAVEMEM_BANK: [&str; 5] = [
    "What objects are visible in the scene?",
    "How many items or people can be seen?",
    "What actions or events are happening?",
    "What has changed in the scene?",
    "Describe the spatial arrangement of objects.",
];
