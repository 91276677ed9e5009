//! Answers as text: what must be equal is written out, what may differ is left out.

use std::fmt::Debug;

use pintle_proto::etcdserverpb as pb;
use tonic::Status;

/// The calls name small lease ids; a server chooses among all.
const CHOSEN_IDS_MIN: i64 = 1_000_000;

/// A long text, cut in the middle: values can be large.
pub(super) fn short(text: String) -> String {
    const ENDS: usize = 400;
    if text.len() <= 3 * ENDS {
        return text;
    }
    let head: String = text.chars().take(ENDS).collect();
    let tail: String = text.chars().skip(text.chars().count() - ENDS).collect();
    format!("{head}… {} characters …{tail}", text.len())
}

/// Code and message: Go clients match on them.
pub(super) fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// Which cluster, member and term it was is not compared, only that the header says so.
pub(super) fn header(header: &mut Option<pb::ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = header.cluster_id.min(1);
        header.member_id = header.member_id.min(1);
        header.raft_term = header.raft_term.min(1);
    }
}

/// A response whose header stands in `header`.
macro_rules! response {
    ($response:expr) => {{
        let mut response = $response;
        $crate::differential::text::header(&mut response.header);
        $crate::differential::text::of(&response)
    }};
}
pub(super) use response;

pub(super) fn of(response: &impl Debug) -> String {
    short(format!("{response:?}"))
}

/// Members have other names and addresses on each side.
pub(super) fn members(mut response: pb::MemberListResponse) -> String {
    header(&mut response.header);
    let members: Vec<_> = response
        .members
        .iter()
        .map(|member| (member.peer_ur_ls.len(), member.client_ur_ls.len(), member.is_learner))
        .collect();
    format!("{:?} {members:?}", response.header)
}

/// A simple token: random letters, and the place in the log that made it.
pub(super) fn authenticated(mut response: pb::AuthenticateResponse) -> String {
    let shape = response.token.split_once('.').map(|(prefix, index)| {
        let letters = prefix.bytes().all(|letter| letter.is_ascii_alphabetic());
        (prefix.len(), letters, index.parse::<u64>().is_ok())
    });
    response.token = format!("{shape:?}");
    response!(response)
}

/// Versions, sizes and log positions are each server's own.
pub(super) fn status(mut response: pb::StatusResponse) -> String {
    header(&mut response.header);
    let leads = response.header.is_some() && response.leader != 0;
    format!("{:?} {leads} {:?} {}", response.header, response.errors, response.is_learner)
}

/// The hash is over each server's own format; `hash_revision` came with etcd 3.6; and etcd may answer with
/// a hash that it kept from a compaction, under the compact revision before it.
pub(super) fn hash_kv(mut response: pb::HashKvResponse) -> String {
    header(&mut response.header);
    format!("{:?}", response.header)
}

/// What is left of a lease depends on the moment: it must be in the bounds that `elapsed` sets.
pub(super) fn time_to_live(mut response: pb::LeaseTimeToLiveResponse, elapsed: i64) -> String {
    let granted = response.granted_ttl;
    if response.ttl <= granted && response.ttl >= granted - elapsed - 2 {
        response.ttl = granted;
    }
    response.keys.sort();
    response!(response)
}

/// In no particular order: etcd sorts them by expiry, of which a follower knows nothing.
pub(super) fn leases(mut response: pb::LeaseLeasesResponse) -> String {
    for lease in &mut response.leases {
        // One that the server chose.
        lease.id = lease.id.min(CHOSEN_IDS_MIN);
    }
    response.leases.sort_by_key(|lease| lease.id);
    response!(response)
}
