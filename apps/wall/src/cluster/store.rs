// SPDX-License-Identifier: MPL-2.0
//! The common store: two key-value buckets and an object store on one JetStream, made where they are not there.
//! Only what nats-server 2.9 has is used.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{Context, ContextBuilder};
use async_nats::jetstream::kv;
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::stream::{Config as Stream, DiscardPolicy, StorageType};
use bytes::Bytes;
use serde::Serialize;
use tokio::time::timeout;

/// How long a question and its answer are kept for walls that have been away.
const QUESTIONS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The store, and a connection to it that comes back by itself.
#[derive(Clone)]
pub(super) struct Store {
    pub client: Client,
    pub common: kv::Store,
    pub questions: kv::Store,
    pub memories: ObjectStore,
    /// First words of all subjects.
    pub subject: String,
}

/// How a write by revision ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It stands, with this revision.
    Yes(u64),
    /// Another was faster: the record has another revision than the one named.
    Late,
    /// Nobody knows: it may yet be written.
    Unknown(String),
}

impl Store {
    /// Finds the buckets of the cluster `name`, or makes them.
    ///
    /// # Errors
    ///
    /// What the server says, or that it does not answer.
    pub async fn open(client: Client, name: &str) -> Result<Self, String> {
        let context = ContextBuilder::new()
            .timeout(Duration::from_secs(3))
            .ack_timeout(Duration::from_secs(5))
            .build(client.clone());
        let common = bucket(&context, &format!("wall_{name}"), Duration::ZERO).await?;
        let questions = bucket(&context, &format!("wall_{name}_questions"), QUESTIONS_KEPT).await?;
        let name_of_memories = format!("wall_{name}_memories");
        let memories = match context.get_object_store(&name_of_memories).await {
            Ok(there) => there,
            Err(_) => {
                let config =
                    object_store::Config { bucket: name_of_memories, ..Default::default() };
                context.create_object_store(config).await.map_err(|error| plain(&error))?
            }
        };
        Ok(Store { client, common, questions, memories, subject: format!("wall.{name}") })
    }

    /// Whether the server is there.
    pub fn connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }
}

/// A bucket of newest values. It is made as a stream: the library's own way asks the server for its account
/// first, whose answer it does not understand where the server is older than 2.10.
async fn bucket(context: &Context, name: &str, kept: Duration) -> Result<kv::Store, String> {
    let stream = Stream {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        max_age: kept,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        num_replicas: 1,
        ..Stream::default()
    };
    context.get_or_create_stream(stream).await.map_err(|error| plain(&error))?;
    context.get_key_value(name).await.map_err(|error| plain(&error))
}

/// The first and the last of what an error says: between them it repeats itself.
pub(super) fn plain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Writes a record whose last revision is `revision` (0: there is none).
pub(super) async fn write(
    bucket: &kv::Store,
    key: &str,
    value: &impl Serialize,
    revision: u64,
    patience: Duration,
) -> Written {
    let Ok(bytes) = serde_json::to_vec(value) else {
        return Written::Unknown("it is no JSON".into());
    };
    match timeout(patience, bucket.update(key, Bytes::from(bytes), revision)).await {
        Ok(Ok(revision)) => Written::Yes(revision),
        Ok(Err(error)) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => Written::Late,
        Ok(Err(error)) => Written::Unknown(plain(&error)),
        Err(_) => Written::Unknown("the server does not answer".into()),
    }
}

/// A record as it stands, with its revision; the value is none where it has been deleted.
pub(super) async fn read<T: serde::de::DeserializeOwned>(
    bucket: &kv::Store,
    key: &str,
    patience: Duration,
) -> Result<Option<(u64, Option<T>)>, String> {
    match timeout(patience, bucket.entry(key)).await {
        Ok(Ok(Some(entry))) => Ok(Some((entry.revision, value(&entry)))),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(error)) => Err(plain(&error)),
        Err(_) => Err("the server does not answer".into()),
    }
}

/// The value of an entry; none where it has been deleted, or is of another making.
pub(super) fn value<T: serde::de::DeserializeOwned>(entry: &kv::Entry) -> Option<T> {
    (entry.operation == kv::Operation::Put)
        .then(|| serde_json::from_slice(&entry.value).ok())
        .flatten()
}
