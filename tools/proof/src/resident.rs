// SPDX-License-Identifier: MPL-2.0
//! What of the process is in the machine's memory, while it may grow and afterwards.
//!
//! It breathes: two cameras that start at once hold more for a moment than two that wait. The largest of a thousand
//! looks is above the largest of a hundred even where nothing grows, so stretches of equal length are compared, by
//! their medians.

use std::fmt;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(250);
/// A stretch with fewer looks tells nothing.
const LOOKS: usize = 8;

pub struct Resident {
    started: Instant,
    growing: Duration,
    next: Instant,
    now: u64,
    /// In kB, by stretches of half the time in which it may grow.
    stretches: Vec<Vec<u64>>,
}

impl Resident {
    pub fn new(started: Instant, growing: Duration) -> Self {
        Self { started, growing, next: started, now: 0, stretches: Vec::new() }
    }

    /// Looks now and then.
    pub fn look(&mut self) -> Result<(), String> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + EVERY;
        self.now = kilobytes()?;
        let stretch = self.started.elapsed().as_secs_f64() / (self.growing / 2).as_secs_f64();
        if self.stretches.len() <= stretch as usize {
            self.stretches.resize_with(stretch as usize + 1, Vec::new);
        }
        self.stretches.last_mut().into_iter().for_each(|looks| looks.push(self.now));
        Ok(())
    }

    /// The last stretch in which it might grow is what the later ones are held against.
    pub fn verdict(&self, tolerance: f64) -> Result<(), String> {
        let enough = self.stretches.iter().filter(|looks| looks.len() >= LOOKS);
        let medians: Vec<u64> = enough.map(|looks| median(looks)).collect();
        let (Some(before), Some(after)) = (medians.get(1), medians.iter().skip(2).max()) else {
            return Err("too short a time to tell whether the process grows".into());
        };
        let told = format!(
            "{before} kB were resident when {:?} were over, later at most {after} kB \
             ({:+.1} %, medians of {:?})",
            self.growing,
            100.0 * (*after as f64 / *before as f64 - 1.0),
            self.growing / 2,
        );
        if *after as f64 > *before as f64 * (1.0 + tolerance) {
            return Err(format!("{told}: the process grows. All medians: {medians:?}"));
        }
        println!("Resident: {told}.");
        Ok(())
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} kB resident", self.now)
    }
}

fn median(looks: &[u64]) -> u64 {
    let mut looks = looks.to_owned();
    looks.sort_unstable();
    looks.get(looks.len() / 2).copied().unwrap_or_default()
}

fn kilobytes() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| "/proc/self/status does not say what is resident".into())
}
