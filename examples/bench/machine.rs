// SPDX-License-Identifier: MPL-2.0
//! What this process runs on, and what it takes of it.

use std::process::Command;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use gststreamkvqa::Result;
use rayon::prelude::*;

/// Seconds that all threads of this process have computed so far; 0 where there is no `/proc`.
pub fn cpu_time() -> f64 {
    /// Linux reports in hundredths of a second, whatever the kernel counts in.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before the closing bracket may hold blanks; user and system time are fields 14, 15.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

/// The most memory this process has held so far (`VmHWM`); Linux only.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// The processor, and how many of it.
pub fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} x {name}")
}

/// The device that computes.
pub fn device(device: &Device) -> String {
    if device.is_cpu() {
        return "CPU".into();
    }
    let asked = Command::new("nvidia-smi")
        .args(["--query-gpu=name,driver_version", "--format=csv,noheader"])
        .output();
    let answer = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    answer.ok().filter(|answer| !answer.is_empty()).unwrap_or_else(|| "CUDA".into())
}

/// Bytes a second that the device's memory moves: on a GPU, read and written, in a copy of half a
/// gigabyte; on the CPU, read by all threads. The best of some runs.
pub fn bandwidth(device: &Device) -> Result<f64> {
    const ELEMENTS: usize = 1 << 27;
    let bytes = 4.0 * ELEMENTS as f64;
    let mut best = f64::INFINITY;
    if device.is_cpu() {
        let values = vec![1f32; ELEMENTS];
        for _ in 0..6 {
            let started = Instant::now();
            let lanes = values.par_chunks(1 << 16).map(|part| {
                part.chunks_exact(64).fold([0f32; 64], |mut sums, lanes| {
                    sums.iter_mut().zip(lanes).for_each(|(sum, x)| *sum += x);
                    sums
                })
            });
            std::hint::black_box(lanes.map(|sums| sums.iter().sum::<f32>()).sum::<f32>());
            best = best.min(started.elapsed().as_secs_f64());
        }
        return Ok(bytes / best);
    }
    let from = Tensor::ones(ELEMENTS, DType::F32, device)?;
    for _ in 0..6 {
        device.synchronize()?;
        let started = Instant::now();
        let copy = from.copy()?;
        device.synchronize()?;
        best = best.min(started.elapsed().as_secs_f64());
        drop(copy);
    }
    Ok(2.0 * bytes / best)
}
