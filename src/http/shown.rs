//! Status documents as they were last written. A version never changes, so its document is written
//! once for everybody who polls it; only the estimate moves, and has its place kept.

use std::sync::Arc;

use actix_web::web::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use wavegate_engine::domain::ids::TransactionId;
use wavegate_engine::domain::state::State as Standing;
use wavegate_engine::ports::store::StoredTransaction;
use wavegate_engine::wire::status::{EstimateItem, StatusDocument};

use super::problem::Problem;

/// Memory for documents, in bytes; about ten thousand small orders.
const DOCUMENTS_BYTES: u64 = 32 << 20;

/// Documents that the cache expects to hold; it only sizes its tables.
const DOCUMENTS: usize = 10_000;

/// What a document takes beside its text, in bytes.
const DOCUMENT_BYTES: u64 = 200;

/// How a document says that it has no estimate. No text of a client's can look like it: within a
/// JSON string the quotes are escaped, and a name of `metadata` has a string behind it.
const NO_ESTIMATE: &[u8] = b"\"estimate\":null";

/// One document.
pub(crate) struct Shown {
    of: Arc<StoredTransaction>,
    /// The state it shows.
    pub(crate) standing: Standing,
    text: Bytes,
    /// Where its `null` estimate begins.
    estimate_at: usize,
}

impl Shown {
    /// Writes a document without an estimate.
    pub(crate) fn write(of: Arc<StoredTransaction>, document: &StatusDocument<'_>) -> Result<Shown, Problem> {
        let text = serde_json::to_vec(document).map_err(|_| Problem::Internal)?;
        let found = text.windows(NO_ESTIMATE.len()).position(|part| part == NO_ESTIMATE);
        let estimate_at = found.ok_or(Problem::Internal)? + NO_ESTIMATE.len() - b"null".len();
        Ok(Shown { of, standing: document.state.0, text: text.into(), estimate_at })
    }

    /// The document's text, with an estimate if there is one now.
    pub(crate) fn text(&self, estimate: Option<&EstimateItem>) -> Result<Bytes, Problem> {
        let Some(estimate) = estimate else { return Ok(self.text.clone()) };
        let estimate = serde_json::to_vec(estimate).map_err(|_| Problem::Internal)?;
        let (before, behind) = self.text.split_at(self.estimate_at);
        Ok([before, &estimate, &behind[b"null".len()..]].concat().into())
    }
}

#[derive(Clone)]
struct Size;

impl Weighter<TransactionId, Arc<Shown>> for Size {
    fn weight(&self, _: &TransactionId, shown: &Arc<Shown>) -> u64 {
        DOCUMENT_BYTES + shown.text.len() as u64
    }
}

/// The documents of the current versions that were read last.
pub(crate) struct ShownDocuments(Cache<TransactionId, Arc<Shown>, Size>);

impl ShownDocuments {
    pub(crate) fn new() -> ShownDocuments {
        ShownDocuments(Cache::with_weighter(DOCUMENTS, DOCUMENTS_BYTES, Size))
    }

    /// The document of exactly this reading of a transaction, if it was written before.
    pub(crate) fn get(&self, transaction: &Arc<StoredTransaction>) -> Option<Arc<Shown>> {
        self.0.get(&transaction.id).filter(|shown| Arc::ptr_eq(&shown.of, transaction))
    }

    /// Keeps a document.
    pub(crate) fn keep(&self, shown: Shown) -> Arc<Shown> {
        let shown = Arc::new(shown);
        self.0.insert(shown.of.id, shown.clone());
        shown
    }
}
