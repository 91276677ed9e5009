//! Range requests, answered from a view: limits, counts, filters, sorting, as etcd has them.

use pintle_store_api::mvccpb::KeyValue;
use pintle_store_api::pb::range_request::{SortOrder, SortTarget};
use pintle_store_api::{KeyRange, pb};

use crate::keyspace::{Record, RecordRef};
use crate::view::View;
use crate::{QueryError, outcome};

/// Answers `request` from `view`. The header carries the view's revision.
pub(crate) fn range(
    view: &View<'_>,
    request: &pb::RangeRequest,
) -> Result<pb::RangeResponse, QueryError> {
    let revision = view.resolve(request.revision)?;
    let found = if request.range_end.is_empty() {
        point(view, request, revision)?
    } else {
        let keys = KeyRange::from_request(request.key.clone(), request.range_end.clone());
        if request.count_only {
            Found { kvs: Vec::new(), count: view.count(&keys, revision)? }
        } else {
            many(view, request, &keys, revision)?
        }
    };
    Ok(answer(view.revision, request, found))
}

/// Answers `request` for one key at the newest revision, of which `record` is known.
pub(crate) fn of_record(
    revision: i64,
    request: &pb::RangeRequest,
    record: Option<Record>,
) -> pb::RangeResponse {
    answer(revision, request, one(request, record))
}

struct Found {
    kvs: Vec<KeyValue>,
    /// Over the whole range, whatever the limit and the filters.
    count: i64,
}

fn point(view: &View<'_>, request: &pb::RangeRequest, revision: i64) -> Result<Found, QueryError> {
    Ok(one(request, view.get_at(&request.key, revision)?))
}

fn one(request: &pb::RangeRequest, record: Option<Record>) -> Found {
    let Some(mut record) = record else { return Found { kvs: Vec::new(), count: 0 } };
    if request.count_only || !passes_filters(request, &record.as_ref()) {
        return Found { kvs: Vec::new(), count: 1 };
    }
    if request.keys_only {
        record.value.clear();
    }
    Found { kvs: vec![record.into_kv(request.key.clone())], count: 1 }
}

fn many(
    view: &View<'_>,
    request: &pb::RangeRequest,
    keys: &KeyRange,
    revision: i64,
) -> Result<Found, QueryError> {
    let fetch_max = fetch_max(request);
    let with_value = !request.keys_only || sort_target(request) == SortTarget::Value;
    let mut found = Found { kvs: Vec::new(), count: 0 };
    let mut scan = view.scan(keys, revision)?;
    while let Some((key, record)) = scan.item()? {
        if found.kvs.len() >= fetch_max {
            found.count = view.count(keys, revision)?;
            return Ok(found);
        }
        found.count += 1;
        if passes_filters(request, &record) {
            found.kvs.push(record.to_kv(key, with_value));
        }
        scan.advance()?;
    }
    Ok(found)
}

/// One more than the limit, to know whether there is more. A custom order or a filter needs the
/// whole range before the cut. As in etcd, only a named order counts as one: where none is named, what is
/// sorted by another target is the beginning of the range.
fn fetch_max(request: &pb::RangeRequest) -> usize {
    let unordered = request.sort_order() == SortOrder::None;
    let cut_early = (unordered || is_default_order(request)) && !has_filters(request);
    match usize::try_from(request.limit) {
        Ok(limit) if limit > 0 && cut_early => limit.saturating_add(1),
        _ => usize::MAX,
    }
}

fn answer(revision: i64, request: &pb::RangeRequest, found: Found) -> pb::RangeResponse {
    let Found { mut kvs, count } = found;
    sort(request, &mut kvs);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let more = limit.is_some_and(|limit| kvs.len() > limit);
    if let Some(limit) = limit {
        kvs.truncate(limit);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    pb::RangeResponse { header: outcome::header(revision), kvs, more, count }
}

fn sort_target(request: &pb::RangeRequest) -> SortTarget {
    SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key)
}

/// etcd sorts by a target other than the key even when no order is given: ascending.
fn sort_order(request: &pb::RangeRequest) -> SortOrder {
    match SortOrder::try_from(request.sort_order) {
        Ok(SortOrder::None) | Err(_) if sort_target(request) != SortTarget::Key => {
            SortOrder::Ascend
        }
        Ok(order) => order,
        Err(_) => SortOrder::None,
    }
}

fn is_default_order(request: &pb::RangeRequest) -> bool {
    sort_target(request) == SortTarget::Key && sort_order(request) != SortOrder::Descend
}

fn has_filters(request: &pb::RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes_filters(request: &pb::RangeRequest, record: &RecordRef<'_>) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
    within(record.modified, request.min_mod_revision, request.max_mod_revision)
        && within(record.create, request.min_create_revision, request.max_create_revision)
}

/// Stable, so that equal ones stay in key order.
fn sort(request: &pb::RangeRequest, kvs: &mut [KeyValue]) {
    if is_default_order(request) {
        return;
    }
    let target = sort_target(request);
    let descending = sort_order(request) == SortOrder::Descend;
    kvs.sort_by(|a, b| {
        let (a, b) = if descending { (b, a) } else { (a, b) };
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    });
}
