// SPDX-License-Identifier: MPL-2.0
//! Who may see the wall: by which name it is reached, from which page, with which token.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

use super::App;
use super::error::ApiError;

const COOKIE: &str = "wall";
/// Seconds that a browser stays logged in.
const LOGGED_IN: u64 = 30 * 24 * 3600;

/// Refuses what comes by a strange name or from another site's page, and what has no token.
pub async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if let Err(error) = check_host(&app, headers)
        .and_then(|()| check_origin(headers, request.method(), request.uri().path()))
    {
        return error.into_response();
    }
    let path = request.uri().path();
    let is_open = matches!(path, "/" | "/healthz" | "/api/login") || path.starts_with("/page/");
    if !is_open && !is_known(&app, headers) {
        let error = ApiError::new(StatusCode::UNAUTHORIZED, "a token is needed");
        let remedy = "send the header Authorization: Bearer TOKEN, or log in on the page; tokens stand in section \
                      [access] of the configuration";
        let mut response = error.remedy(remedy).into_response();
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        return response;
    }
    next.run(request).await
}

/// A page of another site may have its name lead to this machine (DNS rebinding); an address of numbers cannot.
fn check_host(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host_name(host).to_ascii_lowercase();
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let is_local = name == "localhost" || name.ends_with(".localhost");
    if is_address || is_local || app.access().hosts.contains(&name) {
        return Ok(());
    }
    let error = ApiError::new(
        StatusCode::MISDIRECTED_REQUEST,
        format!("this wall is not known as \"{name}\""),
    );
    Err(error.remedy(format!(
        "if it is to be, put it into the configuration: hosts = [\"{name}\"] in section [access]"
    )))
}

/// Without the port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// Other sites' pages may neither do anything here nor look.
fn check_origin(headers: &HeaderMap, method: &Method, path: &str) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let refused =
        || ApiError::new(StatusCode::FORBIDDEN, "this request comes from the page of another site");
    if let Some(origin) = text("origin") {
        let here = text("host").unwrap_or_default();
        let is_here =
            origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(here));
        if !is_here {
            return Err(refused());
        }
    }
    let is_foreign =
        text("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site");
    // Somebody follows a link to the wall.
    let is_visit = *method == Method::GET
        && text("sec-fetch-mode") == Some("navigate")
        && !path.starts_with("/api/");
    if is_foreign && !is_visit { Err(refused()) } else { Ok(()) }
}

fn is_known(app: &App, headers: &HeaderMap) -> bool {
    let access = app.access();
    if access.tokens.is_empty() {
        return true;
    }
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
    let bearer = bearer
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let cookies = text(header::COOKIE).unwrap_or_default();
    let cookie = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
    let cookie = cookie.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value);
    bearer.into_iter().chain(cookie).any(|token| is_token(&access.tokens, token))
}

/// In a time that tells nothing.
fn is_token(tokens: &[String], given: &str) -> bool {
    let equal = tokens.iter().map(|token| token.as_bytes().ct_eq(given.as_bytes()));
    equal.fold(subtle::Choice::from(0), |any, one| any | one).into()
}

/// A token for a browser to remember.
#[derive(Deserialize, ToSchema)]
pub struct Login {
    token: String,
}

/// Gives a browser the cookie that pictures and events need.
#[utoipa::path(post, path = "/api/login", request_body = Login, tag = "access",
    responses((status = 204, description = "the cookie is set"), (status = 401, description = "no such token")))]
pub async fn login(
    State(app): State<Arc<App>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    body: Result<Json<Login>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, ApiError> {
    app.limits.login(from.ip())?;
    let Json(Login { token }) = body?;
    if !app.access().tokens.is_empty() && !is_token(&app.access().tokens, &token) {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "there is no such token"));
    }
    let is_plain = token.chars().all(|c| c.is_ascii_graphic() && !";,\"\\".contains(c));
    if !is_plain {
        let error = ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "this token cannot be put into a cookie",
        );
        return Err(error.remedy("use one of letters and digits"));
    }
    let cookie =
        format!("{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={LOGGED_IN}");
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_no_part_of_a_name() {
        for (host, name) in [
            ("a:80", "a"),
            ("a", "a"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("", ""),
        ] {
            assert_eq!(host_name(host), name);
        }
    }
}
