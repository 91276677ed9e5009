//! Protobuf's JSON mapping as etcd's gateway uses it: names as in the `.proto` texts, 64-bit numbers
//! as strings, bytes in base64, enums by name, nothing that has its default. On the way in, fields
//! that nobody knows are ignored.

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use serde::de::IgnoredAny;
use tonic::Status;

/// What an answer looks like.
pub(super) fn encode(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(true)
        .use_enum_numbers(false)
        .use_proto_field_name(true)
        .skip_default_fields(true);
    let mut body = Vec::new();
    let written =
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut body), &options);
    written.map(|()| body).map_err(|error| Status::internal(error.to_string()))
}

fn decode(kind: &MessageDescriptor, text: &[u8]) -> Result<DynamicMessage, Status> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut source = serde_json::Deserializer::from_slice(text);
    DynamicMessage::deserialize_with_options(kind.clone(), &mut source, &options)
        .map_err(|error| Status::invalid_argument(format!("proto: {error}")))
}

/// The messages in a body: one, the default if the body is empty; or for a method that takes a
/// stream, as many as come, read as they are asked for. The first one is looked at before the call
/// is made, so that a mistake in it is told as such.
pub(super) async fn messages(
    body: Body,
    method: &MethodDescriptor,
    bytes_max: usize,
) -> Result<BoxStream<'static, DynamicMessage>, Status> {
    let mut source = Source::new(body, method.input(), bytes_max);
    let first = source.next().await?;
    if !method.is_client_streaming() {
        let message = first.unwrap_or_else(|| DynamicMessage::new(method.input()));
        return Ok(stream::iter([message]).boxed());
    }
    let rest = stream::unfold(source, |mut source| async move {
        match source.next().await {
            Ok(next) => next.map(|message| (message, source)),
            Err(error) => {
                tracing::debug!(%error, "a stream of requests ended at what is no request");
                None
            }
        }
    });
    Ok(stream::iter(first).chain(rest).boxed())
}

/// JSON values that follow one another in a body.
struct Source {
    body: BodyDataStream,
    kind: MessageDescriptor,
    read: BytesMut,
    bytes_max: usize,
    ended: bool,
}

impl Source {
    fn new(body: Body, kind: MessageDescriptor, bytes_max: usize) -> Self {
        let body = body.into_data_stream();
        Self { body, kind, read: BytesMut::new(), bytes_max, ended: false }
    }

    /// The next value, once it is complete; `None` at the end.
    async fn next(&mut self) -> Result<Option<DynamicMessage>, Status> {
        loop {
            if let Some(text) = self.take()? {
                return decode(&self.kind, &text).map(Some);
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.next().await {
                Some(Ok(data)) => self.read.extend_from_slice(&data),
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
                None => self.ended = true,
            }
            if self.read.len() > self.bytes_max {
                return Err(Status::resource_exhausted(format!(
                    "grpc: received message larger than max ({} vs. {})",
                    self.read.len(),
                    self.bytes_max
                )));
            }
        }
    }

    /// Cuts the first value off what was read, if all of it is there.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let blank = self.read.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.read.advance(blank);
        if self.read.is_empty() {
            return Ok(None);
        }
        let mut values = serde_json::Deserializer::from_slice(&self.read).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                let length = values.byte_offset();
                Ok(Some(self.read.split_to(length).freeze()))
            }
            Some(Err(error)) if error.is_eof() && !self.ended => Ok(None),
            Some(Err(error)) => Err(Status::invalid_argument(format!("proto: {error}"))),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_reflect::DescriptorPool;

    use super::*;

    fn kind(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(pintle_proto::ETCD_DESCRIPTORS).expect("built");
        pool.get_message_by_name(name).expect("known")
    }

    fn through<M: Message>(name: &str, message: &M) -> String {
        let dynamic = DynamicMessage::decode(kind(name), message.encode_to_vec().as_slice());
        String::from_utf8(encode(&dynamic.expect("decodes")).expect("encodes")).expect("text")
    }

    fn parsed<M: Message + Default>(name: &str, text: &str) -> M {
        let dynamic = decode(&kind(name), text.as_bytes()).expect("parses");
        M::decode(dynamic.encode_to_vec().as_slice()).expect("the same message")
    }

    use pintle_store_api::pb;

    #[test]
    fn answers_look_as_protojson_writes_them() {
        let header = pb::ResponseHeader { cluster_id: u64::MAX, revision: 7, ..Default::default() };
        let kv = pintle_store_api::mvccpb::KeyValue {
            key: "foo".into(),
            value: vec![0xff, 0xfe].into(),
            version: -1,
            ..Default::default()
        };
        let answer =
            pb::RangeResponse { header: Some(header), kvs: vec![kv], more: true, count: 0 };
        assert_eq!(
            through("etcdserverpb.RangeResponse", &answer),
            "{\"header\":{\"cluster_id\":\"18446744073709551615\",\"revision\":\"7\"},\
             \"kvs\":[{\"key\":\"Zm9v\",\"version\":\"-1\",\"value\":\"//4=\"}],\"more\":true}"
        );
        let alarm = pb::AlarmMember { member_id: 1, alarm: pb::AlarmType::Nospace.into() };
        assert_eq!(
            through("etcdserverpb.AlarmMember", &alarm),
            "{\"memberID\":\"1\",\"alarm\":\"NOSPACE\"}"
        );
    }

    #[test]
    fn requests_are_read_as_protojson_reads_them() {
        let by_name: pb::RangeRequest = parsed(
            "etcdserverpb.RangeRequest",
            r#"{"key":"Zm9v","range_end":"_-8","limit":"5","revision":3,"sort_order":"DESCEND",
                "sortTarget":3,"who_knows":{"a":[1]}}"#,
        );
        assert_eq!(&by_name.key[..], b"foo");
        assert_eq!(&by_name.range_end[..], [0xff, 0xef], "URL-safe and unpadded base64 too");
        assert_eq!((by_name.limit, by_name.revision), (5, 3));
        assert_eq!((by_name.sort_order, by_name.sort_target), (2, 3));
        let nested: pb::TxnRequest = parsed(
            "etcdserverpb.TxnRequest",
            r#"{"compare":[{"target":"VALUE","result":"NOT_EQUAL","key":"YQ==","value":"Yg=="}],
                "success":[{"requestPut":{"key":"YQ=="}}],"failure":[{"request_range":{}}]}"#,
        );
        assert_eq!(nested.compare[0].result(), pb::compare::CompareResult::NotEqual);
        assert!(nested.success[0].request.is_some() && nested.failure[0].request.is_some());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in ["{", "[]", "7", r#"{"key":7}"#, r#"{"key":"%"}"#, r#"{"limit":"x"}"#] {
            let error = decode(&kind("etcdserverpb.RangeRequest"), text.as_bytes());
            assert_eq!(error.expect_err(text).code(), tonic::Code::InvalidArgument, "{text}");
        }
    }

    #[tokio::test]
    async fn values_in_a_body_may_be_cut_anywhere() {
        let text = " {\"limit\":1} \n{\"limit\":\"22\"}{\"key\":\"eyJ9\"} ";
        for size in 1..text.len() {
            let pieces: Vec<_> = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Status>)));
            let mut source = Source::new(body, kind("etcdserverpb.RangeRequest"), 1000);
            let mut count = 0;
            while source.next().await.expect("well-formed").is_some() {
                count += 1;
            }
            assert_eq!(count, 3, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_refused() {
        let endless = stream::repeat_with(|| Ok::<_, Status>(Bytes::from_static(b"[[[[")));
        let body = Body::from_stream(endless);
        let mut source = Source::new(body, kind("etcdserverpb.RangeRequest"), 100);
        let error = source.next().await.expect_err("too large");
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    }
}
