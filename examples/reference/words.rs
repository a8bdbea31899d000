// SPDX-License-Identifier: MPL-2.0
//! What is to be said of what the element has: an example of each property, signal and event, and the
//! meaning of each field. What the element has and nobody has words for is an error.

pub const OPENING: &str = "\
<!-- SPDX-License-Identifier: MPL-2.0 -->
<!-- Written by `make inspect` from the element itself (examples/reference). -->
# The element `streamkvqa`

```
video/x-raw(ANY) --> sink  streamkvqa  src --> video/x-raw(ANY), untouched
                                       text --> text/x-raw, format=utf8 (on request)
```

A filter that passes video and answers questions about it. [Five minutes](../README.md#five-minutes) shows it at
work, [Pipelines](pipelines.md) what to watch for; this page lists all that it has. The fields of a question are
in [Questions](../README.md#questions).
";

/// The manual page in place of that: it stands alone, and where packages have put things.
pub const MANUAL_OPENING: &str = r#"
## Name

streamkvqa - a GStreamer element that answers questions about the video passing through it

## Synopsis

```
gst-launch-1.0 ... ! streamkvqa model-path=MODEL [PROPERTY=VALUE] ... ! ...

video/x-raw(ANY) --> sink  streamkvqa  src --> video/x-raw(ANY), untouched
                                       text --> text/x-raw, format=utf8 (on request)
```

## Description

A filter that passes video untouched, shows about a frame a second to a Video-LLM, and keeps what the model saw
as a compact memory. Asked anything, at any time, it answers from everything seen so far and says which seconds the
answer rests on, while the video plays on. Answers are messages on the bus, signals, buffers on the pad `text` and meta
on video buffers.

`MODEL` is a Hugging Face folder, a name on the hub such as `hf:Qwen/Qwen3-VL-2B-Instruct`, or an
installed model. Installed with the element is `everyday`: small, and of use for trying things out.

## Examples

What is to be seen in a clip that comes with the package, asked every three seconds:

```
gst-launch-1.0 -q \
  filesrc location=/usr/share/doc/gstreamer1.0-streamkvqa/examples/everyday.webm ! \
  decodebin ! streamkvqa name=qa model-path=everyday question="what is here now?" \
    question-interval=3000000000 text-format=json ! fakesink \
  qa.text ! fdsink sync=false
```

A camera, and answers as messages on the terminal:

```
gst-launch-1.0 -m rtspsrc location=rtsp://camera/stream ! decodebin ! \
  streamkvqa model-path=hf:Qwen/Qwen3-VL-2B-Instruct allow-download=true \
    question="is anyone at the door?" question-interval=5000000000 ! \
  fakesink
```
"#;

/// What else it heeds.
pub const SURROUNDINGS: &str = r#"
## Environment and files

| variable | |
|---|---|
| `STREAMKVQA_MODEL` | the `model-path` of elements that have none |
| `STREAMKVQA_MODELS` | folders of models that `model-path` names without a way to them, with colons between them; before `streamkvqa/models` in `XDG_DATA_HOME` (`~/.local/share`) and `XDG_DATA_DIRS` (`/usr/local/share:/usr/share`) |
| `HF_HUB_CACHE`, `HF_HOME` | the Hugging Face cache, in which `hf:owner/name` is looked up |
| `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` | another server for downloads, access to gated models, `1` for no downloads at all |
| `GST_DEBUG` | `streamkvqa*:6` logs each frame taken, question asked and answer given |
"#;

pub const MANUAL_END: &str = r#"
## See also

gst-launch-1.0(1), gst-inspect-1.0(1). `gst-inspect-1.0 streamkvqa` lists the options of all methods.
"#;

pub const EVENTS: &str = r#"
## Events

Custom events, upstream or downstream, serialised or not. With a field `element` only the element of that name
listens. An upstream event that reaches it from several sinks counts once.

| event | | |
|---|---|---|
| `streamkvqa/ask` | asks; the fields are those of `ask-full` | `gst_event_new_custom (GST_EVENT_CUSTOM_UPSTREAM, gst_structure_from_string ("streamkvqa/ask, question=\"what happened?\"", NULL))` |
| `streamkvqa/trigger` | the next frame is shown to the model, and the questions with `"on": "detection"` are asked of it | `gst_structure_from_string ("streamkvqa/trigger, element=qa", NULL)` |
"#;

pub const MESSAGES: &str = r#"
## Messages and meta

Element messages on the bus, and the custom meta on video buffers. Times without another word are nanoseconds of
running time. A field that is not known is not there. `json` holds all fields as one text, with times in seconds.
The examples stand in this function:

```python
def on_message(bus, message):
    said = message.get_structure()
```
"#;

/// Name, what it is for, an example.
pub const SIGNALS: &[(&str, &str, &str)] = &[
    (
        "answer",
        "an answer; the structure is that of the message",
        r#"qa.connect("answer", lambda qa, answer: print(answer["answer"]))"#,
    ),
    (
        "alert",
        "an alert; the structure is that of the message",
        r#"qa.connect("alert", lambda qa, alert: print(alert["tag"], alert["status"]))"#,
    ),
    (
        "token",
        "a piece of an answer while it is written: the question's id, the text",
        r#"qa.connect("token", lambda qa, number, text: print(text, end=""))"#,
    ),
    (
        "ask",
        "asks now; returns the question's id, or 0 where it is refused, with a warning on the bus",
        r#"number = qa.emit("ask", "what happened just now?")"#,
    ),
    (
        "ask-full",
        "the same with the fields of a question",
        r#"qa.emit("ask-full", Gst.Structure.from_string("ask, question=fire, interval=1.0, when=yes")[0])"#,
    ),
    (
        "cancel",
        "takes a question back; whether there was one of this id",
        r#"qa.emit("cancel", number)"#,
    ),
    ("clear-memory", "forgets everything seen", r#"qa.emit("clear-memory")"#),
    (
        "save-memory",
        "writes the memory to `memory-path`, behind the frames that wait; whether it will. \
         `streamkvqa/memory` says when it is done",
        r#"qa.emit("save-memory")"#,
    ),
];

/// How a property is set.
///
/// # Errors
/// There is no example.
pub fn example(property: &str) -> Result<&'static str, String> {
    let examples = [
        ("model-path", "model-path=hf:Qwen/Qwen3-VL-2B-Instruct"),
        ("allow-download", "allow-download=true"),
        ("device", "device=cuda:1"),
        ("dtype", "dtype=q8"),
        ("method", "method=streamkv"),
        ("method-options", r#"method-options="retrieve=32,recent=8""#),
        ("method-options-structure", r#"method-options-structure="options, retrieve=32""#),
        ("prompt-style", "prompt-style=rekv"),
        ("mrope-compat", "mrope-compat=true"),
        ("system-prompt", r#"system-prompt="You watch a yard at night.""#),
        ("max-memory", "max-memory=4000000000"),
        ("max-host-memory", "max-host-memory=16000000000"),
        ("max-disk", "max-disk=200000000000 disk-path=/var/tmp"),
        ("disk-path", "disk-path=/var/tmp"),
        ("memory-path", "memory-path=/var/lib/cameras/yard.memory"),
        ("autosave-interval", "autosave-interval=60000000000"),
        ("store", "store=q4"),
        ("store-residual", "store-residual=0"),
        ("max-tokens", "max-tokens=20"),
        ("temperature", "temperature=0.7 top-p=0.9 seed=1"),
        ("top-p", "top-p=0.9"),
        ("seed", "seed=42"),
        ("active", "active=false"),
        ("sample-rate", "sample-rate=1/2"),
        ("frame-size", "frame-size=448"),
        ("max-skip", "max-skip=30"),
        ("skip-tolerance", "max-skip=30 skip-tolerance=8"),
        ("tower-reuse", "tower-reuse=16"),
        ("reuse-tolerance", "tower-reuse=16 reuse-tolerance=4"),
        ("max-queue", "max-queue=2"),
        ("leaky", "leaky=always"),
        ("stall-timeout", "stall-timeout=10000000000"),
        ("reset-on", "reset-on=stream-start"),
        ("question", r#"question="what is here now?""#),
        ("question-interval", "question-interval=5000000000"),
        ("questions-file", "questions-file=questions.jsonl"),
        ("trigger-classes", r#"trigger-classes="person, car""#),
        ("max-pending", "max-pending=8"),
        ("pending", r#"print(qa.get_property("pending"))"#),
        ("eos-timeout", "eos-timeout=5000000000"),
        ("post-messages", "post-messages=false"),
        ("text-format", "text-format=json"),
        ("text-template", r#"text-template="{question}{br}{answer}""#),
        ("text-duration", "text-duration=3000000000"),
        ("text-timestamp", "text-timestamp=answer"),
        ("latency", "latency=500000000"),
        ("last-answer", r#"print(qa.get_property("last-answer"))"#),
        ("stats", r#"print(qa.get_property("stats")["lag-ms"])"#),
        ("stats-interval", "stats-interval=60000000000"),
    ];
    let found = examples.iter().find(|example| example.0 == property);
    found.map(|example| example.1).ok_or_else(|| format!("there is no example of {property}"))
}

/// What is done with a message or meta, in Python.
///
/// # Errors
/// There is no example.
pub fn use_of(title: &str) -> Result<&'static str, String> {
    Ok(match title {
        "streamkvqa/answer" => {
            r#"
if said.has_name("streamkvqa/answer") and said["status"] == "ok":
    print(said["question"], said["answer"])
    for seen in said["evidence"]:
        print(f"    {seen['start'] / Gst.SECOND:.1f} to {seen['end'] / Gst.SECOND:.1f} s")
"#
        }
        "streamkvqa/alert" => {
            r#"
if said.has_name("streamkvqa/alert"):
    print(said["tag"], said["status"], said["since"] / Gst.SECOND)
"#
        }
        "streamkvqa/video" => {
            r#"
if said.has_name("streamkvqa/video") and said["status"] == "stopped":
    print(said["element"], "has seen nothing for", said["frame-age"] / Gst.SECOND, "s")
"#
        }
        "streamkvqa/memory" => {
            r#"
if said.has_name("streamkvqa/memory"):
    print(said["path"], said["status"], said["units"], "units in", said["took-ms"], "ms")
"#
        }
        "streamkvqa/stats" => {
            r#"
if said.has_name("streamkvqa/stats") and said["lag-ms"] > 5000:
    print(said["queue"], "frames wait,", said["dropped"], "are lost")
"#
        }
        "StreamKvqaAnswerMeta" => {
            r#"
def on_buffer(pad, info):
    meta = info.get_buffer().get_custom_meta("StreamKvqaAnswerMeta")
    if meta:
        print(meta.get_structure()["answer"])
    return Gst.PadProbeReturn.OK

qa.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, on_buffer)
"#
        }
        title => return Err(format!("there is no example of {title}")),
    })
}

/// What a message or meta is for.
///
/// # Errors
/// Nobody has said so.
pub fn about(title: &str) -> Result<&'static str, String> {
    Ok(match title {
        "streamkvqa/answer" => {
            "An answer, or how a question ended that has none. The signal `answer` has the same."
        }
        "streamkvqa/alert" => {
            "What a standing question with `when` asks about has begun or ceased. The signal `alert` has the same."
        }
        "streamkvqa/video" => {
            "A live source has delivered no frame for `stall-timeout`, or does so again."
        }
        "streamkvqa/memory" => "The memory has been read from `memory-path`, or written to it.",
        "streamkvqa/stats" => "What the property `stats` says, every `stats-interval`.",
        "StreamKvqaAnswerMeta" => {
            "The answer since the last video buffer, on this one: the fields of the message \
             (`gst_buffer_get_custom_meta`)."
        }
        title => return Err(format!("nobody has said what {title} is")),
    })
}

/// What a field means.
///
/// # Errors
/// Nobody has said so.
pub fn field(title: &str, name: &str) -> Result<&'static str, String> {
    let special = match (title, name) {
        ("streamkvqa/alert", "status") => "`began` or `ceased`",
        ("streamkvqa/video", "status") => "`stopped` or `resumed`",
        ("streamkvqa/memory", "status") => "`restored` or `saved`",
        ("streamkvqa/memory", "frames") => "frames that it has seen, of all runs",
        ("streamkvqa/video", "frame-age") => "for how long no frame had come",
        ("streamkvqa/video", "last-frame") => "when the last one was",
        _ => "",
    };
    if !special.is_empty() {
        return Ok(special);
    }
    Ok(match name {
        "element" => "the element's name",
        "id" => "the question's number",
        "question" => "its text",
        "answer" => "the answer's text",
        "status" => "`ok`, `cancelled`, `dropped` (too many were waiting) or `error`",
        "last" => "nothing more comes under this `id`",
        "tag" => "the question's, or empty",
        "error" => "why there is no answer",
        "asked-at" => "the newest frame when it was asked, or the one that it was asked about",
        "asked-at-stream" => "the same in stream time",
        "answered-at" => "the newest frame when it was answered",
        "wall-clock" => "ns since 1970 of the frame it was asked about",
        "frame-age" => "how long ago the newest frame had come in when it was asked",
        "evidence" => {
            "structures with `start`, `end`, `score`, and `start-stream`, `end-stream`, `start-wall-clock`, \
             `end-wall-clock` where they are known, and `restored` (true) where an earlier run saw it, whose \
             running times these are: the stretches that weighed most, the heaviest first"
        }
        "tokens" => "of the answer",
        "latency-ms" => "from the asking to the answer, waiting included",
        "truncated" => "whether `max-tokens` cut it off",
        "finish" => "why it ended: `stop`, `length` or `loop`",
        "confidence" => "mean natural logarithm of the probabilities of its tokens",
        "probability" => "the answer's share among the choices",
        "choices" => "structures with `answer` and `probability`",
        "json" => "all of these as one JSON text",
        "since" => "with which frame that was",
        "lasted" => "for how long it had been true",
        "frames-in" => "buffers that came",
        "sampled" => "of these, copied for the model",
        "dropped" => "of these, those that waited too long",
        "broken" => "buffers marked as corrupted, as a gap or as not to be shown",
        "unreadable" => "frames of which no picture could be made",
        "encoded" => "frames that the model has seen",
        "skipped" => "of these, those that showed nothing new (`max-skip`)",
        "reused-patches" => "patches that did not go through the tower again (`tower-reuse`)",
        "questions" => "askings",
        "answers" => "askings that were answered",
        "standing" => {
            "structures, one for each question that stands: `id`, `question`, `tag`, the newest `answer` and \
             its `asked-at`, `when`, whether that `holds`, and `since` when"
        }
        "picture-changes" => "counted while a question waits for them",
        "queue" => "frames that wait for the model",
        "memory-bytes" => "what is remembered, in all tiers",
        "memory-limit" => {
            "what of it the device may hold: `max-memory`, or a share of what the machine has"
        }
        "device-bytes" => "of that, where the model computes",
        "host-bytes" => "of that, in the tier of `max-host-memory`",
        "disk-bytes" => "of that, in files",
        "blocks" => "units of video, counted in each layer",
        "hits" => "blocks that questions found at hand",
        "loads" => "blocks that questions had to fetch or decode",
        "lost-blocks" => "blocks lost to damaged files",
        "path" => "the file",
        "bytes" => "its length",
        "took-ms" => "how long that took",
        "saves" => "how often the memory has been written to `memory-path`",
        "save-bytes" => "the length of that file",
        "save-ms" => "how long the last one took to be written, beside everything else",
        "save-pause-ms" => "how long taking it kept frames and questions waiting",
        "ages" => {
            "structures, the newest first: `units` and `bytes` (of keys and values) of what is up to a minute \
             old, then ten, an hour, six, a day, a week, and longer; `oldest`, in nanoseconds, is how old the \
             oldest of it is"
        }
        "units" => "units of video that are remembered",
        "open-frames" => "frames that are not compressed yet",
        "segments" => "stretches that the video was cut into",
        "take-ms-per-frame" => "time of the streaming thread",
        "encode-ms-per-frame" => "time of the inference thread",
        "answer-ms" => "mean, without waiting",
        "answer-ms-p50" => "half of the last 512 answers came within this time, waiting included",
        "answer-ms-p95" => "95 % of them did",
        "first-token-ms-p50" => "the same up to the first token, without waiting",
        "first-token-ms-p95" => "95 % of them did",
        "tokens-per-second" => "of those answers, their first tokens aside",
        "lag-ms" => "how far the newest frame that is remembered lies behind the newest that came",
        "live" => "whether the source is",
        "weights" => "number format of most of the model's weights",
        "model-loaded" => "whether it is",
        "model-users" => "who share it",
        name => return Err(format!("nobody has said what {name} of {title} means")),
    })
}
