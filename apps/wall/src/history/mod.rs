// SPDX-License-Identifier: MPL-2.0
//! Questions, answers, alerts and pictures of the past (SQLite).
