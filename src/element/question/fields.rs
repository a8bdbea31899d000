// SPDX-License-Identifier: MPL-2.0
//! A question as a structure: the fields of `ask-full` and of the event.

use gst::ClockTime;
use gstreamer as gst;

use super::{Bound, Question, Terms, When, seconds_field};

impl Question {
    /// The fields of `ask-full` and of the event. Times are ns as integers, seconds as floats.
    ///
    /// # Errors
    /// Names the field that is missing or wrong.
    pub fn from_structure(structure: &gst::StructureRef) -> Result<Self, String> {
        let text = structure
            .get::<Option<String>>("question")
            .ok()
            .flatten()
            .ok_or("the string field `question` is missing")?;
        let (at, interval) = (time_field(structure, "at")?, time_field(structure, "interval")?);
        let (hold, cool_down) =
            (time_field(structure, "for")?, time_field(structure, "cool-down")?);
        let max_tokens = match structure.value("max-tokens") {
            Err(_) => None,
            Ok(value) => Some(integer(value).ok_or("`max-tokens` is not a positive integer")?),
        };
        let on_change = match structure.value("on-change") {
            Err(_) => false,
            Ok(value) => value.get().map_err(|_| "`on-change` is not a boolean")?,
        };
        let text_of = |name: &str| match structure.value(name) {
            Err(_) => Ok(None),
            Ok(value) => word(value).map_err(|()| format!("`{name}` is not a string")),
        };
        let (tag, when) = (text_of("tag")?, text_of("when")?);
        let (on, choices) = (words(structure, "on")?, words(structure, "choices")?);
        let (from, to) = (bound_field(structure, "from")?, bound_field(structure, "to")?);
        let terms = Terms {
            at,
            interval,
            on,
            on_change,
            tag,
            max_tokens,
            choices,
            when,
            hold,
            cool_down,
            from,
            to,
        };
        Self::new(&text)?.with(terms, When::Now)
    }
}

fn integer(value: &glib::SendValue) -> Option<u64> {
    value
        .get::<u64>()
        .ok()
        .or_else(|| value.get::<u32>().ok().map(u64::from))
        .or_else(|| value.get::<i32>().ok().and_then(|value| value.try_into().ok()))
        .or_else(|| value.get::<i64>().ok().and_then(|value| value.try_into().ok()))
}

fn time_field(structure: &gst::StructureRef, name: &str) -> Result<Option<ClockTime>, String> {
    let Ok(value) = structure.value(name) else { return Ok(None) };
    if let Ok(time) = value.get::<Option<ClockTime>>() {
        return Ok(time);
    }
    if let Some(time) = integer(value) {
        return Ok(Some(ClockTime::from_nseconds(time.min(u64::MAX - 1))));
    }
    let seconds = value.get::<f64>().map_err(|_| {
        format!("`{name}` is neither an integer (running time in ns) nor a double (seconds)")
    })?;
    seconds_field(name, seconds).map(Some)
}

/// Seconds or ns of running time, or a moment of clock time.
fn bound_field(structure: &gst::StructureRef, name: &str) -> Result<Option<Bound>, String> {
    let Ok(value) = structure.value(name) else { return Ok(None) };
    if let Ok(Some(text)) = value.get::<Option<String>>() {
        return Bound::of_clock(name, &text).map(Some);
    }
    if let Ok(seconds) = value.get::<f64>() {
        return Bound::of_seconds(name, seconds).map(Some);
    }
    let whole = value.get::<i64>().ok().or_else(|| value.get::<i32>().ok().map(i64::from));
    if let Some(ago) = whole.filter(|&whole| whole < 0) {
        return Ok(Some(Bound::Ago(ClockTime::from_nseconds(ago.unsigned_abs()))));
    }
    let time = time_field(structure, name).map_err(|_| {
        format!("`{name}` is neither a number (ns as an integer, seconds as a double) nor a moment")
    })?;
    Ok(time.map(Bound::At))
}

/// A text. GStreamer's own notation takes `yes` and `no` without quotes for a boolean.
fn word(value: &glib::Value) -> Result<Option<String>, ()> {
    match value.get::<bool>() {
        Ok(true) => Ok(Some("yes".into())),
        Ok(false) => Ok(Some("no".into())),
        Err(_) => value.get().map_err(|_| ()),
    }
}

/// One text or a list of them.
fn words(structure: &gst::StructureRef, name: &str) -> Result<Vec<String>, String> {
    let Ok(value) = structure.value(name) else { return Ok(Vec::new()) };
    let fault = || format!("`{name}` is neither a string nor a list of them");
    if let Ok(text) = word(value) {
        return Ok(text.into_iter().collect());
    }
    let all: &[glib::SendValue] = match (value.get::<gst::ListRef>(), value.get::<gst::ArrayRef>())
    {
        (Ok(list), _) => list.as_slice(),
        (_, Ok(array)) => array.as_slice(),
        _ => return Err(fault()),
    };
    all.iter().map(|value| word(value).ok().flatten().ok_or_else(fault)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yes_and_no_without_quotes_are_words() {
        gst::init().unwrap();
        let text = "ask, question=\"is it open?\", choices={ yes, no }, when=no, interval=1.0";
        let question = Question::from_structure(&text.parse::<gst::Structure>().unwrap()).unwrap();
        assert_eq!(question.choices, ["yes", "no"]);
        assert_eq!(question.alert.unwrap().when, "no");
    }

    #[test]
    fn a_structure_takes_choices_occasions_and_what_is_an_alert() {
        gst::init().unwrap();
        let ask = || gst::Structure::builder("ask").field("question", "is it open?");
        let read = |structure: gst::Structure| Question::from_structure(&structure);
        let choices = gst::List::new(["Open", "closed"]);
        let question = read(
            ask()
                .field("choices", &choices)
                .field("when", "open")
                .field("for", 2.0f64)
                .field("on", "change")
                .build(),
        )
        .unwrap();
        assert_eq!(question.choices, ["Open", "closed"]);
        let rule = question.alert.unwrap();
        assert_eq!((rule.when.as_str(), rule.hold), ("Open", ClockTime::from_seconds(2)));
        assert_eq!((question.when, question.on.change), (When::Occasion, true));
        let array = gst::Array::new(["change", "detection"]);
        let question =
            read(ask().field("on", array).field("when", "no").field("interval", 1.0f64).build())
                .unwrap();
        assert_eq!(question.choices, ["yes", "no"]);
        assert!(question.on.change && question.on.detection && question.is_standing());
        for (structure, said) in [
            (ask().field("when", "ajar").field("interval", 1.0f64), "`when` is \"ajar\""),
            (ask().field("when", "yes"), "standing"),
            (ask().field("for", 1.0f64), "`for`"),
            (ask().field("on", "motion"), "`on` is \"motion\""),
            (ask().field("on", "change").field("at", 3.0f64), "`at`"),
            (ask().field("choices", "yes"), "two"),
            (ask().field("choices", 7i32), "`choices`"),
            (ask().field("choices", gst::List::new([1i32, 2])), "`choices`"),
        ] {
            let error = read(structure.build()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_structure_takes_a_stretch() {
        gst::init().unwrap();
        let ask = || gst::Structure::builder("ask").field("question", "q");
        let read = |structure: gst::Structure| Question::from_structure(&structure);
        let seconds = ClockTime::from_seconds;
        let question = read(ask().field("from", 5.0f64).field("to", 9_000_000_000u64).build());
        let question = question.unwrap();
        assert_eq!(question.from, Some(Bound::At(seconds(5))));
        assert_eq!(question.to, Some(Bound::At(seconds(9))));
        let question = read(ask().field("from", -60.0f64).field("to", -1_000_000_000i64).build());
        let question = question.unwrap();
        assert_eq!(question.from, Some(Bound::Ago(seconds(60))));
        assert_eq!(question.to, Some(Bound::Ago(seconds(1))));
        for text in ["2026-05-01T08:30:00.25Z", "2026-05-01T10:30:00.25+02:00"] {
            let question = read(ask().field("from", text).build()).unwrap();
            assert_eq!(question.from, Some(Bound::Wall(1_777_624_200_250_000_000)));
        }
        for (structure, said) in [
            (ask().field("from", "yesterday"), "`from` is \"yesterday\""),
            (ask().field("to", "2026-05-01T08:30:00"), "time zone"),
            (ask().field("to", true), "`to`"),
            (ask().field("to", f64::NAN), "`to`"),
            (ask().field("from", 3.0f64).field("to", 2.0f64), "later"),
            (ask().field("from", -3.0f64).field("to", -5.0f64), "later"),
        ] {
            let error = read(structure.build()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_structure_takes_times_in_ns_and_in_seconds() {
        gst::init().unwrap();
        let structure = |at: glib::SendValue| {
            gst::Structure::builder("ask").field("question", "q").field("at", at).build()
        };
        use glib::value::ToSendValue;
        let at = |value| Question::from_structure(&structure(value)).map(|question| question.when);
        let second = When::At(ClockTime::SECOND);
        assert_eq!(at(1_000_000_000u64.to_send_value()).unwrap(), second);
        assert_eq!(at(1_000_000_000i32.to_send_value()).unwrap(), second);
        assert_eq!(at(1.0f64.to_send_value()).unwrap(), second);
        assert!(at("soon".to_send_value()).unwrap_err().contains("`at`"));
        assert!(at(f64::NAN.to_send_value()).is_err());
        assert!(at((-5i32).to_send_value()).is_err());
    }
}
