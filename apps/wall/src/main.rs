// SPDX-License-Identifier: MPL-2.0
//! `streamkvqa-wall`: the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use streamkvqa_wall::config::Config;
use streamkvqa_wall::{HangUp, Wall};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Files and connections that may be open.
const FILES: u64 = 1 << 16;

/// A page for people who watch cameras: what they show, what is true now, and what was.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration (docs/wall.md)
    config: PathBuf,

    /// Say whether the configuration is right, and end
    #[arg(long)]
    check: bool,

    /// Open the page in a browser, where there is one
    #[arg(long)]
    open: bool,

    /// Folder for history, pictures and memories, in place of the configuration's
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or target=level with commas between them
    #[arg(long, default_value = "info", env = "WALL_LOG")]
    log: Targets,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    tracing_subscriber::registry().with(log).with(arguments.log.clone()).init();
    more_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(&arguments)),
        Err(error) => Err(error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), String> {
    let mut config = Config::read(&arguments.config).map_err(|faults| faults.to_string())?;
    if let Some(data) = &arguments.data {
        config.wall.data.clone_from(data);
    }
    if arguments.check {
        println!("{}: {} cameras, no fault", arguments.config.display(), config.cameras.len());
        return Ok(());
    }
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let hang_up = HangUp::listen();
    let wall = Wall::start(config).await.map_err(|error| error.to_string())?;
    let address = wall.address();
    let page = match address.ip() {
        ip if ip.is_unspecified() => format!("http://localhost:{}/", address.port()),
        _ => format!("http://{address}/"),
    };
    println!("The wall is at {page}");
    if arguments.open && has_display() {
        // Where no browser is, the line above has to do.
        let _ = open::that_detached(&page);
    }
    tokio::select! {
        () = wall.follow(&arguments.config, hang_up) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping; the memories are being saved");
    wall.stop().await;
    Ok(())
}

/// Every open page is an open file, and many systems allow 1024 where nothing is said.
fn more_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= FILES) {
        return;
    }
    limit.current = Some(limit.maximum.map_or(FILES, |most| most.min(FILES)));
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("no more files can be open than before: {error}");
    }
}

fn has_display() -> bool {
    cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some())
}
