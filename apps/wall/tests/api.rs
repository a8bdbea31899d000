// SPDX-License-Identifier: MPL-2.0
//! The API: events, questions, the past, OpenAI's form, and who is let in.

mod common;

use std::io::{BufRead, BufReader};

use common::*;
use serde_json::{Value, json};
use streamkvqa_wall::hub::{CameraState, Question};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn questions_go_to_several_cameras_and_words_come_as_events() {
    let mut rig = Rig::start(&(ball("a") + &ball("b") + &at("none", "/nowhere.webm"))).await;
    rig.until_state("a", CameraState::Live).await;
    rig.until_state("b", CameraState::Live).await;
    rig.until_state("none", CameraState::Waiting).await;
    let url = rig.url("/api/events");
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let response = agent().get(&url).call().unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut name = String::new();
        for line in BufReader::new(response.into_body().into_reader()).lines().map_while(Result::ok)
        {
            if let Some(event) = line.strip_prefix("event: ") {
                name = event.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap();
                if sender.send((name.clone(), data)).is_err() {
                    return;
                }
            }
        }
    });
    let (name, state) = events.recv().await.unwrap();
    assert_eq!(name, "state");
    assert_eq!(state["wall"]["host"], "here");
    assert_eq!(state["cameras"].as_array().unwrap().len(), 3);
    let ask = json!({"cameras": ["*"], "question": "what is here now?"});
    let reply = rig.send("POST", "/api/ask", ask).await;
    assert_eq!(reply.status, 202);
    let asked = reply.json();
    assert_eq!(asked["refused"][0]["camera"], "none");
    assert!(asked["refused"][0]["reason"].as_str().unwrap().contains("nothing at this address"));
    let mut open: Vec<String> = asked["asked"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap().into())
        .collect();
    assert_eq!(open.len(), 2);
    let mut words = 0;
    while !open.is_empty() {
        let (name, data) = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        match name.as_str() {
            "token" => {
                assert!(open.contains(&data["answer"].as_str().unwrap().to_owned()), "{data}");
                words += 1;
            }
            "answer" => {
                assert_eq!(data["error"], Value::Null);
                open.retain(|id| data["id"] != id.as_str());
            }
            _ => {}
        }
    }
    assert!(words >= 2);
    let answers = rig.get("/api/cameras/a/answers").await.json();
    assert_eq!((answers["items"].as_array().unwrap().len(), &answers["next"]), (1, &Value::Null));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_searched_paged_and_exported() {
    let mut rig = Rig::start(&ball("yard")).await;
    rig.until_state("yard", CameraState::Live).await;
    for text in ["what is here now?", "=what is \"there\", now?", "what is here now?"] {
        let ask = json!({"cameras": ["yard"], "question": text});
        let asked = rig.send("POST", "/api/ask", ask).await.json();
        let id = asked["asked"][0]["id"].as_str().unwrap().to_owned();
        rig.answer(&id).await;
    }
    let found = |reply: &Reply| reply.json()["items"].as_array().unwrap().len();
    for (query, many) in [
        ("", 3),
        ("?q=here", 2),
        ("?q=THER+what", 1),
        ("?q=%22OR%22", 0),
        ("?q=*", 0),
        ("?kind=alert", 0),
        ("?camera=yard&kind=answer", 3),
        ("?camera=other", 0),
        ("?standing=true", 0),
        ("?standing=false", 3),
        ("?from=2100-01-01T00:00:00Z", 0),
        ("?to=2100-01-01T00:00:00Z", 3),
    ] {
        let reply = rig.get(&format!("/api/history{query}")).await;
        assert_eq!((reply.status, found(&reply)), (200, many), "{query}: {}", reply.text());
    }
    let first = rig.get("/api/history?limit=2").await.json();
    let rest = rig
        .get(&format!("/api/history?limit=2&before={}", first["next"].as_str().unwrap()))
        .await
        .json();
    let mut all = first["items"].as_array().unwrap().clone();
    all.extend(rest["items"].as_array().unwrap().clone());
    assert_eq!(rest["next"], Value::Null);
    let export = rig.get("/api/history.json").await;
    assert_eq!(export.json(), json!(all));
    assert_eq!(rig.get("/api/history.json?q=nothing").await.json(), json!([]));
    assert!(export.header("content-disposition").contains("history.json"));
    let table = rig.get("/api/history.csv").await;
    let mut table = csv::Reader::from_reader(&table.body[..]);
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 3);
    // No formula.
    assert_eq!(&rows[1][4], "'=what is \"there\", now?");
    for (path, status) in [
        ("/api/history?from=yesterday", 400),
        ("/api/history?limit=many", 400),
        ("/api/cameras/none", 404),
        ("/api/cameras/none/live.jpg", 404),
        ("/api/cameras/none/standing", 404),
        ("/api/pictures/none.jpg", 404),
        ("/api/none", 404),
        ("/none", 404),
    ] {
        let reply = rig.get(path).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(reply.json()["error"]["message"].is_string(), "{path}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_openai_ask_a_camera() {
    let mut rig = Rig::start(&(ball("yard") + &at("none", "/nowhere.webm"))).await;
    rig.until_state("yard", CameraState::Live).await;
    let models = rig.get("/v1/models").await.json();
    assert_eq!(models["data"][0]["id"], "yard");
    let ask = |model: &str, stream: bool| {
        let words = json!([{"type": "text", "text": "what is here now?"}]);
        let messages =
            json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": words}]);
        json!({"model": model, "stream": stream, "messages": messages, "temperature": 0.2})
    };
    let whole = rig.send("POST", "/v1/chat/completions", ask("yard", false)).await.json();
    assert_eq!(whole["object"], "chat.completion");
    let said = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!said.is_empty());
    let stream = rig.send("POST", "/v1/chat/completions", ask("yard", true)).await.text();
    let mut chunks: Vec<&str> =
        stream.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(chunks.pop(), Some("[DONE]"));
    let chunks: Vec<Value> =
        chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let words = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert!(!words.collect::<String>().is_empty());
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    for (model, status, kind) in
        [("other", 404, "invalid_request_error"), ("none", 503, "server_error")]
    {
        let reply = rig.send("POST", "/v1/chat/completions", ask(model, false)).await;
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (status, &json!(kind)));
    }
    let reply =
        rig.send("POST", "/v1/chat/completions", json!({"model": "yard", "messages": []})).await;
    assert_eq!(reply.status, 400);
    assert!(reply.json()["error"]["message"].as_str().unwrap().contains("user"));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nobody_is_let_in() {
    let access = format!("[access]\ntokens = [\"{TOKEN}\"]\nhosts = [\"wall.example\"]\n");
    let rig = Rig::start(&access).await;
    let reply = rig.get("/api/state").await;
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, "Bearer"));
    assert!(reply.json()["error"]["remedy"].as_str().unwrap().contains("Bearer"));
    for path in [
        "/api/events",
        "/v1/models",
        "/api/history.csv",
        "/api/openapi.json",
        "/api/pictures/a-1.jpg",
    ] {
        assert_eq!(rig.get(path).await.status, 401, "{path}");
    }
    assert_eq!(rig.get("/").await.status, 200);
    assert_eq!(rig.get("/healthz").await.status, 200);
    let state = |headers: Vec<(&'static str, String)>| {
        let url = rig.url("/api/state");
        blocking(move || request("GET", &url, &headers, None).status)
    };
    assert_eq!(state(vec![("authorization", format!("Bearer {TOKEN}"))]).await, 200);
    assert_eq!(state(vec![("authorization", format!("Bearer {TOKEN}x"))]).await, 401);
    let reply = rig.send("POST", "/api/login", json!({"token": "guess"})).await;
    assert_eq!(reply.status, 401);
    let reply = rig.send("POST", "/api/login", json!({"token": TOKEN})).await;
    let cookie = reply.header("set-cookie");
    assert!(
        reply.status == 204 && cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict")
    );
    let cookie = cookie.split(';').next().unwrap().to_owned();
    assert_eq!(state(vec![("cookie", format!("a=b; {cookie}"))]).await, 200);
    // Guessing has an end.
    let mut refused = 0;
    for _ in 0..20 {
        refused = rig.send("POST", "/api/login", json!({"token": "guess"})).await.status;
    }
    assert_eq!(refused, 429);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_are_kept_out_and_everything_has_a_bound() {
    let rig = Rig::start("[access]\nhosts = [\"Wall.example\"]\nquestions_per_minute = 2\n").await;
    let own = rig.wall.address().to_string();
    for (headers, status) in [
        (vec![("host", "wall.example")], 200),
        (vec![("host", "wall.example:8460")], 200),
        (vec![("host", "localhost")], 200),
        (vec![("host", "evil.example")], 421),
        (vec![("host", "wall.example.evil.example")], 421),
        (vec![("origin", &*format!("http://{own}"))], 200),
        (vec![("origin", "http://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("sec-fetch-site", "same-origin")], 200),
    ] {
        let reply = rig.with("/api/state", &headers).await;
        assert_eq!(reply.status, status, "{headers:?}");
    }
    let visit = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    assert_eq!(rig.with("/", &visit).await.status, 200);
    let page = rig.get("/").await;
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let long = json!({"cameras": ["a"], "question": "x".repeat(100_000)});
    assert_eq!(rig.send("POST", "/api/ask", long).await.status, 413);
    let ask = |text: &str| json!({"cameras": ["a"], "question": text});
    for bad in [
        ask(""),
        ask(&"x".repeat(3000)),
        json!({"cameras": [], "question": "q"}),
        json!({"cameras": "a"}),
    ] {
        let reply = rig.send("POST", "/api/ask", bad).await;
        assert_eq!(reply.status, 422);
        assert!(reply.json()["error"]["message"].is_string());
    }
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(rig.send("POST", "/api/ask", ask("what?")).await.status);
    }
    assert_eq!(statuses, [202, 202, 429]);
    let api = rig.get("/api/openapi.json").await.json();
    assert!(
        api["paths"]["/api/ask"]["post"].is_object()
            && api["paths"]["/v1/chat/completions"].is_object()
    );
    for page in ["/api/docs", "/api/docs.js"] {
        assert_eq!(rig.get(page).await.status, 200);
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_pictures_have_tags_and_streams_have_parts() {
    let mut rig = Rig::start(&ball("yard")).await;
    rig.until_state("yard", CameraState::Live).await;
    let live = rig.wall.cameras.live("yard").unwrap();
    let mut view = live.view();
    while live.newest().is_none() {
        view.changed().await.unwrap();
    }
    let picture = rig.get("/api/cameras/yard/live.jpg").await;
    assert_eq!((picture.status, picture.header("content-type")), (200, "image/jpeg"));
    let tag = picture.header("etag").to_owned();
    assert!(!tag.is_empty());
    let url = rig.url("/api/cameras/yard/live.mjpeg");
    let first = blocking(move || {
        let response = agent().get(&url).call().unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let mut lines = BufReader::new(response.into_body().into_reader()).split(b'\n');
        let mut boundaries = 0;
        while boundaries < 3 {
            let line = lines.next().unwrap().unwrap();
            boundaries += usize::from(line.starts_with(b"--picture"));
        }
        kind
    });
    assert_eq!(first.await, "multipart/x-mixed-replace; boundary=picture");
    rig.stop().await;
}

/// What nobody should send, and somebody will.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_sent_is_answered_with_what_is_wrong() {
    let mut rig = Rig::start(&(ball("yard") + "[access]\nquestions_per_minute = 10000\n")).await;
    rig.until_state("yard", CameraState::Live).await;
    let id = rig
        .wall
        .asks
        .ask("yard", Question { text: "a dog, AND \"a cat\"?".into(), ..Question::default() });
    rig.answer(&id.await.unwrap()).await;
    let unfit = [
        ("/api/cameras/nobody", 404),
        ("/api/cameras/%ff", 400),
        ("/api/cameras/%2e%2e%2f", 404),
        ("/api/cameras/yard/moments?around=-1", 422),
        ("/api/cameras/yard/moments?around=nan", 422),
        ("/api/cameras/yard/moments?at=yesterday", 400),
        ("/api/history?limit=-1", 400),
        ("/api/history?limit=99999999999999999999999", 400),
        ("/api/history?from=12", 400),
        ("/api/history?kind=all", 400),
        ("/api/live", 400),
        ("/api/live?cameras=", 404),
        ("/api/pictures/yard-99999999999999999999.jpg", 404),
        ("/api/pictures/..%2f..%2fwall.db", 404),
        ("/page/..%2f..%2fCargo.toml", 404),
        ("/nowhere", 404),
    ];
    for (path, status) in unfit {
        let reply = rig.get(path).await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert!(
            reply.json()["error"]["message"].as_str().is_some_and(|said| !said.is_empty()),
            "{path}"
        );
    }
    let long = rig.get(&format!("/api/history?q={}", "x".repeat(600))).await;
    assert_eq!(long.status, 422);

    // Searched for by its words, whatever they are written with.
    for (q, found) in [
        ("dog", true),
        ("DOG+cat", true),
        ("%22a+cat", true),
        ("dog+%22", true),
        ("*+dog", true),
        ("dog+-+cat", true),
        ("dog+AND+cat", true),
        ("NOT+dog", false),
        ("dog+OR+bird", false),
        ("dog%00cat", true),
        ("question:dog", false),
        ("')%3b+DROP+TABLE+entries%3b--", false),
        ("(((", false),
        ("%F0%9F%93%B7", false),
    ] {
        let reply = rig.get(&format!("/api/history?q={q}")).await;
        assert_eq!(reply.status, 200, "{q}: {reply:?}");
        assert_eq!(!reply.json()["items"].as_array().unwrap().is_empty(), found, "{q}");
    }
    // Bounds that are none: as many as there may be.
    for (path, found) in [
        ("/api/history?limit=0", 1),
        ("/api/history?limit=18446744073709551615", 1),
        ("/api/history?from=-009999-01-02T01:59:59Z", 1),
        ("/api/history?from=2999-01-01T00:00:00Z&to=1999-01-01T00:00:00Z", 0),
        ("/api/history?before=nothing-of-this-name", 0),
        ("/api/cameras/nobody/answers", 0),
        ("/api/cameras/yard/moments?at=9999-12-30T22:00:00Z&around=86400", 0),
    ] {
        let reply = rig.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(reply.json()["items"].as_array().unwrap().len(), found, "{path}");
    }
    for path in ["/api/history.json?limit=0", "/api/history.csv?limit=0"] {
        assert_eq!(rig.get(path).await.status, 200, "{path}");
    }

    let ask = |more: Value| {
        let mut body = json!({"cameras": ["yard"], "question": "what is here now?"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (body, status) in [
        (json!(null), 422),
        (json!([]), 422),
        (json!({}), 422),
        (ask(json!({"cameras": {"yard": 1}})), 422),
        (ask(json!({"question": 3})), 422),
        (ask(json!({"from": 5})), 422),
        (ask(json!({"from": "yesterday"})), 422),
        (ask(json!({"source": "standing?"})), 422),
        (ask(json!({"choices": ["one"]})), 422),
        (ask(json!({"more": true})), 422),
    ] {
        let reply = rig.send("POST", "/api/ask", body.clone()).await;
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        assert!(reply.json()["error"]["message"].is_string(), "{body}");
    }
    // Of many cameras some may be refused, each with a reason; twice the same is once.
    let of = json!({"cameras": ["yard", "nobody", "yard"], "question": "what is here now?"});
    let reply = rig.send("POST", "/api/ask", of).await.json();
    assert_eq!(reply["asked"].as_array().unwrap().len(), 1, "{reply}");
    assert!(reply["refused"][0]["reason"].as_str().unwrap().contains("nobody"), "{reply}");
    for more in [
        json!({"from": "2030-01-01T00:00:00Z", "to": "2020-01-01T00:00:00Z"}),
        json!({"from": "-009999-01-02T01:59:59Z", "to": "-009998-01-02T01:59:59Z"}),
    ] {
        let reply = rig.send("POST", "/api/ask", ask(more.clone())).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        let reply = reply.json();
        match reply["asked"][0]["id"].as_str() {
            // Nothing of that time is remembered, which is an answer, too.
            Some(id) => drop(rig.answer(id).await),
            None => assert!(reply["refused"][0]["reason"].is_string(), "{more}: {reply}"),
        }
    }
    for (body, status) in [
        (json!({"question": "is it?", "id": "../.."}), 422),
        (json!({"question": "is it?", "every": -1}), 422),
        (json!({"question": "is it?", "every": "often"}), 422),
        (json!({"question": "is it?", "on": "motion"}), 422),
        (json!({"question": "is it?", "when": "perhaps"}), 422),
        (json!({"question": "is it?", "for_s": 1}), 422),
        (json!({"question": ""}), 422),
    ] {
        let reply = rig.send("POST", "/api/cameras/yard/standing", body.clone()).await;
        assert_eq!(reply.status, status, "{body}: {reply:?}");
    }
    for (body, status) in [
        (json!({}), 422),
        (json!({"model": "yard", "messages": []}), 400),
        (json!({"model": "yard", "messages": [{"role": "user", "content": null}]}), 400),
        (json!({"model": "yard", "messages": [{"role": "user", "content": {"a": 1}}]}), 400),
        (json!({"model": "nobody", "messages": [{"role": "user", "content": "what?"}]}), 404),
        (json!({"model": "yard", "stream": "yes", "messages": []}), 422),
    ] {
        let reply = rig.send("POST", "/v1/chat/completions", body.clone()).await;
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        assert!(reply.json()["error"]["type"].is_string(), "{body}");
    }
    let url = rig.url("/api/ask");
    let deep = "[".repeat(50_000);
    let (deep, plain) = blocking(move || {
        let send = |kind: &str, body: &str| {
            let request = agent().post(&url).header("content-type", kind);
            request.send(body).unwrap().status().as_u16()
        };
        (send("application/json", &deep), send("text/plain", "{}"))
    })
    .await;
    assert_eq!((deep, plain), (422, 415));
    // It is as well as it was.
    let id = rig
        .wall
        .asks
        .ask("yard", Question { text: "what is here now?".into(), ..Question::default() });
    assert_eq!(rig.answer(&id.await.unwrap()).await.error, None);
    rig.stop().await;
}
