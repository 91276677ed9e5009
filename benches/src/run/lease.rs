//! Leases that are renewed over and over.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pintle_proto::etcdserverpb as pb;
use prost::Message;
use tokio::task::JoinSet;

use super::Context;
use super::load::connections;
use super::recorder::{Recorder, Window};
use crate::client::{Call, Connection, encode};
use crate::results::Sample;
use crate::system::Running;

const TTL_SECONDS: i64 = 3_600;
const WARM_UP: Duration = Duration::from_secs(1);

pub(super) async fn keep_alive(context: &Context<'_>, running: &Running) -> anyhow::Result<Sample> {
    let connections = connections(running, context.connections()).await?;
    let recorder = Rc::new(RefCell::new(Recorder::new()));
    let stop = Rc::new(Cell::new(false));
    let mut clients = JoinSet::new();
    let grants = (0..context.workload.clients).map(|index| {
        let mut connection = connections[index % connections.len()].clone();
        async move { grant(&mut connection).await.map(|id| (connection, id)) }
    });
    for (connection, id) in futures::future::try_join_all(grants).await? {
        let (recorder, stop) = (Rc::clone(&recorder), Rc::clone(&stop));
        clients.spawn_local(renew(connection, id, recorder, stop));
    }
    tokio::time::sleep(WARM_UP.min(context.seconds())).await;
    let window = Window::open(running);
    recorder.borrow_mut().start();
    tokio::time::sleep(context.seconds()).await;
    recorder.borrow_mut().stop();
    stop.set(true);
    let mut sample = recorder.borrow().sample()?;
    window.close(running, recorder.borrow().done, &mut sample);
    Ok(sample)
}

async fn grant(connection: &mut Connection) -> anyhow::Result<i64> {
    let grant = encode(&pb::LeaseGrantRequest { ttl: TTL_SECONDS, id: 0 });
    let answer = connection.unary(Call::LeaseGrant, grant).await?;
    Ok(pb::LeaseGrantResponse::decode(answer)?.id)
}

async fn renew(
    mut connection: Connection,
    id: i64,
    recorder: Rc<RefCell<Recorder>>,
    stop: Rc<Cell<bool>>,
) {
    if let Err(error) = renew_until(&mut connection, id, &recorder, &stop).await {
        let message = format!("{error:#}");
        recorder.borrow_mut().failed(crate::client::Failure { code: 14, message, sent: true });
    }
}

async fn renew_until(
    connection: &mut Connection,
    id: i64,
    recorder: &RefCell<Recorder>,
    stop: &Cell<bool>,
) -> anyhow::Result<()> {
    let renewal = encode(&pb::LeaseKeepAliveRequest { id });
    let mut asked = Instant::now();
    let (mut requests, mut answers) =
        connection.stream(Call::LeaseKeepAlive, renewal.clone()).await?;
    while !stop.get() {
        let answer = answers.next().await?.context("the stream ended")?;
        let ttl = pb::LeaseKeepAliveResponse::decode(answer)?.ttl;
        anyhow::ensure!(ttl > 0, "the lease is gone");
        recorder.borrow_mut().done(asked.elapsed());
        asked = Instant::now();
        requests.send(renewal.clone())?;
    }
    Ok(())
}
