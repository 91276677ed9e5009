//! One client that lists everything, again and again: how long it takes, and what it costs the
//! member in memory.

use std::time::Instant;

use pintle_proto::etcdserverpb as pb;

use super::Context;
use super::recorder::{Recorder, Window, mebibytes};
use super::sources::key;
use crate::client::{Call, encode};
use crate::results::{Metric, Sample};
use crate::system::Running;

/// Lists, also when the time is up after fewer.
const LISTS_MIN: u64 = 3;

pub(super) async fn list(
    context: &Context<'_>,
    running: &Running,
    streamed: bool,
) -> anyhow::Result<Sample> {
    let member = running.leader().await?;
    let mut connection = running.connect(member).await?;
    let range_end = key(context.workload.keys);
    let request = encode(&pb::RangeRequest { key: key(0), range_end, ..Default::default() });
    let call = if streamed { Call::RangeStream } else { Call::Range };

    let window = Window::open(running);
    let before = running.usage_of(member);
    let mut recorder = Recorder::new();
    recorder.start();
    let started = Instant::now();
    let mut bytes = 0;
    while recorder.done < LISTS_MIN || started.elapsed() < context.seconds() {
        let asked = Instant::now();
        bytes = connection.drain(call, request.clone()).await?;
        recorder.done(asked.elapsed());
    }
    let mut sample = recorder.sample()?;
    window.close(running, recorder.done, &mut sample);
    sample.set(Metric::AnswerBytes, mebibytes(bytes));
    if let (Some(before), Some(after)) = (before, running.usage_of(member)) {
        let extra = after.peak_bytes.saturating_sub(before.memory_bytes);
        sample.set(Metric::ExtraMemory, mebibytes(extra));
    }
    Ok(sample)
}
