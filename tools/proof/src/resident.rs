// SPDX-License-Identifier: MPL-2.0
//! What of the process is in the machine's memory, while it grows and afterwards.

use std::fmt;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(500);

pub struct Resident {
    started: Instant,
    growing: Duration,
    next: Instant,
    now: u64,
    /// The most in kB while it might grow, and since.
    before: u64,
    after: u64,
}

impl Resident {
    pub fn new(started: Instant, growing: Duration) -> Self {
        Self { started, growing, next: started, now: 0, before: 0, after: 0 }
    }

    /// Looks now and then.
    pub fn look(&mut self) -> Result<(), String> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + EVERY;
        self.now = kilobytes()?;
        let most = match self.started.elapsed() < self.growing {
            true => &mut self.before,
            false => &mut self.after,
        };
        *most = self.now.max(*most);
        Ok(())
    }

    pub fn verdict(&self, tolerance: f64) -> Result<(), String> {
        let Self { before, after, growing, .. } = self;
        let bound = (*before as f64 * (1.0 + tolerance)) as u64;
        if *before == 0 || *after == 0 {
            return Err("too short a time to tell whether the process grows".into());
        }
        if *after > bound {
            return Err(format!(
                "{before} kB were resident at most in the first {growing:?}, {after} kB since: the process grows"
            ));
        }
        println!(
            "Resident: at most {before} kB in the first {growing:?}, at most {after} kB since."
        );
        Ok(())
    }
}

impl fmt::Display for Resident {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} kB resident", self.now)
    }
}

fn kilobytes() -> Result<u64, String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| "/proc/self/status does not say what is resident".into())
}
