// SPDX-License-Identifier: MPL-2.0
//! What a person does at the page, in Chromium, on the real program with the model and the clip that ship.
//! Screenshots for the documentation are kept where WALL_SCREENSHOTS names a folder.

#[path = "page/browser.rs"]
mod browser;
#[path = "common/program.rs"]
mod program;

use std::net::TcpListener;

use browser::Page;
use program::{Wall, clip};
use serde_json::Value;

/// Two that play and one that nobody answers at.
fn three_cameras() -> String {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let yard =
        format!("[[camera]]\nid = \"yard\"\nname = \"Yard\"\nuri = \"rtsp://{nobody}/live\"\n");
    [clip("street", "Street"), clip("square", "Square"), yard].concat()
}

const TILES: &str = "[...document.querySelectorAll('camera-tile')]";
const CARD: &str = "document.querySelector('.exchanges > li:last-child answer-card')";

#[test]
fn a_person_asks_looks_back_is_alerted_and_searches() {
    let wall = Wall::start(&three_cameras());
    let browser = browser::browser();
    let page = Page::open(&browser, &wall.page);
    page.size(1440, 900);

    sees_the_wall(&page);
    let words = asks_two_cameras(&page);
    opens_a_camera_by_keyboard(&page);
    let light = asks_and_looks_back(&page);
    is_alerted(&page, &light);
    searches(&page, &words);
    everything_has_a_name(&page);
    is_dark_and_light(&page);
    fits_a_phone(&page);
    if page.keeps() {
        poses(&page);
    }

    let own = |url: &&String| {
        [wall.page.as_str(), "blob:", "data:", "about:"].iter().any(|known| url.starts_with(known))
    };
    let requests = page.requests();
    assert!(requests.len() > 30, "{requests:?}");
    let others: Vec<_> = requests.iter().filter(|url| !own(url)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(page.faults(), Vec::<String>::new());
}

fn sees_the_wall(page: &Page) {
    page.until("three tiles", &format!("{TILES}.length === 3"));
    page.until(
        "two live pictures",
        &format!("{TILES}.filter((tile) => tile.querySelector('[data-state=live]') && tile.querySelector('.picture img').naturalWidth > 100).length === 2"),
    );
    let note = "document.querySelector('camera-tile[camera=yard] .state-note')?.innerText";
    let told = page.until(
        "why the yard is not there",
        &format!("/Next try in \\d+ s/.test({note}) && {note}"),
    );
    assert!(told.as_str().unwrap().contains("Not reachable"), "{told}");
    page.until("the countdown goes on", &format!("{note} !== {told}"));
    let source = "document.querySelector('camera-tile[camera=street] .picture img').src";
    let first = page.is(source);
    page.until("the picture moves", &format!("{source} !== {first}"));
}

/// Returns a word of an answer.
fn asks_two_cameras(page: &Page) -> String {
    // All without a mouse: the first camera, selected and not, then two, and then the field.
    page.press(&["j", "x"]);
    page.until("one is selected", "document.querySelectorAll('.picked').length === 1");
    page.press(&["Escape"]);
    page.until("none is", "!document.querySelector('.picked')");
    for camera in ["street", "square"] {
        page.is(&format!("document.querySelector('[camera={camera}] [data-opens]').focus()"));
        page.press(&["x"]);
    }
    assert_eq!(
        page.text("document.querySelector('.picked-line span').innerText"),
        "Street, Square"
    );
    page.press(&["/"]);
    page.write("what is here now?");
    page.press(&["Enter"]);
    let columns = "[...document.querySelectorAll('ask-round .columns > li')]";
    page.until("two answers side by side", &format!("{columns}.length === 2 && {columns}.every((one) => one.querySelector('.facts') && one.querySelector('.words').innerText)"));
    let heads = page.is(&format!("{columns}.map((one) => one.querySelector('h3').innerText)"));
    assert_eq!(heads, serde_json::json!(["Street", "Square"]));
    let shown =
        page.is(&format!("{columns}.map((one) => one.querySelectorAll('.thumb img').length)"));
    assert!(shown.as_array().unwrap().iter().all(|count| count.as_u64() > Some(0)), "{shown}");
    page.until(
        "the tile has its answer",
        "document.querySelector('[camera=street] .said .what')?.innerText === 'what is here now?'",
    );
    page.keep("round");
    let answer = page.text(&format!("{columns}[0].querySelector('.words').innerText"));
    // Out of the field, and then none selected.
    page.press(&["Escape", "Escape"]);
    page.until("none selected", "!document.querySelector('.picked')");
    answer.split_whitespace().next().unwrap().to_owned()
}

fn opens_a_camera_by_keyboard(page: &Page) {
    page.is("document.querySelector('[camera=street] [data-opens]').focus()");
    page.press(&["Enter"]);
    page.until(
        "the camera's page",
        "document.querySelector('camera-view h1')?.innerText === 'Street'",
    );
    let has_webrtc = page.is(
        "fetch('api/cameras/street').then((got) => got.json()).then((camera) => camera.live.whep)",
    );
    let way = if has_webrtc == Value::Bool(true) { "WebRTC" } else { "MJPEG" };
    page.until(
        "live video",
        &format!("document.querySelector('live-picture .way').textContent === '{way}'"),
    );
    if way == "WebRTC" {
        let time = "document.querySelector('live-picture video').currentTime";
        let first = page.is(time);
        page.until("video that runs", &format!("{time} > {first}"));
    }
    // A browser without WebRTC.
    page.is(
        "void ([globalThis.kept, globalThis.RTCPeerConnection] = [RTCPeerConnection, undefined])",
    );
    page.press(&["["]);
    page.until(
        "another camera",
        "document.querySelector('camera-view h1')?.innerText !== 'Street'",
    );
    page.go("#/camera/square");
    page.until("pictures", "document.querySelector('live-picture .way').textContent === 'MJPEG'");
    let drawn = "(() => { const canvas = document.createElement('canvas'); [canvas.width, canvas.height] = [64, 48]; \
                 canvas.getContext('2d').drawImage(document.querySelector('live-picture img'), 0, 0, 64, 48); return canvas.toDataURL(); })()";
    let first = page.is(drawn);
    page.until("pictures that move", &format!("{drawn} !== {first}"));
    page.is("void (globalThis.RTCPeerConnection = kept)");
    page.go("#/camera/street");
    page.until(
        "the first again",
        "document.querySelector('camera-view h1')?.innerText === 'Street'",
    );
    page.until("health", "document.querySelector('camera-health dd')?.innerText.endsWith(' s')");
    page.until(
        "memory by age",
        "document.querySelector('camera-health .tier')?.title.includes(' units, ')",
    );
}

/// Returns what light it was when it was asked.
fn asks_and_looks_back(page: &Page) -> String {
    // What is seen of an answer before its last word.
    page.is(
        "(() => { globalThis.written = []; const list = document.querySelector('.exchanges'); \
         new MutationObserver(() => { const words = list.querySelector('.writing .words')?.textContent; \
         if (words) written.push(words); }).observe(list, { subtree: true, childList: true, characterData: true }); })()",
    );
    // An answer may be here sooner than the word that the question is taken; then there is nothing to watch.
    let mut light = String::new();
    for number in 1..=10 {
        if number == 1 {
            page.press(&["/"]);
        }
        page.write("is it day, dusk or night?");
        page.press(&["Enter"]);
        page.until(
            "an answer",
            &format!(
                "document.querySelectorAll('.exchanges > li').length === {number} + 1 && {CARD}.querySelector('.facts')"
            ),
        );
        light = page.text(&format!("{CARD}.querySelector('.words').innerText"));
        if page.is("written.length") != 0 {
            break;
        }
    }
    let written = page.is("written");
    let written = written.as_array().unwrap();
    let last = written.last().unwrap_or_else(|| panic!("nothing was seen of {light}"));
    assert!(light.starts_with(last.as_str().unwrap().trim()), "{written:?} {light}");
    let confidence = page.text(&format!("{CARD}.querySelector('.confidence').innerText"));
    assert!(confidence.ends_with('%'), "{confidence}");

    let thumbnail = page.until("evidence", &format!("{CARD}.querySelector('.thumb img')?.src"));
    page.click(".exchanges > li:last-child .thumb");
    let large = "document.querySelector('.moment .stage img')";
    page.until("that moment, large", &format!("{large}?.naturalWidth > 100"));
    assert_eq!(page.is(&format!("{large}.src")), thumbnail);
    let when = "document.querySelector('.moment h2').innerText";
    page.until("its neighbours", "document.querySelectorAll('.moment .strip img').length > 3");
    page.keep("moment");
    let here = page.is(when);
    let back = page.is("!document.querySelector('.moment .step').disabled");
    page.press(&[if back == Value::Bool(true) { "ArrowLeft" } else { "ArrowRight" }]);
    page.until("another moment", &format!("{when} !== {here}"));
    page.press(&["Escape"]);
    page.until("closed", "!document.querySelector('dialog')");
    light
}

fn is_alerted(page: &Page, light: &str) {
    page.press(&["s"]);
    page.until("the form", "document.activeElement.name === 'question'");
    page.write("is it day, dusk or night?");
    let fill = |name: &str, value: &str| {
        page.is(&format!("(() => {{ const field = document.querySelector('.adds [name={name}]'); field.value = ''; field.focus(); }})()"));
        page.write(value);
    };
    fill("every", "1");
    fill("choices", "day, dusk, night");
    fill("when", light);
    page.press(&["Enter"]);
    page.until("it stands", "document.querySelectorAll('standing-list li').length === 1");
    page.until(
        "what is so now",
        "['day', 'dusk', 'night'].includes(document.querySelector('standing-list .now').innerText)",
    );
    page.until(
        "its alert",
        "document.querySelector('section.alerts [data-state=on] strong')?.innerText",
    );
    assert_eq!(
        page.text("document.querySelector('section.alerts [data-state=on] strong').innerText"),
        light
    );
    page.until("a quiet badge", "!document.querySelector('.badge').hidden");
    page.keep("standing");
    page.press(&["g", "w"]);
    page.until("said on the wall, too", "document.querySelector('[camera=street].alerted, wall-view .tile-alerts p') || document.querySelector('.badge:not([hidden])')");
    page.until(
        "pictures",
        "document.querySelector('[camera=square] .picture img').naturalWidth > 100",
    );
    page.keep("wall");
    page.press(&["n"]);
    page.until(
        "the list behind the bell",
        "document.querySelector('.drawer [data-state=on] a')?.innerText === 'Street'",
    );
    page.press(&["Escape"]);
    page.until("seen", "document.querySelector('.badge').hidden");

    page.go("#/camera/street");
    page.click("standing-list li button");
    page.until(
        "it stands no longer",
        "document.querySelector('standing-list') && !document.querySelector('standing-list li')",
    );
}

fn searches(page: &Page, word: &str) {
    page.press(&["g", "h"]);
    page.until("the past", "document.querySelectorAll('.found > li').length >= 3");
    page.press(&["/"]);
    page.write(word);
    page.until("what was found", &format!("[...document.querySelectorAll('.found > li')].length > 0 && [...document.querySelectorAll('.found > li')].every((one) => one.innerText.toLowerCase().includes({}))", Value::from(word.to_lowercase())));
    page.keep("history");
    let rows = "fetch(document.querySelector('.exports a').href).then((got) => got.text())";
    assert!(page.text(rows).contains(word));
    page.is("void document.querySelector('[type=search]').select()");
    page.write("xylophone");
    page.until("nothing found", "!document.querySelector('.found > li') && document.querySelector('history-view > .empty').innerText");
    page.press(&["Escape"]);
    page.go("#/history?kind=alert");
    page.go("#/");
    page.go("#/history?kind=alert");
    page.until("alerts alone", "document.querySelector('.found > li') && [...document.querySelectorAll('.found > li')].every((one) => one.dataset.kind === 'alert')");
}

/// Who does not see the page is told what everything is.
fn everything_has_a_name(page: &Page) {
    for view in ["#/", "#/camera/street", "#/history"] {
        page.go(view);
        page.until("the view", "document.querySelector('main h1')?.innerText !== undefined");
        let nameless = page.is(
            "[...document.querySelectorAll('a, button, input, select, img, video, dialog')].filter((one) => \
             !(one.textContent.trim() || one.getAttribute('aria-label') || one.alt || one.labels?.length || one.title || \
             one.getAttribute('aria-labelledby') || one.closest('[aria-hidden=true], a, button')?.getAttribute('aria-label')))\
             .map((one) => one.outerHTML)",
        );
        assert_eq!(nameless, serde_json::json!([]), "{view}");
    }
    page.press(&["?"]);
    page.until("the shortcuts", "document.querySelectorAll('.keys dt').length > 6");
    page.press(&["?"]);
    page.until("closed", "!document.querySelector('dialog')");
}

fn is_dark_and_light(page: &Page) {
    let shade = |page: &Page| {
        let rgb = page.text("getComputedStyle(document.documentElement).backgroundColor");
        let sum: f64 = rgb
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .filter_map(|part| part.parse::<f64>().ok())
            .take(3)
            .sum();
        sum
    };
    page.looks("light");
    let light = shade(page);
    page.looks("dark");
    let dark = shade(page);
    assert!(light > 600.0 && dark < 150.0, "{light} {dark}");
    page.press(&["t"]);
    assert!(shade(page) > 600.0, "the switch goes before the system");
    page.press(&["t"]);
    page.go("#/");
    page.until(
        "pictures",
        "document.querySelector('[camera=square] .picture img')?.naturalWidth > 100",
    );
    page.keep("dark");
}

fn fits_a_phone(page: &Page) {
    page.size(360, 740);
    for (name, view, part) in [
        ("wall", "#/", "camera-tile .title"),
        ("camera", "#/camera/street", "live-picture .way:not(:empty)"),
        ("history", "#/history", ".found > li"),
    ] {
        page.go(view);
        page.until(part, &format!("document.querySelector('{part}')"));
        page.until("pictures", "[...document.querySelectorAll('main :is(img[src], video)')].some((one) => one.naturalWidth || one.videoWidth)");
        let wide = page.is("[document.documentElement.scrollWidth, ...[...document.querySelectorAll('main *')].filter((one) => !one.closest('.unseen, svg, .strip') && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 200))]");
        assert_eq!(wide, serde_json::json!([360]), "{view}");
        page.keep(&format!("phone-{name}"));
    }
}

/// For the documentation: a camera that has a past to speak of.
fn poses(page: &Page) {
    page.size(1440, 900);
    page.looks("light");
    page.press(&["t"]);
    page.go("#/camera/street");
    page.until("a minute of frames", "fetch('api/cameras/street').then((got) => got.json()).then((camera) => camera.health.memory_units > 60)");
    for (number, question) in ["what came first?", "what came last?"].iter().enumerate() {
        let many = page.is("document.querySelectorAll('.exchanges > li').length");
        if number == 0 {
            page.press(&["/"]);
        }
        page.write(question);
        page.press(&["Enter"]);
        page.until("an answer", &format!("document.querySelectorAll('.exchanges > li').length > {many} && {CARD}.querySelector('.facts')"));
    }
    page.until("video", "document.querySelector('live-picture .way:not(:empty)')");
    page.until(
        "thumbnails",
        &format!("[...{CARD}.querySelectorAll('.thumb img')].every((one) => one.naturalWidth)"),
    );
    page.press(&["Escape"]);
    page.keep("camera");
}

#[test]
fn a_lost_connection_is_told_and_heals() {
    let cameras = clip("street", "Street");
    let mut wall = Wall::start(&cameras);
    let browser = browser::browser();
    let page = Page::open(&browser, &wall.page);
    let live = "document.querySelector('[camera=street] [data-state=live]')";
    page.until("live", live);
    assert_eq!(page.faults(), Vec::<String>::new());

    wall.kill();
    let line = "document.querySelector('wall-connection:not([hidden]) p')?.innerText";
    page.until("told", &format!("/next try in \\d+ s|trying now/.test({line})"));
    let wall = wall.again(&cameras);
    page.until("healed", &format!("!{line} && {live}"));
    let source = "document.querySelector('camera-tile .picture img').src";
    let first = page.is(source);
    page.until("pictures come again", &format!("{source} !== {first}"));
    drop(wall);
}

#[test]
fn a_wall_with_tokens_asks_for_one() {
    let token = "correct-horse-battery-staple";
    let wall =
        Wall::start(&format!("[access]\ntokens = [\"{token}\"]\n{}", clip("street", "Street")));
    let browser = browser::browser();
    let page = Page::open(&browser, &wall.page);
    page.until("asked", "document.activeElement?.id === 'token'");
    page.write("wrong");
    page.press(&["Enter"]);
    page.until("refused", "document.querySelector('.login .fault').innerText");
    page.write(token);
    page.press(&["Enter"]);
    page.until(
        "let in",
        "!document.querySelector('dialog') && document.querySelector('camera-tile')",
    );
    page.until(
        "pictures, too",
        "document.querySelector('camera-tile .picture img').naturalWidth > 100",
    );
}

#[test]
fn what_people_write_is_shown_as_it_is_written() {
    let wall = Wall::start(&clip(
        "street",
        "<b>Street</b> <img src=x onerror=alert(1)> \\\"&amp; \u{1f4f7}",
    ));
    let standing =
        serde_json::json!({"id": "odd", "question": "<i>is</i> it <img src=y onerror=alert(2)>?"});
    let url = format!("{}api/cameras/street/standing", wall.page);
    let request = ureq::post(&url).content_type("application/json");
    assert_eq!(request.send(standing.to_string()).unwrap().status(), 201);
    let browser = browser::browser();
    let page = Page::open(&browser, &wall.page);
    let shown = "document.body?.innerText.includes('<b>Street</b> <img src=x onerror=alert(1)> \"&amp; \u{1f4f7}')";
    page.until("its name", shown);
    page.go("#/camera/street");
    page.until("its name", shown);
    page.until(
        "its question",
        "document.body?.innerText.includes('<i>is</i> it <img src=y onerror=alert(2)>?')",
    );
    page.until(
        "nothing of it taken for a part of the page",
        "!document.querySelector('b, i, img[src=x], img[src=y]')",
    );
    assert_eq!(page.faults(), Vec::<String>::new());
}
