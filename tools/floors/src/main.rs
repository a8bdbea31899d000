// SPDX-License-Identifier: MPL-2.0
//! `floors [ROOT]`: prints what in ROOT (default: this repository) breaks the plan of the house,
//! `tools/floors/house.txt`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let root = std::env::args_os().nth(1).map_or_else(|| here.into(), PathBuf::from);
    match floors::check_repository(&root) {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("floors: {error}");
            ExitCode::FAILURE
        }
    }
}
