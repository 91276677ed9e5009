//! Counts of gRPC calls, as Go's Prometheus middleware has them; every method is there from the
//! start, with zeros.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pintle_proto::ETCD_DESCRIPTORS;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::Code;

use super::histogram::Histogram;

/// The names of the codes, in their order.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The first bound of `grpc_server_handling_seconds`.
const HANDLING_FIRST: Duration = Duration::from_millis(1);

/// One method.
#[derive(Debug)]
struct Method {
    /// Labels, as they are printed.
    labels: String,
    started: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    handling: Histogram,
}

/// All methods, and the bytes that went over them.
#[derive(Debug)]
pub(crate) struct Calls {
    methods: HashMap<String, Arc<Method>>,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
}

/// A call under way. It was canceled unless it is told how it ended.
#[derive(Debug)]
pub(crate) struct Call {
    method: Arc<Method>,
    began: Instant,
    code: Code,
}

impl Call {
    pub(crate) fn ends_with(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = usize::try_from(i32::from(self.code)).unwrap_or(2);
        self.method.handled[code].fetch_add(1, Ordering::Relaxed);
        self.method.handling.observe(self.began.elapsed());
    }
}

impl Default for Calls {
    fn default() -> Self {
        let pool = DescriptorPool::decode(ETCD_DESCRIPTORS).expect("the build made them");
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let methods = methods.map(|method| (path(&method), Arc::new(Method::new(&method))));
        let (received_bytes, sent_bytes) = Default::default();
        Self { methods: methods.collect(), received_bytes, sent_bytes }
    }
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

impl Method {
    fn new(method: &MethodDescriptor) -> Self {
        let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => "unary",
            (true, false) => "client_stream",
            (false, true) => "server_stream",
            (true, true) => "bidi_stream",
        };
        let labels = format!(
            "grpc_method=\"{}\",grpc_service=\"{}\",grpc_type=\"{kind}\"",
            method.name(),
            method.parent_service().full_name(),
        );
        let handling = Histogram::new(HANDLING_FIRST);
        Self { labels, started: AtomicU64::new(0), handled: Default::default(), handling }
    }
}

impl Calls {
    /// Counts a call of a known method.
    pub(crate) fn start(&self, path: &str) -> Option<Call> {
        let method = Arc::clone(self.methods.get(path)?);
        method.started.fetch_add(1, Ordering::Relaxed);
        Some(Call { method, began: Instant::now(), code: Code::Cancelled })
    }

    /// Writes the series; those of every code only where it occurred, but `OK`.
    pub(super) fn write(&self, extensive: bool, text: &mut String) {
        let mut methods: Vec<&Arc<Method>> = self.methods.values().collect();
        methods.sort_by(|a, b| a.labels.cmp(&b.labels));
        *text += "# HELP grpc_server_started_total RPCs started on the server.\n\
                  # TYPE grpc_server_started_total counter\n";
        for method in &methods {
            let started = method.started.load(Ordering::Relaxed);
            *text += &format!("grpc_server_started_total{{{}}} {started}\n", method.labels);
        }
        *text += "# HELP grpc_server_handled_total RPCs completed on the server.\n\
                  # TYPE grpc_server_handled_total counter\n";
        for method in &methods {
            for (code, handled) in CODES.iter().zip(&method.handled) {
                let handled = handled.load(Ordering::Relaxed);
                let labels = &method.labels;
                let series = format!("grpc_server_handled_total{{grpc_code=\"{code}\",{labels}}}");
                *text += &format!("{series} {handled}\n");
            }
        }
        if !extensive {
            return;
        }
        *text += "# HELP grpc_server_handling_seconds How long RPCs took.\n\
                  # TYPE grpc_server_handling_seconds histogram\n";
        for method in methods {
            let labels = format!("{},", method.labels);
            method.handling.write("grpc_server_handling_seconds", &labels, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_started_at_once_and_handled_when_it_ends() {
        let calls = Calls::default();
        assert!(calls.start("/etcdserverpb.KV/Nothing").is_none());
        let mut put = calls.start("/etcdserverpb.KV/Put").expect("known");
        let written = |calls: &Calls, series: &str| {
            let mut text = String::new();
            calls.write(true, &mut text);
            assert!(text.contains(&format!("{series}\n")), "{series} in {text}");
        };
        let labels = "grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"";
        written(&calls, &format!("grpc_server_started_total{{{labels}}} 1"));
        written(&calls, &format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 0"));
        put.ends_with(Code::Ok);
        drop(put);
        written(&calls, &format!("grpc_server_handled_total{{grpc_code=\"OK\",{labels}}} 1"));
        drop(calls.start("/etcdserverpb.KV/Put"));
        written(&calls, &format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{labels}}} 1"));
        written(&calls, &format!("grpc_server_handling_seconds_count{{{labels}}} 2"));
    }
}
