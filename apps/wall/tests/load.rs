// SPDX-License-Identifier: MPL-2.0
//! Sixteen cameras and fifty open pages: no camera is watched more slowly because of the pages. `make wall-load`
//! looks for five minutes, an ordinary test for WALL_LOAD_SECONDS (10).

#[path = "common/program.rs"]
mod program;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use program::{Wall, root};
use serde_json::Value;

const CAMERAS: usize = 16;
const PAGES: usize = 50;
/// Frames a second that each camera sends.
const RATE: f64 = 10.0;
/// Cameras without pages are looked at for so long at most.
const ALONE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);

fn cameras() -> String {
    let model = root().join("models/toyworld");
    let mut sections = String::new();
    for number in 1..=CAMERAS {
        writeln!(
            sections,
            "[[camera]]\nid = \"camera-{number:02}\"\nmodel = \"{}\"\nmemory = false\n\
             pipeline = \"videotestsrc is-live=true pattern=ball ! \
             video/x-raw,width=640,height=480,framerate=10/1\"",
            model.display()
        )
        .unwrap();
    }
    sections
}

fn request(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn state(address: &str) -> Vec<Value> {
    let mut text = String::new();
    request(address, "/api/state").read_to_string(&mut text).unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    let state: Value = serde_json::from_str(body).unwrap();
    state["cameras"].as_array().unwrap().clone()
}

/// What one open page receives.
#[derive(Default)]
struct Received {
    events: AtomicU64,
    pictures: AtomicU64,
}

/// Reads a stream that does not end by itself, and counts what begins with `mark`.
fn listen(
    mut stream: TcpStream,
    mark: &'static [u8],
    ends: Arc<AtomicBool>,
    count: impl Fn(u64) + Send + 'static,
) -> JoinHandle<()> {
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while !ends.load(Ordering::Relaxed) {
            match stream.read(&mut bytes) {
                Ok(0) => panic!("the wall has closed a stream"),
                Ok(read) => {
                    let found = bytes[..read].windows(mark.len()).filter(|window| *window == mark);
                    count(found.count() as u64);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
}

/// By camera: frames and dropped ones, and since when they are counted.
struct Count {
    at: Instant,
    of: BTreeMap<String, (u64, u64)>,
}

impl Count {
    fn now(address: &str) -> Self {
        let frames = |cameras: &[Value]| -> BTreeMap<String, (u64, u64)> {
            let one = |camera: &Value| {
                let health = &camera["health"];
                let number = |name: &str| health[name].as_u64().unwrap();
                (camera["id"].as_str().unwrap().to_owned(), (number("frames"), number("dropped")))
            };
            cameras.iter().map(one).collect()
        };
        Count { at: Instant::now(), of: frames(&state(address)) }
    }

    /// By camera: frames a second, and dropped ones in all.
    fn since(&self, before: &Count) -> BTreeMap<String, (f64, u64)> {
        let seconds = (self.at - before.at).as_secs_f64();
        let one = |(camera, (frames, dropped)): (&String, &(u64, u64))| {
            let (frames_before, dropped_before) = before.of[camera];
            let rate = (frames - frames_before) as f64 / seconds;
            (camera.clone(), (rate, dropped - dropped_before))
        };
        self.of.iter().map(one).collect()
    }
}

/// Processor time of a process so far, in seconds.
fn processor(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

#[test]
fn fifty_pages_slow_no_camera() {
    let seconds = std::env::var("WALL_LOAD_SECONDS").map_or(10, |seconds| seconds.parse().unwrap());
    let length = Duration::from_secs(seconds);
    let wall = Wall::start(&cameras());
    let address = wall.page.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let began = Instant::now();
    while !state(&address)
        .iter()
        .all(|camera| camera["state"] == "live" && camera["health"]["frames"].as_u64() > Some(20))
    {
        assert!(began.elapsed() < PATIENCE, "{:?}", state(&address));
        std::thread::sleep(Duration::from_millis(200));
    }

    let measure = |length: Duration| {
        let (before, busy) = (Count::now(&address), processor(wall.id()));
        std::thread::sleep(length);
        let after = Count::now(&address);
        let busy = (processor(wall.id()) - busy) / (after.at - before.at).as_secs_f64();
        (after.since(&before), busy)
    };
    let (alone, busy_alone) = measure(length.min(ALONE));

    let all =
        (1..=CAMERAS).map(|number| format!("camera-{number:02}")).collect::<Vec<_>>().join(",");
    let ends = Arc::new(AtomicBool::new(false));
    let pages: Vec<Arc<Received>> = (0..PAGES).map(|_| Arc::default()).collect();
    let mut threads = Vec::new();
    for page in &pages {
        let (events, pictures) = (page.clone(), page.clone());
        let stream = request(&address, "/api/events");
        threads.push(listen(stream, b"event:", ends.clone(), move |count| {
            events.events.fetch_add(count, Ordering::Relaxed);
        }));
        let stream = request(&address, &format!("/api/live?cameras={all}"));
        threads.push(listen(stream, b"--picture", ends.clone(), move |count| {
            pictures.pictures.fetch_add(count, Ordering::Relaxed);
        }));
    }
    let (watched, busy_watched) = measure(length);
    ends.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }

    let least = |of: fn(&Received) -> &AtomicU64| {
        pages.iter().map(|page| of(page).load(Ordering::Relaxed)).min().unwrap()
    };
    let (events, pictures) = (least(|page| &page.events), least(|page| &page.pictures));
    println!(
        "{PAGES} pages for {seconds} s: each had {events} events and {pictures} pictures at least"
    );
    println!(
        "the wall took {busy_alone:.2} of a processor without them, {busy_watched:.2} with them"
    );
    println!("camera      frames/s  dropped   with pages  dropped");
    for (camera, (rate, dropped)) in &alone {
        let (rate_watched, dropped_watched) = watched[camera];
        println!("{camera:10} {rate:9.2} {dropped:8} {rate_watched:12.2} {dropped_watched:8}");
    }

    // Statistics come every two seconds, so up to so many frames may be counted with the wrong stretch.
    let fuzzy = 2.0 * RATE / length.as_secs_f64();
    for (camera, (rate, dropped)) in &watched {
        let (rate_alone, dropped_alone) = alone[camera];
        assert!(
            *rate > rate_alone.min(RATE) * 0.97 - fuzzy,
            "{camera}: {rate} frames a second, alone {rate_alone}"
        );
        // The model is shown one frame a second.
        let more = dropped.saturating_sub(dropped_alone);
        assert!(more <= 1 + seconds / 50, "{camera}: {dropped} dropped, alone {dropped_alone}");
    }
    assert!(events as f64 > 0.3 * (seconds * CAMERAS as u64) as f64, "{events} events");
    assert!(pictures as f64 > 0.5 * (seconds * CAMERAS as u64) as f64, "{pictures} pictures");
}
