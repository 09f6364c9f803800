//! The addresses of the viewer and what each answers. `docs/view.md` lists them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State as Held};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Router, middleware};
use serde::Serialize;
use serde_json::{Value, json};

use super::capture::{Capture, Content};
use super::filter::{Asked, WrongFilter};
use super::guard::{self, Guard};
use super::list::{self, Sort};
use super::overview::{self, OfLane};
use super::state::State;
use super::timeline::{self, Range, Timeline};
use super::{detail, difference, page, perfetto, series, tree};
use crate::failure::Failure;
use crate::neutral::neutral_json;

/// How long a question for changes may wait.
const PATIENCE: Duration = Duration::from_secs(25);

/// Pieces of a trace that wait to be sent.
const PIECES_AHEAD: usize = 4;

/// Everything that is served.
pub(super) fn router(state: Arc<State>, guard: Guard) -> Router {
    Router::new()
        .route("/", get(|| async { text("text/html; charset=utf-8", page::INDEX) }))
        .route("/viewer.js", get(|| async { text("text/javascript; charset=utf-8", page::SCRIPT) }))
        .route("/viewer.css", get(|| async { text("text/css; charset=utf-8", page::STYLE) }))
        .route("/api/changes", get(changes))
        .route("/api/{what}", get(api))
        .fallback(|| async {
            refusal(StatusCode::NOT_FOUND, "nothing is here; open / with the token that was printed")
        })
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .with_state(state)
}

pub(super) type Parameters = HashMap<String, String>;

async fn api(
    Held(state): Held<Arc<State>>,
    Path(what): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Response {
    // Reading and sorting may take a while, and has no place among connections.
    let answered = tokio::task::spawn_blocking(move || answer(&state, &what, &parameters)).await;
    match answered {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => refused.response(),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "this question met a bug of kastor; please report it"),
    }
}

async fn changes(Held(state): Held<Arc<State>>, Query(parameters): Query<Parameters>) -> Response {
    let since = parameters.get("since").and_then(|since| since.parse().ok()).unwrap_or(0);
    let mut versions = state.versions();
    let _ = tokio::time::timeout(PATIENCE, versions.wait_for(|version| *version > since)).await;
    ok(&json!({ "version": state.version() })).unwrap_or_else(|refused| refused.response())
}

/// Why a question has no answer.
pub(super) enum Refused {
    Wrong(String),
    Filter(WrongFilter),
    Unknown(String),
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Refused {
    pub(super) fn response(self) -> Response {
        match self {
            Self::Wrong(message) => refusal(StatusCode::BAD_REQUEST, &message),
            Self::Unknown(message) => refusal(StatusCode::NOT_FOUND, &message),
            Self::Failed(failure) => refusal(StatusCode::UNPROCESSABLE_ENTITY, &failure.to_string()),
            Self::Filter(wrong) => {
                let document = json!({ "error": wrong.message, "at": wrong.at, "length": wrong.length });
                with_status(StatusCode::BAD_REQUEST, &document)
            }
        }
    }
}

/// The answer to a question.
pub(super) fn answer(state: &State, what: &str, parameters: &Parameters) -> Result<Response, Refused> {
    let question = Question { state, parameters };
    match what {
        "overview" => {
            let captures = state.captures();
            ok(&overview::overview(captures.iter().map(|it| &**it), state.is_live(), state.version()))
        }
        "paths" => ok(&overview::paths(&*question.capture()?)),
        "timeline" => question.timeline(),
        "tree" => question.tree(),
        "diff" => question.diff(),
        "list" => question.list(),
        "scope" => question.scope(),
        "metrics" => ok(&series::listed(&*question.capture()?)),
        "points" => question.points(),
        "perfetto" => question.perfetto(),
        _ => Err(Refused::Unknown(format!("no address /api/{what}; docs/view.md lists those that are"))),
    }
}

/// A question, with what it says.
struct Question<'q> {
    state: &'q State,
    parameters: &'q Parameters,
}

/// A timeline, and lanes that the overview does not list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimelineAnswer {
    #[serde(flatten)]
    timeline: Timeline,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    more_lanes: Vec<OfLane>,
}

impl Question<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Refused> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(Refused::Wrong(format!("'{name}' is no number: {text:?}"))),
        }
    }

    fn capture(&self) -> Result<Arc<Capture>, Refused> {
        let index = self.number("capture")?.unwrap_or(0.0);
        let captures = self.state.captures();
        let found = captures.get(index.max(0.0) as usize).filter(|_| index >= 0.0);
        found.cloned().ok_or_else(|| Refused::Wrong(format!("no capture {index}; there are {}", captures.len())))
    }

    fn filter(&self) -> Result<Asked, Refused> {
        Asked::parse(self.text("filter").unwrap_or("")).map_err(Refused::Filter)
    }

    /// The time that is asked about; all of it where nothing is said.
    fn range(&self, capture: &Capture) -> Result<Range, Refused> {
        let at = |ns: f64| capture.start_ns.saturating_add(ns.max(0.0) as u64).min(u64::MAX / 2);
        let from_ns = self.number("from")?.map_or(capture.start_ns, |ns| at(ns.floor()));
        let to_ns = self.number("to")?.map_or(capture.end_ns + 1, |ns| at(ns.ceil())).max(from_ns + 1);
        let pixels = self.number("pixels")?.unwrap_or(1000.0).clamp(1.0, 20_000.0) as u32;
        Ok(Range { from_ns, to_ns, pixels })
    }

    fn timeline(&self) -> Result<Response, Refused> {
        let capture = self.capture()?;
        let (asked, range) = (self.filter()?, self.range(&capture)?);
        match &capture.content {
            Content::Scopes(scopes) => {
                let selection = capture.selections.of(&asked, &capture, scopes)?;
                let selection = (*selection).as_ref();
                let timeline = timeline::boxes(scopes, range, capture.start_ns, selection, |lane| lane);
                ok(&TimelineAnswer { timeline, more_lanes: Vec::new() })
            }
            Content::Windows(windows) => {
                let Some(window) = windows.around(&capture, range.from_ns, range.to_ns)? else {
                    return ok(&timeline::density(&capture, range));
                };
                let selection = window.selections.of(&asked, &capture, &window.scopes)?;
                let ids = window.lane_ids(capture.threads.len());
                let id = |lane: u32| ids.get(lane as usize).copied().unwrap_or(lane);
                let selection = (*selection).as_ref();
                let mut timeline = timeline::boxes(&window.scopes, range, capture.start_ns, selection, id);
                timeline.truncated |= window.is_truncated;
                let more_lanes = (0..)
                    .zip(&window.scopes.lanes)
                    .filter(|(_, lane)| lane.number > 0)
                    .map(|(number, lane)| OfLane::new(&capture, id(number), lane))
                    .collect();
                ok(&TimelineAnswer { timeline, more_lanes })
            }
        }
    }

    fn tree(&self) -> Result<Response, Refused> {
        let capture = self.capture()?;
        let asked = self.filter()?;
        let selection = match &capture.content {
            Content::Scopes(scopes) => Some(capture.selections.of(&asked, &capture, scopes)?),
            Content::Windows(_) => None,
        };
        let selection = selection.as_ref().and_then(|selection| (**selection).as_ref());
        ok(&tree::call_tree(&capture, &asked.filter, selection)?)
    }
}

impl Question<'_> {
    fn diff(&self) -> Result<Response, Refused> {
        let captures = self.state.captures();
        let [new, base] = &captures[..] else {
            return Err(Refused::Wrong("nothing to compare with; start `kastor view` with --base FILE".to_owned()));
        };
        let asked = self.filter()?;
        let version = self.state.version();
        if let Some(known) = self.state.known_difference(version, &asked.text) {
            return Ok(json_response(StatusCode::OK, &known));
        }
        let text = to_text(&difference::compare(new, base, &asked.filter)?)?;
        self.state.keep_difference(version, &asked.text, &text);
        Ok(json_response(StatusCode::OK, &text))
    }

    fn list(&self) -> Result<Response, Refused> {
        let capture = self.capture()?;
        let (asked, range) = (self.filter()?, self.range(&capture)?);
        let sort = self.text("sort").unwrap_or("duration");
        let Some(sort) = Sort::parse(sort) else {
            return Err(Refused::Wrong(format!("no order '{sort}'; there are duration, -duration, start and -start")));
        };
        let limit = self.number("limit")?.unwrap_or(100.0).clamp(0.0, list::MOST_ROWS as f64) as usize;
        let order = (sort, limit);
        match &capture.content {
            Content::Scopes(scopes) => {
                let selection = capture.selections.of(&asked, &capture, scopes)?;
                ok(&list::of_scopes(&capture, scopes, range, (*selection).as_ref(), order, |lane| lane)?)
            }
            Content::Windows(windows) => match windows.around(&capture, range.from_ns, range.to_ns)? {
                Some(window) if !window.is_truncated => {
                    let selection = window.selections.of(&asked, &capture, &window.scopes)?;
                    let ids = window.lane_ids(capture.threads.len());
                    let id = |lane: u32| ids.get(lane as usize).copied().unwrap_or(lane);
                    ok(&list::of_scopes(&capture, &window.scopes, range, (*selection).as_ref(), order, id)?)
                }
                _ => ok(&list::of_blocks(&capture, range, &asked, order)?),
            },
        }
    }

    fn scope(&self) -> Result<Response, Refused> {
        let capture = self.capture()?;
        let reference = self.text("ref").unwrap_or("");
        match detail::detail(&capture, reference)? {
            Some(detail) => ok(&detail),
            None => {
                Err(Refused::Unknown(format!("no scope '{reference}' in this capture; choose one in the timeline")))
            }
        }
    }

    fn points(&self) -> Result<Response, Refused> {
        let capture = self.capture()?;
        let range = self.range(&capture)?;
        let id = self.number("series")?.unwrap_or(-1.0);
        let series = capture.metrics.series.get(id as usize).filter(|_| id >= 0.0);
        let series =
            series.ok_or_else(|| Refused::Unknown(format!("no series {id}; /api/metrics lists those that are")))?;
        ok(&series::points(&capture, series, range))
    }

    fn perfetto(&self) -> Result<Response, Refused> {
        let capture = self.capture()?;
        let asked = self.filter()?;
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<std::io::Result<Vec<u8>>>(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            let written = perfetto::write(&capture, &asked.filter, |piece| sender.blocking_send(Ok(piece)).is_ok());
            if let Err(failure) = written {
                // The browser learns that the trace is not whole.
                let _ = sender.blocking_send(Err(std::io::Error::other(failure.to_string())));
            }
        });
        let pieces = futures_lite::stream::poll_fn(move |context| receiver.poll_recv(context));
        let mut response = Response::new(Body::from_stream(pieces));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        Ok(response)
    }
}

fn to_text(document: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(document)
        .map_err(|error| Failure::new(format!("cannot write the answer: {error}"), "please report this as a bug"))
}

fn ok(document: &impl Serialize) -> Result<Response, Refused> {
    let text = to_text(document)?;
    Ok(json_response(StatusCode::OK, &text))
}

/// An error as the page shows it.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response {
    with_status(status, &json!({ "error": message }))
}

fn with_status(status: StatusCode, document: &Value) -> Response {
    json_response(status, &document.to_string())
}

fn json_response(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(neutral_json(text).into_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(kind: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
