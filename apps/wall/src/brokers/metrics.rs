// SPDX-License-Identifier: MPL-2.0
//! What Prometheus reads at `/metrics`.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::broadcast::error::RecvError;

use crate::hub::{AlertState, BrokerState, CameraState, Event, Health, Hub, Source};

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Cameras that have numbers of their own; of more, only their states are counted.
const CAMERAS: usize = 1000;

/// Seconds. A small model answers within the first, a large one on a CPU within the last.
const FIRST_TOKEN: [f64; 10] = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAnswer {
    camera: String,
    source: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAlert {
    camera: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCamera {
    camera: String,
}

#[derive(Clone)]
struct Counts {
    answers: Family<OfAnswer, Counter>,
    alerts: Family<OfAlert, Counter>,
    first_token: Family<OfCamera, Histogram>,
    lost: Counter,
}

/// The numbers of one wall.
pub struct Metrics {
    registry: Registry,
    counting: tokio::task::JoinHandle<()>,
}

impl Metrics {
    /// Counts what comes through `own` from now on, and reads the state of `all` whenever it is asked. Needs
    /// a Tokio runtime.
    pub fn start(own: &Hub, all: &Hub) -> Self {
        let mut registry = Registry::with_prefix("streamkvqa_wall");
        let counts = Counts {
            answers: Family::default(),
            alerts: Family::default(),
            first_token: Family::new_with_constructor(|| Histogram::new(FIRST_TOKEN)),
            lost: Counter::default(),
        };
        registry.register(
            "build",
            "What runs here",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register("answers", "Questions that had their last word", counts.answers.clone());
        registry.register("alerts", "Alerts that began or ceased", counts.alerts.clone());
        registry.register_with_unit(
            "first_token",
            "From the asking to the first word",
            Unit::Seconds,
            counts.first_token.clone(),
        );
        registry.register(
            "events_lost",
            "Events that came too fast to be counted",
            counts.lost.clone(),
        );
        registry.register_collector(Box::new(Now { hub: all.clone() }));
        Metrics { registry, counting: tokio::spawn(count(own.clone(), counts)) }
    }

    /// All numbers in OpenMetrics' text form.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // A string takes all that is written into it.
            Err(_) => String::new(),
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.counting.abort();
    }
}

async fn count(hub: Hub, counts: Counts) {
    let mut events = hub.subscribe();
    loop {
        match events.recv().await {
            Ok(event) => counts.take(&event),
            Err(RecvError::Lagged(lost)) => {
                counts.lost.inc_by(lost);
            }
            Err(RecvError::Closed) => return,
        }
    }
}

impl Counts {
    fn take(&self, event: &Event) {
        match event {
            Event::Answer(answer) => {
                let of = OfAnswer {
                    camera: answer.camera.clone(),
                    source: source(answer.source),
                    result: if answer.error.is_some() { "error" } else { "ok" },
                };
                self.answers.get_or_create(&of).inc();
                if let Some(ms) = answer.first_token_ms.filter(|ms| ms.is_finite()) {
                    let of = OfCamera { camera: answer.camera.clone() };
                    self.first_token.get_or_create(&of).observe(ms / 1000.0);
                }
            }
            Event::Alert(alert) => {
                let state = match alert.state {
                    AlertState::On => "on",
                    AlertState::Off => "off",
                };
                self.alerts.get_or_create(&OfAlert { camera: alert.camera.clone(), state }).inc();
            }
            Event::Gone { camera } => self.forget(camera),
            _ => {}
        }
    }

    /// Cameras come and go; only those of now have numbers.
    fn forget(&self, camera: &str) {
        for source in [Source::Page, Source::Api, Source::Standing, Source::Broker, Source::Cluster]
        {
            for result in ["ok", "error"] {
                self.answers.remove(&OfAnswer {
                    camera: camera.into(),
                    source: self::source(source),
                    result,
                });
            }
        }
        for state in ["on", "off"] {
            self.alerts.remove(&OfAlert { camera: camera.into(), state });
        }
        self.first_token.remove(&OfCamera { camera: camera.into() });
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::Page => "page",
        Source::Api => "api",
        Source::Standing => "standing",
        Source::Broker => "broker",
        Source::Cluster => "cluster",
    }
}

/// What is read from the hub when it is asked for.
struct Now {
    hub: Hub,
}

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Now").finish_non_exhaustive()
    }
}

const STATES: [(CameraState, &str); 6] = [
    (CameraState::Starting, "starting"),
    (CameraState::Live, "live"),
    (CameraState::Stalled, "stalled"),
    (CameraState::Waiting, "waiting"),
    (CameraState::Stopped, "stopped"),
    (CameraState::Elsewhere, "elsewhere"),
];

/// A number of a camera's health: name, what it is, unit, whether it only grows, and where it stands.
type OfHealth = (&'static str, &'static str, Option<Unit>, bool, fn(&Health) -> f64);

#[allow(clippy::cast_precision_loss)] // Counts of this size are exact.
const HEALTH: [OfHealth; 6] = [
    ("frames", "Frames that came since the camera's pipeline was built", None, true, |h| {
        h.frames as f64
    }),
    ("frames_dropped", "Frames that waited too long for the model", None, true, |h| {
        h.dropped as f64
    }),
    ("frames_waiting", "Frames that wait for the model", None, false, |h| h.queue as f64),
    ("lag", "How far what is remembered lies behind what came", Some(Unit::Seconds), false, |h| {
        h.lag_s
    }),
    ("memory", "What is remembered", Some(Unit::Bytes), false, |h| h.memory_bytes as f64),
    ("memory_units", "Units of video that are remembered", None, false, |h| h.memory_units as f64),
];

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let state = self.hub.state();
        let mut cameras =
            encoder.encode_descriptor("cameras", "Cameras by state", None, MetricType::Gauge)?;
        for (which, name) in STATES {
            let count = state.cameras.iter().filter(|camera| camera.state == which).count();
            let count = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            count.encode(cameras.encode_family(&[("state", name)])?)?;
        }
        let here = || {
            state
                .cameras
                .iter()
                .filter(|camera| camera.state != CameraState::Elsewhere)
                .take(CAMERAS)
        };
        for (name, help, unit, grows, number) in &HEALTH {
            let name = format!("camera_{name}");
            let kind = if *grows { MetricType::Counter } else { MetricType::Gauge };
            let mut family = encoder.encode_descriptor(&name, help, unit.as_ref(), kind)?;
            for camera in here() {
                let number = number(&camera.health);
                let labels = [("camera", camera.id.as_str())];
                let of = family.encode_family(&labels)?;
                if *grows {
                    ConstCounter::new(number).encode(of)?
                } else {
                    ConstGauge::new(number).encode(of)?
                }
            }
        }
        let up = "Whether messages go out to another system";
        let mut connected =
            encoder.encode_descriptor("broker_connected", up, None, MetricType::Gauge)?;
        for broker in &state.brokers {
            let up = ConstGauge::new(i64::from(broker.state == BrokerState::Connected));
            up.encode(connected.encode_family(&[("broker", broker.name.as_str())])?)?;
        }
        let wait = "Messages that are not delivered yet";
        let mut waiting =
            encoder.encode_descriptor("broker_messages_waiting", wait, None, MetricType::Gauge)?;
        for broker in &state.brokers {
            let count = ConstGauge::new(i64::try_from(broker.waiting).unwrap_or(i64::MAX));
            count.encode(waiting.encode_family(&[("broker", broker.name.as_str())])?)?;
        }
        Ok(())
    }
}
