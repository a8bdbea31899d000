// SPDX-License-Identifier: MPL-2.0
//! Months in minutes: two cameras on one model whose videos run as fast as they can be watched, which end, fail and
//! are pulled out and come back, are asked all the while, and are stopped and thrown away with questions waiting.
//! Every question has to get its last word, what was saved has to be there again after each start, the video must
//! not stand still, and after a first part of the time the process must not grow.
//!
//! ```sh
//! make soak                       # ten minutes
//! SOAK_MINUTES=60 SOAK_SEED=7 make soak
//! ```

mod camera;
mod resident;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use gstreamer as gst;
use worlds::Rng;

use self::camera::{Camera, Counts};
use self::resident::Resident;

const DEFAULT_MINUTES: f64 = 10.0;
/// How long the process may grow; of a short run the first half.
const GROWING: Duration = Duration::from_secs(60);
/// By how much of what it was then it may be larger later; a run that is over before it has stopped growing
/// tells only whether it grows without end.
const TOLERANCE: f64 = 0.02;
const TOLERANCE_WHILE_GROWING: f64 = 0.25;
/// Without a new frame and a new answer for so long something stands still.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let outcome = soak();
    // SAFETY: nothing of GStreamer is used behind this. GST_TRACERS=leaks tells what is alive now.
    unsafe { gst::deinit() };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str, default: f64) -> Result<f64, String> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| format!("{name}={text} is not a number above 0"))
}

fn soak() -> Result<(), Box<dyn Error>> {
    let length = Duration::from_secs_f64(60.0 * number("SOAK_MINUTES", DEFAULT_MINUTES)?);
    let seed = number("SOAK_SEED", 1.0)? as u64;
    gst::init()?;
    gststreamkvqa::plugin_register_static()?;
    let mut rng = Rng::new(seed);
    let folder = tempfile::tempdir()?;
    let mut cameras =
        [Camera::start("door", folder.path())?, Camera::start("yard", folder.path())?];
    let started = Instant::now();
    let growing = GROWING.min(length / 2);
    let mut resident = Resident::new(started, growing);
    let mut report = Duration::ZERO;
    let mut progress = (Instant::now(), Counts::default());
    while started.elapsed() < length {
        for camera in &mut cameras {
            camera.hear(Duration::from_millis(20))?;
            camera.happen(&mut rng)?;
        }
        resident.look()?;
        let counts: Counts = cameras.iter().map(Camera::counts).sum();
        if counts.frames > progress.1.frames && counts.answers > progress.1.answers {
            progress = (Instant::now(), counts);
        } else if progress.0.elapsed() > PATIENCE {
            return Err(format!("nothing new for {PATIENCE:?}: {counts}").into());
        }
        if started.elapsed() >= report {
            let [door, yard] = cameras.each_ref().map(Camera::remembered);
            let seconds = started.elapsed().as_secs_f64();
            println!("{seconds:5.0} s  {counts}; {door}, {yard}; {resident}");
            report = started.elapsed() + length.div_f64(20.0);
        }
    }
    let counts: Counts = cameras.iter().map(Camera::counts).sum();
    for camera in cameras {
        camera.end()?;
    }
    println!("{:5.0} s  {counts}; {resident}", started.elapsed().as_secs_f64());
    let few = counts.connections < 4 || counts.starts < 3 || counts.restores < 1;
    if few || counts.questions < 10 {
        return Err(format!("too little has happened to prove anything: {counts}").into());
    }
    resident.verdict(if growing < GROWING { TOLERANCE_WHILE_GROWING } else { TOLERANCE })?;
    println!(
        "Nothing stood still, every question has had its last word, and the process did not grow."
    );
    Ok(())
}
