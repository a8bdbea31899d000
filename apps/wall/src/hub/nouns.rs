// SPDX-License-Identifier: MPL-2.0
//! Cameras, questions, answers, alerts, brokers, as they go over the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The name of an asking: unique over all machines, and later ones are greater.
pub type AnswerId = String;

/// A new [`AnswerId`].
pub fn new_id() -> AnswerId {
    uuid::Uuid::now_v7().simple().to_string()
}

/// A camera on the wall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Camera {
    /// Short: a-z, 0-9, `-` and `_`.
    pub id: String,
    /// For people.
    pub name: String,
    /// How it is.
    pub state: CameraState,
    /// Why it is not `live`, and what helps.
    pub reason: Option<String>,
    /// When it is tried again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try: Option<Timestamp>,
    /// Since when `state` is so.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Which wall watches it.
    pub host: String,
    /// How its picture can be had.
    pub live: Live,
    /// The questions that stand.
    pub standing: Vec<Standing>,
    /// How it is doing.
    pub health: Health,
}

/// How a camera is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CameraState {
    /// It has been asked for video, and none has come yet.
    Starting,
    /// Video comes, and questions are answered.
    Live,
    /// It was live, and no frame has come for a while.
    Stalled,
    /// It failed and is tried again (`next_try`).
    Waiting,
    /// It is not watched, and will not be by itself.
    Stopped,
    /// Another machine watches it (`host`).
    Elsewhere,
}

/// How a camera's picture can be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Live {
    /// WebRTC, at `/api/cameras/{id}/whep`.
    pub whep: bool,
    /// JPEG pictures, at `/api/cameras/{id}/live.mjpeg` and `live.jpg`.
    pub mjpeg: bool,
}

/// A question that is asked again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// Unique at its camera.
    pub id: String,
    /// Its words.
    pub question: String,
    /// Seconds between askings.
    pub every: Option<f64>,
    /// What else it is asked on.
    pub on: On,
    /// The answers that the model decides between; none: any words.
    #[serde(default)]
    pub choices: Vec<String>,
    /// The answer whose beginning and end are alerts.
    pub when: Option<String>,
    /// Seconds for which answers must say so before it is believed.
    pub for_s: Option<f64>,
    /// Seconds after an alert until there is another.
    pub cool_down_s: Option<f64>,
    /// Its newest answer.
    pub state: Option<String>,
    /// How sure the model was of that, 0 to 1, by its own opinion.
    pub confidence: Option<f32>,
    /// Since when the answer is this.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
}

/// What a standing question is asked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Every so many seconds.
    #[default]
    Time,
    /// Whenever the picture changes.
    Change,
    /// Both.
    Both,
    /// Whenever a detector in the camera's pipeline has seen something.
    Detection,
}

/// How a camera is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Seconds that what is remembered lies behind what came.
    pub lag_s: f64,
    /// Frames that came since the camera's pipeline was built.
    pub frames: u64,
    /// Of those looked at, frames that waited too long for the model.
    pub dropped: u64,
    /// Frames that wait for the model.
    pub queue: u64,
    /// Half of the answers began within so many milliseconds.
    pub first_token_p50_ms: Option<f64>,
    /// 95 % of them did.
    pub first_token_p95_ms: Option<f64>,
    /// What is remembered, in bytes.
    pub memory_bytes: u64,
    /// The same in units of video.
    pub memory_units: u64,
    /// The same by age, the newest first, where the element tells it.
    pub tiers: Vec<Tier>,
}

/// What is remembered up to an age.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tier {
    /// Seconds; the oldest in it.
    pub age_s: f64,
    /// Its share of `memory_bytes`.
    pub bytes: u64,
    /// Its share of `memory_units`.
    pub units: u64,
}

/// A question asked once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Its words.
    pub text: String,
    /// Where the stretch of video that it is about begins; none: at the first that is remembered.
    pub from: Option<Timestamp>,
    /// Where it ends; none: now.
    pub to: Option<Timestamp>,
    /// Who asks.
    pub source: Source,
    /// The answers that the model decides between; none: any words.
    #[serde(default)]
    pub choices: Vec<String>,
    /// The name that its answer is to have; none: a new one. For a question that was asked at another machine.
    #[serde(default)]
    pub id: Option<AnswerId>,
}

/// Who asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Somebody at the page.
    Page,
    /// A program.
    #[default]
    Api,
    /// A standing question.
    Standing,
    /// MQTT or NATS.
    Broker,
    /// Another machine.
    Cluster,
}

/// A stretch of video that an answer rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// Its first moment.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Its end.
    #[schema(value_type = String, format = DateTime)]
    pub to: Timestamp,
    /// Its share of the model's attention.
    pub score: Option<f32>,
    /// A picture of it, at `/api/pictures/{key}.jpg`.
    pub picture: Option<String>,
}

/// A question's last word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Unique over all machines, and later ones are greater.
    pub id: AnswerId,
    /// [`Camera::id`].
    pub camera: String,
    /// What was asked.
    pub question: String,
    /// What was answered; empty where `error` says why not.
    pub text: String,
    /// How sure the model was, 0 to 1, by its own opinion.
    pub confidence: Option<f32>,
    /// Which of the question's choices `text` is.
    pub choice: Option<String>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub asked: Timestamp,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub answered: Timestamp,
    /// Milliseconds from the asking to the first word.
    pub first_token_ms: Option<f64>,
    /// The heaviest first.
    pub evidence: Vec<Evidence>,
    /// Who asked.
    pub source: Source,
    /// Which of the camera's standing questions it answers.
    pub standing: Option<String>,
    /// Why there is no answer.
    pub error: Option<String>,
}

impl Answer {
    /// A last word that says why there is no answer.
    pub fn none(
        id: AnswerId,
        camera: &str,
        question: &Question,
        asked: Timestamp,
        why: impl Into<String>,
    ) -> Self {
        Answer {
            id,
            camera: camera.to_owned(),
            question: question.text.clone(),
            text: String::new(),
            confidence: None,
            choice: None,
            asked,
            answered: Timestamp::now(),
            first_token_ms: None,
            evidence: Vec::new(),
            source: question.source,
            standing: None,
            error: Some(why.into()),
        }
    }
}

/// What a standing question watches for has begun or ceased.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// Unique over all machines, and later ones are greater.
    pub id: String,
    /// [`Camera::id`].
    pub camera: String,
    /// [`Standing::id`].
    pub standing: String,
    /// Its words.
    pub question: String,
    /// Which of the two.
    pub state: AlertState,
    /// The answer that said so.
    pub answer: String,
    /// How sure the model was, 0 to 1, by its own opinion.
    pub confidence: Option<f32>,
    /// Since when it is so.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The heaviest first.
    pub evidence: Vec<Evidence>,
}

/// The newest alert of a standing question: what everyone has been told last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastAlert {
    /// Of a beginning or of an end.
    pub alert: Alert,
    /// When a beginning was last told.
    pub began: Option<Timestamp>,
}

/// Whether an alert begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It has begun.
    On,
    /// It has ceased.
    Off,
}

/// A connection to another system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Broker {
    /// Unique on this wall.
    pub name: String,
    /// What it is.
    pub kind: BrokerKind,
    /// How it is.
    pub state: BrokerState,
    /// Why it is not connected, and what helps.
    pub reason: Option<String>,
    /// When it is tried again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_try: Option<Timestamp>,
    /// Messages that are not delivered yet.
    pub waiting: u64,
}

/// What another system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrokerKind {
    /// An MQTT broker.
    Mqtt,
    /// A web address.
    Webhook,
    /// A NATS server.
    Nats,
    /// The walls of other machines.
    Cluster,
    /// The disk that the history is on.
    History,
    /// The configuration file.
    Config,
}

/// How a connection to another system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrokerState {
    /// Messages go out.
    Connected,
    /// It is being tried for the first time.
    Connecting,
    /// It failed and is tried again (`next_try`).
    Failed,
}
