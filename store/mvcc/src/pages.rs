//! A range in pages, all from one consistent state: an answer of any size takes the memory of a
//! page. Merged, as protobuf merges messages, the pages are the answer of [`crate::range`].

use std::ops::ControlFlow;

use pintle_store_api::{KeyRange, pb};
use prost::Message;

use crate::view::View;
use crate::{QueryError, outcome, range};

/// What is done with a page: it may say that no more are wanted.
pub(crate) type Take<'t> =
    &'t mut dyn FnMut(pb::RangeResponse) -> Result<ControlFlow<()>, QueryError>;

/// Answers `request`, which has neither order nor filters, in pages of about `page_bytes`. Header,
/// `more` and `count` are on the last.
pub(crate) fn pages(
    view: &View<'_>,
    request: &pb::RangeRequest,
    page_bytes: usize,
    take: Take<'_>,
) -> Result<(), QueryError> {
    if request.range_end.is_empty() || request.count_only {
        return take(range::range(view, request)?).map(drop);
    }
    let revision = view.resolve(request.revision)?;
    let keys = KeyRange::from_request(request.key.clone(), request.range_end.clone());
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let mut page = pb::RangeResponse::default();
    let (mut bytes, mut given) = (0, 0);
    let mut scan = view.scan(&keys, revision)?;
    while let Some((key, record)) = scan.item()? {
        if limit == Some(given) {
            page.more = true;
            break;
        }
        let kv = record.to_kv(key, !request.keys_only);
        bytes += kv.encoded_len();
        page.kvs.push(kv);
        given += 1;
        if bytes >= page_bytes {
            bytes = 0;
            if take(std::mem::take(&mut page))?.is_break() {
                return Ok(());
            }
        }
        scan.advance()?;
    }
    let given = given as i64;
    page.count = if page.more { view.count(&keys, revision)? } else { given };
    page.header = outcome::header(view.revision);
    take(page).map(drop)
}
