//! What happens around every call: it is counted, and refused at once if the client insists on a
//! leader and there is none.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status};

use crate::core::Core;
use crate::errors;
use crate::metrics::Call;

pub(super) fn around(routes: Router, core: &Arc<Core>) -> Router {
    routes.layer(from_fn_with_state(Arc::clone(core), call))
}

async fn call(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let Some(mut call) = core.counters.calls.start(request.uri().path()) else {
        return next.run(request).await;
    };
    if let Err(refusal) = check_leader(&core, request.headers()) {
        call.ends_with(refusal.code());
        return refusal.into_http();
    }
    let counted = Arc::clone(&core);
    let request = request.map(|body| {
        let count = Counted { body, core: counted, direction: Direction::Received };
        Body::new(count)
    });
    let response = next.run(request).await;
    // A call that fails at once has its status among the headers.
    if let Some(code) = code(response.headers()) {
        call.ends_with(code);
        return response;
    }
    response.map(|body| Body::new(Counted { body, core, direction: Direction::Sent(call) }))
}

/// Refuses at once what insists on a leader while there is none.
pub(super) fn check_leader(core: &Core, headers: &HeaderMap) -> Result<(), Status> {
    let insists = headers.get("hasleader").is_some_and(|value| value == "true");
    if insists && core.leadership.leader_id().is_none() {
        return Err(errors::transient(errors::NO_LEADER));
    }
    Ok(())
}

/// A unary call that does not come through the router.
pub(super) struct Direct<'a> {
    core: &'a Core,
    call: Option<Call>,
}

impl<'a> Direct<'a> {
    pub(super) fn start(core: &'a Core, path: &str) -> Self {
        Self { core, call: core.counters.calls.start(path) }
    }

    /// An answer that begins well ends well: it lies there whole.
    pub(super) fn end(&mut self, answer: &Result<Response, Status>) {
        let (code, bytes) = match answer {
            Ok(response) => {
                (code(response.headers()).unwrap_or(Code::Ok), response.body().size_hint().lower())
            }
            Err(status) => (status.code(), 0),
        };
        self.core.counters.calls.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(mut call) = self.call.take() {
            call.ends_with(code);
        }
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers
        .contains_key("grpc-status")
        .then(|| Status::from_header_map(headers).map_or(Code::Unknown, |status| status.code()))
}

enum Direction {
    Received,
    Sent(Call),
}

struct Counted {
    body: Body,
    core: Arc<Core>,
    direction: Direction,
}

impl Counted {
    fn bytes(&self) -> &AtomicU64 {
        let calls = &self.core.counters.calls;
        match self.direction {
            Direction::Received => &calls.received_bytes,
            Direction::Sent(_) => &calls.sent_bytes,
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                this.bytes().fetch_add(data.len() as u64, Ordering::Relaxed);
            }
            if let (Some(trailers), Direction::Sent(call)) =
                (frame.trailers_ref(), &mut this.direction)
            {
                call.ends_with(code(trailers).unwrap_or(Code::Unknown));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
