// SPDX-License-Identifier: MPL-2.0
//! A person's hands and eyes: Chromium, by its DevTools protocol.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Emulation, Input, Network, Page as Cdp, Runtime};
use headless_chrome::{Browser, LaunchOptions, Tab};
use serde_json::Value;

/// Continuous integration is slow; whatever takes so long does not come.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Chromium as Debian has it, or CHROMIUM.
pub fn browser() -> Browser {
    let path =
        std::env::var_os("CHROMIUM").map_or_else(|| "/usr/bin/chromium".into(), PathBuf::from);
    let options = LaunchOptions::default_builder()
        .path(Some(path))
        // Root has no sandbox, and the page is our own.
        .sandbox(false)
        .window_size(Some((1440, 900)))
        .idle_browser_timeout(Duration::from_secs(600))
        .args(vec!["--lang=en-GB".as_ref(), "--force-color-profile=srgb".as_ref()])
        .build()
        .unwrap();
    Browser::new(options).unwrap_or_else(|error| panic!("Chromium does not start: {error}"))
}

/// A page that somebody looks at.
pub struct Page {
    tab: Arc<Tab>,
    faults: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Page {
    /// Opens an address; what the console says of faults and what is requested is noted from the first on.
    pub fn open(browser: &Browser, url: &str) -> Self {
        let tab = browser.new_tab().unwrap();
        let (faults, requests) =
            (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (said, asked) = (faults.clone(), requests.clone());
        tab.add_event_listener(Arc::new(move |event: &Event| match event {
            Event::RuntimeExceptionThrown(thrown) => {
                let details = &thrown.params.exception_details;
                let what = details.exception.as_ref().and_then(|what| what.description.clone());
                said.lock().unwrap().push(what.unwrap_or_else(|| details.text.clone()));
            }
            Event::RuntimeConsoleAPICalled(call) => {
                if matches!(call.params.Type, Runtime::ConsoleAPICalledEventTypeOption::Error) {
                    said.lock().unwrap().push(format!("{:?}", call.params.args));
                }
            }
            Event::LogEntryAdded(entry) => {
                let entry = &entry.params.entry;
                said.lock().unwrap().push(format!("{} {:?}", entry.text, entry.url));
            }
            Event::NetworkRequestWillBeSent(request) => {
                asked.lock().unwrap().push(request.params.request.url.clone());
            }
            _ => {}
        }))
        .unwrap();
        tab.enable_runtime().unwrap();
        tab.enable_log().unwrap();
        tab.call_method(Network::Enable {
            max_total_buffer_size: None,
            max_resource_buffer_size: None,
            max_post_data_size: None,
            report_direct_socket_traffic: None,
            enable_durable_messages: None,
        })
        .unwrap();
        let page = Page { tab, faults, requests };
        page.looks("light");
        page.tab.navigate_to(url).unwrap();
        page
    }

    /// What an expression is; promises are waited for.
    pub fn is(&self, expression: &str) -> Value {
        let expression =
            format!("Promise.resolve({expression}).then((is) => JSON.stringify(is ?? null))");
        let found = self.tab.evaluate(&expression, true);
        let found = found.unwrap_or_else(|error| panic!("{expression}: {error}"));
        let text = found.value.as_ref().and_then(Value::as_str);
        let text = text.unwrap_or_else(|| panic!("{expression}: {:?}", found.description));
        serde_json::from_str(text).unwrap()
    }

    /// The same, as text.
    pub fn text(&self, expression: &str) -> String {
        match self.is(expression) {
            Value::String(text) => text,
            other => other.to_string(),
        }
    }

    /// Waits until an expression is true, or something; returns it.
    pub fn until(&self, what: &str, expression: &str) -> Value {
        let began = Instant::now();
        loop {
            let is = self.is(expression);
            let no = matches!(&is, Value::Null | Value::Bool(false))
                || is.as_str() == Some("")
                || is.as_f64() == Some(0.0);
            if !no {
                return is;
            }
            if began.elapsed() > PATIENCE {
                self.keep("fault");
                panic!("never so: {what}\n{}", self.text("document.body.innerText"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until an element is there and presses it with the mouse.
    pub fn click(&self, selector: &str) {
        let quoted = Value::from(selector).to_string();
        self.until(selector, &format!("document.querySelector({quoted})"));
        // Where it comes to rest, which smooth scrolling and dialogs that open take a moment to say.
        let place = format!(
            "(() => {{ const one = document.querySelector({quoted}); one.scrollIntoView({{ block: 'center' }}); \
             const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        let place = self.is(&place);
        let at = |index: usize| place[index].as_f64().unwrap();
        self.tab
            .click_point(headless_chrome::browser::tab::point::Point { x: at(0), y: at(1) })
            .unwrap();
    }

    /// Presses keys one after another: letters, `Enter`, `Escape`, `ArrowLeft`.
    pub fn press(&self, keys: &[&str]) {
        for key in keys {
            let text = (key.chars().count() == 1).then(|| (*key).to_owned());
            let text = text.or_else(|| (*key == "Enter").then(|| "\r".to_owned()));
            // What the browser itself does with a key it knows by this.
            let code = match *key {
                "Enter" => Some(13),
                "Escape" => Some(27),
                "ArrowLeft" => Some(37),
                "ArrowRight" => Some(39),
                _ => None,
            };
            for kind in [
                Input::DispatchKeyEventTypeOption::KeyDown,
                Input::DispatchKeyEventTypeOption::KeyUp,
            ] {
                let is_down = matches!(kind, Input::DispatchKeyEventTypeOption::KeyDown);
                self.tab
                    .call_method(Input::DispatchKeyEvent {
                        Type: kind,
                        key: Some((*key).to_owned()),
                        code: Some((*key).to_owned()),
                        text: text.clone().filter(|_| is_down),
                        windows_virtual_key_code: code,
                        modifiers: None,
                        timestamp: None,
                        unmodified_text: None,
                        key_identifier: None,
                        native_virtual_key_code: None,
                        auto_repeat: None,
                        is_keypad: None,
                        is_system_key: None,
                        location: None,
                        commands: None,
                    })
                    .unwrap();
            }
        }
    }

    /// Writes into what has the focus.
    pub fn write(&self, text: &str) {
        self.tab.call_method(Input::InsertText { text: text.to_owned() }).unwrap();
    }

    /// A window of this size; narrow ones are a phone's.
    pub fn size(&self, width: u32, height: u32) {
        self.tab
            .call_method(Emulation::SetDeviceMetricsOverride {
                width,
                height,
                device_scale_factor: 1.0,
                mobile: width < 600,
                scale: None,
                screen_width: None,
                screen_height: None,
                position_x: None,
                position_y: None,
                dont_set_visible_size: None,
                screen_orientation: None,
                viewport: None,
                display_feature: None,
                device_posture: None,
            })
            .unwrap();
    }

    /// A system that is `light` or `dark`, and on which nothing moves that need not.
    pub fn looks(&self, scheme: &str) {
        let feature = |name: &str, value: &str| Emulation::MediaFeature {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        self.tab
            .call_method(Emulation::SetEmulatedMedia {
                media: None,
                features: Some(vec![
                    feature("prefers-color-scheme", scheme),
                    feature("prefers-reduced-motion", "reduce"),
                    feature("hover", "hover"),
                ]),
            })
            .unwrap();
    }

    /// Goes to another of the page's addresses.
    pub fn go(&self, fragment: &str) {
        self.is(&format!("void (location.hash = {})", Value::from(fragment)));
    }

    /// Whether pictures are kept.
    pub fn keeps(&self) -> bool {
        std::env::var_os("WALL_SCREENSHOTS").is_some()
    }

    /// Keeps a picture in the folder WALL_SCREENSHOTS, where that is set.
    pub fn keep(&self, name: &str) {
        let Some(folder) = std::env::var_os("WALL_SCREENSHOTS") else { return };
        let picture = self
            .tab
            .capture_screenshot(Cdp::CaptureScreenshotFormatOption::Webp, Some(88), None, true)
            .unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(Path::new(&folder).join(format!("wall-{name}.webp")), picture).unwrap();
    }

    /// What the console has said of faults since it was last asked.
    pub fn faults(&self) -> Vec<String> {
        std::mem::take(&mut *self.faults.lock().unwrap())
    }

    /// Every address that was requested.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}
