//! HTTP: from a request to what it asks for, and from an outcome to its answer.
//!
//! Holds: every request is answered, and with a `Status` object when it is refused; nothing in here decides what a write
//! does.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod manager;
pub(crate) mod protobuf;
pub(crate) mod query;
pub(crate) mod reads;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod writes;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::Value;

use crate::access::admission::Caller;
use crate::access::attributes::Attributes;
use crate::access::review;
use crate::discovery;
use crate::openapi;
use crate::refusal::Refusal;
use crate::server::Server;
use body::ApiBody;
use query::Query;
use route::Route;

/// A request whose body was read.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: bytes::Bytes,
    /// Who asks.
    pub(crate) caller: Caller,
    /// What for, as rules speak of it.
    pub(crate) attributes: Attributes,
}

/// Answers a request.
pub(crate) async fn answer(server: &Server, asked: Asked) -> Response<ApiBody> {
    match dispatch(server, asked).await {
        Ok(response) => response,
        Err(refusal) => refused(&refusal),
    }
}

async fn dispatch(server: &Server, asked: Asked) -> Result<Response<ApiBody>, Refusal> {
    if let Some(answer) = review::serve(server, &asked) {
        return answer;
    }
    let registry = &server.core.registry;
    let route = route::route(registry, &asked.path)?;
    let Route::Objects(place) = route else {
        return if asked.method == Method::GET {
            describe(server, &asked, route)
        } else {
            Err(Refusal::MethodNotAllowed)
        };
    };
    match (&asked.method, &place.name) {
        (&Method::GET, Some(_)) if !asked.query.flag("watch")? => reads::get(server, &asked, &place),
        (&Method::GET, _) => reads::list_or_watch(server, &asked, &place),
        (&Method::POST, None) => writes::create(server, asked, place).await,
        (&Method::PUT, Some(_)) => writes::replace(server, asked, place).await,
        (&Method::PATCH, Some(_)) => writes::patch(server, asked, place).await,
        (&Method::DELETE, Some(_)) if !place.status => writes::delete(server, asked, place).await,
        (&Method::DELETE, None) => writes::delete_all(server, asked, place).await,
        (_, _) => Err(Refusal::MethodNotAllowed),
    }
}

/// What is not about objects.
fn describe(server: &Server, asked: &Asked, route: Route) -> Result<Response<ApiBody>, Refusal> {
    let registry = &server.core.registry;
    let aggregated = accept::aggregated(&asked.headers);
    let document = match (route, aggregated) {
        (Route::Health, _) => return Ok(health(server)),
        (Route::Version, _) => discovery::version(),
        (Route::CoreVersions, None) => discovery::core_versions(),
        (Route::Groups, None) => discovery::group_list(registry),
        (Route::CoreVersions, Some(kind)) => return Ok(typed(kind, &discovery::aggregated_core(registry))),
        (Route::Groups, Some(kind)) => return Ok(typed(kind, &discovery::aggregated_groups(registry))),
        (Route::Group(group), _) => discovery::group(registry, &group).ok_or(Refusal::NoSuchPath)?,
        (Route::Resources { group, version }, _) => {
            discovery::resource_list(registry, &group, &version).ok_or(Refusal::NoSuchPath)?
        }
        (Route::OpenApiIndex, _) => openapi::index(registry),
        (Route::OpenApi { group, version }, _) => {
            openapi::document(registry, &group, &version).ok_or(Refusal::NoSuchPath)?
        }
        (Route::Objects(_), _) => return Err(Refusal::NoSuchPath),
    };
    Ok(json(StatusCode::OK, document.to_string().into_bytes()))
}

fn health(server: &Server) -> Response<ApiBody> {
    if server.is_closed() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
    }
    plain(StatusCode::OK, "ok")
}

fn plain(code: StatusCode, text: &str) -> Response<ApiBody> {
    with(code, "text/plain; charset=utf-8", ApiBody::whole(text.as_bytes().to_vec()))
}

fn typed(content_type: &'static str, document: &Value) -> Response<ApiBody> {
    with(StatusCode::OK, content_type, ApiBody::whole(document.to_string().into_bytes()))
}

pub(crate) fn json(code: StatusCode, bytes: Vec<u8>) -> Response<ApiBody> {
    with(code, "application/json", ApiBody::whole(bytes))
}

pub(crate) fn with(code: StatusCode, content_type: &'static str, body: ApiBody) -> Response<ApiBody> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// The answer to a refused request.
pub(crate) fn refused(refusal: &Refusal) -> Response<ApiBody> {
    let code = StatusCode::from_u16(refusal.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, refusal.status().to_string().into_bytes());
    if code == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// Adds warnings, each in a header of its own.
pub(crate) fn warn(response: &mut Response<ApiBody>, warnings: &[String]) {
    /// More would burst the client's limit on headers.
    const MOST: usize = 32;
    for warning in warnings.iter().take(MOST) {
        let text: String =
            warning.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(256).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
