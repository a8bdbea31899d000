// SPDX-License-Identifier: MPL-2.0
use std::collections::BTreeSet;

use super::*;
use crate::cameras::Settings;
use crate::config::HistoryConfig;

fn app(folder: &std::path::Path) -> Arc<App> {
    let hub = Hub::new();
    let history = History::start(folder, &HistoryConfig::default(), &hub).unwrap();
    let settings =
        Settings { host: "here".into(), memories: folder.to_owned(), model: None, alone: true };
    let cameras = Cameras::new(hub.clone(), history.clone(), settings);
    let asks: Arc<dyn Asks> = Arc::new(cameras.clone());
    let metrics = Metrics::start(&hub, &hub);
    Arc::new(App::new(&Config::default(), "here", &hub, &history, &cameras, &asks, metrics))
}

/// Methods and paths, as axum's router itself tells them: `RouteId(1): MethodRouter { ..., allow_header:
/// Bytes(b"GET,HEAD") }` and `RouteId(1): "/api/state"`.
fn served(router: &Router) -> BTreeSet<(String, String)> {
    let told = format!("{router:?}");
    let after = |text: &'static str| told.split(text).skip(1);
    let mut served = BTreeSet::new();
    for route in after("RouteId(") {
        let Some((id, path)) = route.split_once("): \"") else { continue };
        let path_of_none = path.contains("__private__axum");
        if path_of_none || !id.chars().all(|c| c.is_ascii_digit()) {
            continue;
        }
        let path = path.split('"').next().unwrap();
        let methods = after("RouteId(").find_map(|other| {
            let inner = other.strip_prefix(id)?.strip_prefix("): MethodRouter")?;
            inner.split_once("allow_header: Bytes(b\"")?.1.split('"').next()
        });
        let methods = methods.unwrap_or_else(|| panic!("{path} has no methods in {told}"));
        // Whoever serves GET serves HEAD.
        for method in methods.split(',').filter(|method| *method != "HEAD") {
            served.insert((method.to_owned(), path.to_owned()));
        }
    }
    served
}

#[tokio::test]
async fn every_route_is_described_and_everything_described_is_a_route() {
    let folder = tempfile::tempdir().unwrap();
    let (router, api) = routes(&app(folder.path()));
    let served = served(&router);
    let api = serde_json::to_value(api).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, about) in methods.as_object().unwrap() {
            let what = about["summary"].as_str().unwrap_or_default();
            assert!(!what.is_empty(), "{method} {path} says nothing");
            described.insert((method.to_uppercase(), path.clone()));
        }
    }
    assert!(served.contains(&("POST".into(), "/api/cameras/{camera}/whep".into())), "{served:#?}");
    assert_eq!(served, described);
}
