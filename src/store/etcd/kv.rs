//! Reads and commits.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, KvClient, PutOptions, ResponseHeader, Txn, TxnOp,
    TxnOpResponse,
};
use futures_util::FutureExt;

use super::{Client, Commit, Condition, Core, MAX_WRITES, Page, Revision, StoreError, Write};
use crate::model::words::key;
use crate::store::Item;

/// Items of one page: with every record at its largest, 4 MiB.
const PAGE: i64 = 500;
/// Items of a page that fits whatever their size, where one of the usual length did not: etcd takes 1.5 MiB each.
const SHORT_PAGE: i64 = 25;
/// The largest answer taken.
const LARGEST: usize = 64 * 1024 * 1024;

fn kv(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(LARGEST)
}

pub(super) async fn read(
    core: &Core,
    prefix: &str,
    after: Option<&str>,
    at: Option<Revision>,
) -> Result<Page, StoreError> {
    match page(core, prefix, after, at, PAGE).await {
        Err(StoreError::Refused { why, .. }) if why.contains("message length too large") => {
            page(core, prefix, after, at, SHORT_PAGE).await
        }
        page => page,
    }
}

async fn page(
    core: &Core,
    prefix: &str,
    after: Option<&str>,
    at: Option<Revision>,
    limit: i64,
) -> Result<Page, StoreError> {
    let start = match after {
        // The smallest key after `after`, by its bytes: a list of keys that are no text ends, too.
        Some(after) if *key::bytes(after) >= *prefix.as_bytes() => [&key::bytes(after)[..], b"\0"].concat(),
        _ => prefix.as_bytes().to_vec(),
    };
    let options = GetOptions::new().with_range(end_of(prefix)).with_limit(limit).with_revision(at.unwrap_or(0));
    let before = core.chronicle.newest();
    let result = core
        .call("a read", move |client| {
            let (mut kv, start, options) = (kv(&client), start.clone(), options.clone());
            async move { kv.get(start, Some(options)).await }.boxed()
        })
        .await;
    let mut answer = about_revision(result, at)?;
    core.told(answer.header(), before)?;
    let revision = at.or_else(|| answer.header().map(ResponseHeader::revision)).unwrap_or(before);
    let more = answer.more();
    Ok(Page { items: answer.take_kvs().into_iter().map(item).collect(), revision, more })
}

pub(super) async fn first(core: &Core, prefix: &str, at: Option<Revision>) -> Result<Option<Item>, StoreError> {
    let options = GetOptions::new().with_range(end_of(prefix)).with_limit(1).with_revision(at.unwrap_or(0));
    let (before, start) = (core.chronicle.newest(), prefix.as_bytes().to_vec());
    let result = core
        .call("a look for a key", move |client| {
            let (mut kv, start, options) = (kv(&client), start.clone(), options.clone());
            async move { kv.get(start, Some(options)).await }.boxed()
        })
        .await;
    let mut answer = about_revision(result, at)?;
    core.told(answer.header(), before)?;
    Ok(answer.take_kvs().into_iter().next().map(item))
}

pub(super) async fn get(core: &Core, keys: &[String]) -> Result<Page, StoreError> {
    let mut names: Vec<&String> = keys.iter().collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(Page { items: Vec::new(), revision: core.verify().await?, more: false });
    }
    let mut page = Page { items: Vec::new(), revision: 0, more: false };
    for chunk in names.chunks(MAX_WRITES) {
        let options = GetOptions::new().with_revision(page.revision);
        let ops: Vec<TxnOp> = chunk.iter().map(|key| TxnOp::get(key.as_str(), Some(options.clone()))).collect();
        let before = core.chronicle.newest();
        let result = core
            .call("a read of own keys", move |client| {
                let (mut kv, txn) = (kv(&client), Txn::new().and_then(ops.clone()));
                async move { kv.txn(txn).await }.boxed()
            })
            .await;
        let answer = about_revision(result, Some(page.revision))?;
        core.told(answer.header(), before)?;
        if page.revision == 0 {
            page.revision = answer.header().map_or(before, ResponseHeader::revision);
        }
        for response in answer.op_responses() {
            if let TxnOpResponse::Get(mut got) = response {
                page.items.extend(got.take_kvs().into_iter().map(item));
            }
        }
    }
    Ok(page)
}

pub(super) async fn commit(core: &Core, conditions: &[Condition], writes: &[Write]) -> Result<Commit, StoreError> {
    let tried = format!("a commit of {} writes", writes.len());
    if conditions.len().max(writes.len()) > MAX_WRITES {
        return Err(StoreError::Refused { tried, why: format!("more than {MAX_WRITES} together") });
    }
    let compares: Vec<Compare> = conditions.iter().map(compare).collect();
    let ops: Vec<TxnOp> = writes.iter().map(op).collect();
    let before = core.chronicle.newest();
    let result = core
        .call(&tried, move |client| {
            let (mut kv, txn) = (kv(&client), Txn::new().when(compares.clone()).and_then(ops.clone()));
            async move { kv.txn(txn).await }.boxed()
        })
        .await;
    let answer = result.map_err(|error| match error {
        StoreError::NoLease(_) => StoreError::NoLease(lease_of(writes)),
        error => error,
    })?;
    core.told(answer.header(), before)?;
    let revision = answer.header().map_or(before, ResponseHeader::revision);
    Ok(if answer.succeeded() { Commit::Done(revision) } else { Commit::Refused(revision) })
}

fn compare(condition: &Condition) -> Compare {
    match condition {
        Condition::Absent(key) => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Condition::Unchanged(key, revision) => Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision),
        Condition::Holds(key, value) => Compare::value(key.as_str(), CompareOp::Equal, value.as_ref()),
        // Of a range that is empty etcd compares a key of revision 0.
        Condition::NoneCreatedSince(prefix, revision) => {
            Compare::create_revision(prefix.as_str(), CompareOp::Less, revision + 1).with_range(end_of(prefix))
        }
        Condition::NonePutSince(prefix, revision) => {
            Compare::mod_revision(prefix.as_str(), CompareOp::Less, revision + 1).with_range(end_of(prefix))
        }
    }
}

fn op(write: &Write) -> TxnOp {
    match write {
        Write::Put { key, value, lease } => {
            TxnOp::put(key.as_str(), value.as_ref(), Some(PutOptions::new().with_lease(*lease)))
        }
        Write::Delete(key) => TxnOp::delete(key.as_str(), None),
        Write::DeleteAll(prefix) => {
            TxnOp::delete(prefix.as_str(), Some(DeleteOptions::new().with_range(end_of(prefix))))
        }
    }
}

fn lease_of(writes: &[Write]) -> i64 {
    let lease = |write: &Write| match write {
        Write::Put { lease, .. } if *lease != 0 => Some(*lease),
        Write::Put { .. } | Write::Delete(_) | Write::DeleteAll(_) => None,
    };
    writes.iter().find_map(lease).unwrap_or(0)
}

fn about_revision<T>(result: Result<T, StoreError>, at: Option<Revision>) -> Result<T, StoreError> {
    result.map_err(|error| match error {
        StoreError::Compacted(_) => StoreError::Compacted(at.unwrap_or(0)),
        error => error,
    })
}

pub(super) fn item(kv: KeyValue) -> Item {
    let (lease, revision, created) = (kv.lease(), kv.mod_revision(), kv.create_revision());
    let (key, value) = kv.into_key_value();
    Item { key: key::text(key), value: value.into(), lease, revision, created }
}

/// The first key after all that begin with `prefix`.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_where_its_prefix_does() {
        assert_eq!(end_of("/services/"), b"/services0");
        assert_eq!(end_of(""), b"\0", "which is etcd's word for: to the last key");
    }
}
