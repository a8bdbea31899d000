// SPDX-License-Identifier: MPL-2.0
//! Writes docs/streamkvqa.md: what the element says of itself (properties, signals, pads), and what pipelines
//! that run here get from it (messages, meta), each with what `words` knows to say of it. With `man` it
//! writes the same as a manual page, docs/streamkvqa.7.
//!
//! ```sh
//! cargo run --example reference > docs/streamkvqa.md
//! cargo run --example reference -- man > docs/streamkvqa.7
//! ```

mod caught;
mod man;
mod words;

use std::error::Error;
use std::fmt::Write;

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

use self::caught::Caught;

fn main() -> Result<(), Box<dyn Error>> {
    gst::init()?;
    gststreamkvqa::plugin_register_static()?;
    let element = gst::ElementFactory::make("streamkvqa").build()?;
    let manual = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("man") => true,
        Some(other) => return Err(format!("`{other}` is no kind of page; there is man").into()),
    };
    let mut page = String::from(if manual { words::MANUAL_OPENING } else { words::OPENING });
    properties(&mut page, &element)?;
    signals(&mut page)?;
    page += words::EVENTS;
    let caught = caught::all()?;
    messages(&mut page, &caught)?;
    page += words::SURROUNDINGS;
    if manual {
        page += words::MANUAL_END;
        page = man::page(&page)?;
    }
    print!("{page}");
    Ok(())
}

/// A cell of a table is one line.
fn cell(text: &str) -> String {
    text.replace('\n', " ").split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn properties(page: &mut String, element: &gst::Element) -> Result<(), Box<dyn Error>> {
    writeln!(page, "\n## Properties\n")?;
    writeln!(
        page,
        "Times are nanoseconds. *ready*: from the next start on; *playing*: at once.\n"
    )?;
    writeln!(page, "| property | type | default | set | |\n|---|---|---|---|---|")?;
    let own = element.list_properties();
    let own = own.iter().filter(|spec| spec.owner_type() == element.type_());
    for spec in own {
        let flags = spec.flags();
        let when = if !flags.contains(glib::ParamFlags::WRITABLE) {
            "read only"
        } else if flags.contains(gst::PARAM_FLAG_MUTABLE_PLAYING) {
            "playing"
        } else {
            "ready"
        };
        // What follows the first line are tables that docs/methods.md has.
        let about = spec.blurb().unwrap_or_default();
        let about = about.lines().next().unwrap_or_default();
        let example = words::example(spec.name())?;
        writeln!(
            page,
            "| `{}` | {} | {} | {when} | {}<br>`{}` |",
            spec.name(),
            kind(spec.value_type()),
            default(spec),
            cell(about),
            cell(example),
        )?;
    }
    Ok(())
}

fn default(spec: &glib::ParamSpec) -> String {
    let value = spec.default_value();
    if let Ok(text) = value.get::<Option<String>>() {
        return text
            .filter(|text| !text.is_empty())
            .map_or(String::new(), |text| format!("`{text}`"));
    }
    if let Some((_, value)) = glib::EnumValue::from_value(value) {
        return format!("`{}`", value.nick());
    }
    match spec.value_type() == gst::Structure::static_type() {
        true => String::new(),
        false => {
            value.transform::<String>().ok().and_then(|text| text.get().ok()).unwrap_or_default()
        }
    }
}

/// A type as people say it.
fn kind(kind: glib::Type) -> String {
    if kind.is_a(glib::Type::ENUM) {
        let values = glib::EnumClass::with_type(kind);
        let nicks: Vec<String> = values
            .iter()
            .flat_map(|class| class.values())
            .map(|value| value.nick().to_owned())
            .collect();
        return nicks.join(", ");
    }
    match kind.name() {
        "gchararray" => "string",
        "gboolean" => "boolean",
        "gdouble" => "double",
        "guint" => "unsigned integer",
        "guint64" => "unsigned integer, 64 bits",
        "GstFraction" => "fraction",
        "GstStructure" => "structure",
        "GstValueList" => "list",
        name => name,
    }
    .into()
}

fn signals(page: &mut String) -> Result<(), Box<dyn Error>> {
    let element = glib::Type::from_name("GstStreamKvqa").ok_or("the element has no type")?;
    let all = signals_of(element);
    let known = |name: &str| words::SIGNALS.iter().any(|signal| signal.0 == name);
    if let Some(unknown) = all.iter().find(|name| !known(name)) {
        return Err(format!("nobody has said what the signal {unknown} is").into());
    }
    for (title, action) in [("Signals", false), ("Actions", true)] {
        writeln!(page, "\n## {title}\n\n| | | |\n|---|---|---|")?;
        for name in words::SIGNALS {
            let id = glib::subclass::SignalId::lookup(name.0, element)
                .ok_or_else(|| format!("there is no signal {}", name.0))?;
            let query = id.query();
            if query.flags().contains(glib::SignalFlags::ACTION) != action {
                continue;
            }
            let parameters = query.param_types().iter().map(|kind_| kind((*kind_).into()));
            let parameters = parameters.collect::<Vec<_>>().join(", ");
            let result: glib::Type = query.return_type().into();
            let result = match result == glib::Type::UNIT {
                true => String::new(),
                false => format!(" -> {}", kind(result)),
            };
            writeln!(page, "| `{}({parameters}){result}` | {} | `{}` |", name.0, name.1, name.2)?;
        }
    }
    Ok(())
}

/// The names of a type's own signals.
fn signals_of(element: glib::Type) -> Vec<String> {
    use glib::gobject_ffi;
    use glib::translate::{FromGlibPtrNone, IntoGlib};
    let mut many = 0;
    // SAFETY: the ids are an array of `many`, which is ours to free; a name lives as long as its signal.
    unsafe {
        let ids = gobject_ffi::g_signal_list_ids(element.into_glib(), &mut many);
        let name = |at| String::from_glib_none(gobject_ffi::g_signal_name(*ids.add(at)));
        let names = (0..many as usize).map(name).collect();
        glib::ffi::g_free(ids.cast());
        names
    }
}

fn messages(page: &mut String, caught: &[Caught]) -> Result<(), Box<dyn Error>> {
    writeln!(page, "{}", words::MESSAGES)?;
    for Caught { title, structures } in caught {
        writeln!(page, "\n### `{title}`\n\n{}\n", words::about(title)?)?;
        writeln!(page, "| field | type | |\n|---|---|---|")?;
        // Of several, each has the fields that it needs.
        let mut fields: Vec<(String, glib::Type)> = Vec::new();
        for structure in structures {
            for (name, value) in structure.iter() {
                if !fields.iter().any(|field| field.0 == name.as_str()) {
                    fields.push((name.to_string(), value.type_()));
                }
            }
        }
        for (name, of) in fields {
            writeln!(page, "| `{name}` | {} | {} |", kind(of), words::field(title, &name)?)?;
        }
        writeln!(page, "\n```python{}```", words::use_of(title)?)?;
    }
    Ok(())
}
