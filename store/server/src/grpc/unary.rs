//! Unary calls of the busiest methods, served on HTTP bodies directly.
//!
//! tonic's own way to a handler copies each message into a buffer of its own and the answer into
//! another. Here a request is decoded where it arrived, and an answer goes out in the pieces in which it
//! was made: a long list is in memory once. What the methods do is the services' alone.

use std::convert::Infallible;
use std::fmt::Display;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use axum::body::Body;
use axum::http::{self, HeaderMap, HeaderValue, Response, header};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use prost::Message;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::host::aside;

/// The flag and the length before a message.
const PREFIX: usize = 5;
/// What is worth copying behind its prefix.
const SHORT: usize = 16 << 10;
/// What takes long to encode: some 10 µs.
const LONG: usize = 64 << 10;

/// Whether a request speaks gRPC at all.
pub(super) fn is_grpc<B>(request: &http::Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    grpc && request.method() == http::Method::POST
}

/// A decoded request with what came beside it.
pub(super) async fn request<M, B>(
    request: http::Request<B>,
    bytes_max: usize,
) -> Result<tonic::Request<M>, Status>
where
    M: Message + Default,
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let (parts, body) = request.into_parts();
    let bytes = collect(body, bytes_max).await?;
    let message = M::decode(bytes);
    let message = message.map_err(|error| Status::internal(error.to_string()))?;
    let metadata = MetadataMap::from_headers(parts.headers);
    Ok(tonic::Request::from_parts(metadata, parts.extensions, message))
}

/// The one message of a request.
async fn collect<B>(mut body: B, bytes_max: usize) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    let mut held = Bytes::new();
    let mut gathered = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(error.to_string()))?;
        let Ok(data) = frame.into_data() else { break };
        if held.is_empty() && gathered.is_empty() {
            held = data;
        } else {
            gathered.put(std::mem::take(&mut held));
            gathered.put(data);
        }
        check(if gathered.is_empty() { &held } else { &gathered }, bytes_max)?;
    }
    let whole = if gathered.is_empty() { held } else { gathered.freeze() };
    check(&whole, bytes_max)?;
    let length = announced(&whole).filter(|length| whole.len() == PREFIX + length);
    if length.is_none() {
        return Err(Status::internal("Unexpected EOF decoding stream."));
    }
    Ok(whole.slice(PREFIX..))
}

fn announced(held: &[u8]) -> Option<usize> {
    let mut length = held.get(1..PREFIX)?;
    usize::try_from(length.get_u32()).ok()
}

/// Refuses what begins as no request should.
fn check(held: &[u8], bytes_max: usize) -> Result<(), Status> {
    if held.first().is_some_and(|flag| *flag != 0) {
        return Err(Status::unimplemented("compressed requests are not supported"));
    }
    match announced(held) {
        Some(length) if length > bytes_max => Err(Status::out_of_range(format!(
            "Error, decoded message length too large: found {length} bytes, the limit is: {bytes_max} bytes"
        ))),
        _ => Ok(()),
    }
}

/// An answer of one message. A connection goes on while a long one is encoded.
pub(super) async fn respond<M: Message + 'static>(answer: Result<M, Status>) -> Response<Body> {
    let message = match answer {
        Ok(message) => message,
        Err(status) => return status.into_http(),
    };
    let length = message.encoded_len();
    let framed = if length > LONG {
        aside(move || frame(&message, length)).await.unwrap_or_else(|error| {
            Err(Status::internal(format!("the answer was not encoded: {error}")))
        })
    } else {
        frame(&message, length)
    };
    framed.map_or_else(Status::into_http, |framed| answered(framed, Vec::new()))
}

/// A message of this length behind its prefix.
fn frame(message: &impl Message, length: usize) -> Result<Bytes, Status> {
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    put_prefix(&mut framed, length)?;
    message.encode(&mut framed).map_err(|error| Status::internal(error.to_string()))?;
    Ok(framed.freeze())
}

fn put_prefix(framed: &mut BytesMut, length: usize) -> Result<(), Status> {
    let too_long = |_| Status::out_of_range("the answer is larger than 4 GiB");
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).map_err(too_long)?);
    Ok(())
}

/// An answer of one message that lies in pieces.
pub(super) fn pieces(pieces: Vec<Bytes>) -> Response<Body> {
    let length = pieces.iter().map(Bytes::len).sum();
    let mut pieces = pieces.into_iter().peekable();
    // A short answer is one frame.
    let short = pieces.next_if(|piece| piece.len() < SHORT).unwrap_or_default();
    let mut first = BytesMut::with_capacity(PREFIX + short.len());
    if let Err(status) = put_prefix(&mut first, length) {
        return status.into_http();
    }
    first.put(short);
    answered(first.freeze(), pieces.collect())
}

fn answered(first: Bytes, rest: Vec<Bytes>) -> Response<Body> {
    let answer = Answer { first: Some(first), rest: rest.into_iter(), ended: false };
    let mut response = Response::new(Body::new(answer));
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Data, then the trailers that say that all is well.
struct Answer {
    first: Option<Bytes>,
    rest: vec::IntoIter<Bytes>,
    ended: bool,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.first.take().or_else(|| self.rest.next());
        if let Some(data) = next {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    /// Without an upper bound: hyper would announce the length, which gRPC has no use for.
    fn size_hint(&self) -> SizeHint {
        let frames = self.first.iter().chain(self.rest.as_slice());
        let mut hint = SizeHint::new();
        hint.set_lower(frames.map(|frame| frame.len() as u64).sum());
        hint
    }
}

#[cfg(test)]
mod tests {
    use pintle_store_api::pb::PutRequest;

    use super::*;

    fn frame(message: &[u8], flag: u8) -> Vec<u8> {
        let length = u32::try_from(message.len()).expect("short").to_be_bytes();
        [&[flag], length.as_slice(), message].concat()
    }

    async fn decode(chunks: Vec<Vec<u8>>, bytes_max: usize) -> Result<PutRequest, Status> {
        let chunks = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
        let body = Body::from_stream(futures::stream::iter(chunks));
        Ok(request(http::Request::new(body), bytes_max).await?.into_inner())
    }

    fn put() -> PutRequest {
        PutRequest { key: "key".into(), value: vec![7; 100].into(), ..Default::default() }
    }

    #[tokio::test]
    async fn a_request_in_any_number_of_chunks_is_the_same() {
        let bytes = frame(&put().encode_to_vec(), 0);
        for size in [1, 2, 7, bytes.len()] {
            let chunks = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(decode(chunks, 1_000).await.expect("decodes"), put(), "chunks of {size}");
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused_with_its_reason() {
        let bytes = put().encode_to_vec();
        for (chunks, bytes_max, code) in [
            (vec![frame(&bytes, 0)], 10, tonic::Code::OutOfRange),
            (vec![frame(&bytes, 1)], 1_000, tonic::Code::Unimplemented),
            (vec![frame(&bytes, 0)[..20].to_vec()], 1_000, tonic::Code::Internal),
            (vec![[frame(&bytes, 0), vec![0]].concat()], 1_000, tonic::Code::Internal),
            (Vec::new(), 1_000, tonic::Code::Internal),
            (vec![frame(&[0xff], 0)], 1_000, tonic::Code::Internal),
        ] {
            let refused = decode(chunks, bytes_max).await.expect_err("refused");
            assert_eq!(refused.code(), code, "{refused:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_in_pieces_is_one_message_and_trailers() {
        for size in [1, 50, 20 << 10] {
            let bytes = vec![9; 30 << 10];
            let parts = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
            let body = pieces(parts).into_body().collect().await.expect("no error");
            let trailers = body.trailers().cloned().expect("trailers");
            assert_eq!(trailers["grpc-status"], "0");
            assert_eq!(body.to_bytes(), frame(&bytes, 0));
        }
    }
}
