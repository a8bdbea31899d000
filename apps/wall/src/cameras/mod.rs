// SPDX-License-Identifier: MPL-2.0
//! One pipeline a camera, watched over: states, retries, standing questions.
