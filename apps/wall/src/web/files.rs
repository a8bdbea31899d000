// SPDX-License-Identifier: MPL-2.0
//! The files of the page, which are part of the program.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use include_dir::{Dir, include_dir};

static PAGE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/page");

/// The page.
#[utoipa::path(get, path = "/", tag = "page", responses((status = 200, content_type = "text/html")))]
pub async fn index() -> Response {
    serve("index.html")
}

/// Its files.
#[utoipa::path(get, path = "/page/{*path}", tag = "page", params(("path" = String, Path)),
    responses((status = 200), (status = 404)))]
pub async fn file(Path(path): Path<String>) -> Response {
    serve(&path)
}

fn serve(path: &str) -> Response {
    match PAGE.get_file(path) {
        Some(file) => {
            let headers =
                [(header::CONTENT_TYPE, content_type(path)), (header::CACHE_CONTROL, "no-cache")];
            (headers, file.contents()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
