//! `POST /v1/orders/batch`: up to a thousand orders, each with a fate of its own.

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde::Serialize;
use wavegate_engine::domain::ids::{ClientNo, PartitionId, TransactionId};
use wavegate_engine::wire::json::{self, Json};
use wavegate_engine::wire::reader::{self, FaultCode, Faults, Path};
use wavegate_engine::wire::requests::{self, OrderRequest};

use super::accept::{self, Work};
use super::body;
use super::call::Call;
use super::headers::{self, Media};
use super::orders;
use super::pace;
use super::problem::{Problem, ProblemDocument};
use super::query::Params;
use super::state::State;

/// Orders of a batch.
const ITEMS_MAX: usize = 1_000;
/// Orders that are submitted together: as many as fill a commit, few enough that a slice with an
/// unknown outcome leaves most of the batch untouched.
const SLICE: usize = 256;

/// What became of one item.
type Fate = Result<TransactionId, Problem>;

#[derive(Serialize)]
struct Results<'a> {
    results: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Item<'a> {
    index: usize,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<TransactionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemDocument<'a>>,
}

/// `POST /v1/orders/batch`
pub(crate) async fn create(
    state: web::Data<State>,
    call: Call,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Problem> {
    state.take_work()?;
    let media = headers::media(request.headers());
    if !matches!(media, Media::Json | Media::NdJson) {
        return Err(Problem::UnsupportedMediaType("application/json or application/x-ndjson"));
    }
    let client = orders::client_of(&state, &call, &Params::read(&request, &[])?)?;
    let _place = state.take_batch()?;
    let body = body::read(&request, payload, state.batch_body_max).await?;
    let parsed = if media == Media::NdJson { lines(&state, &body)? } else { array(&state, &body)? };
    drop(body);
    let mut fates = Vec::with_capacity(parsed.len());
    let mut parsed = parsed.into_iter().peekable();
    while parsed.peek().is_some() {
        let slice = parsed.by_ref().take(SLICE).collect();
        fates.extend(submit(&state, &call, client, slice).await);
    }
    respond(&fates, request.path(), &call)
}

/// A JSON array: what is no JSON is refused as a whole, for nobody can tell where an item ends.
fn array(state: &State, body: &Bytes) -> Result<Vec<Result<OrderRequest, Problem>>, Problem> {
    let mut faults = Faults::new(1);
    let items = reader::list(body::tree(body)?, &Path::Root, &mut faults);
    let Some(items) = items else { return Err(faults.into_vec().into()) };
    check_count(items.len())?;
    Ok(items.into_iter().map(|item| order(state, item)).collect())
}

/// One JSON text a line; blank lines are none. A line that is no JSON fails alone.
fn lines(state: &State, body: &Bytes) -> Result<Vec<Result<OrderRequest, Problem>>, Problem> {
    let texts = || body.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
    check_count(texts().count())?;
    let read = |text| json::parse(text).map_err(|e| Problem::MalformedJson(e.to_string()));
    Ok(texts().map(|text| order(state, read(text)?)).collect())
}

fn order(state: &State, item: Json<'_>) -> Result<OrderRequest, Problem> {
    requests::order(item, &state.catalogue, Faults::MAX_OF_ITEM).map_err(Problem::Invalid)
}

fn check_count(items: usize) -> Result<(), Problem> {
    let mut faults = Faults::new(1);
    if items == 0 {
        faults.add(&Path::Root, FaultCode::OutOfRange, "must have at least one order");
    } else if items > ITEMS_MAX {
        faults.add(&Path::Root, FaultCode::TooLong, format!("must have at most {ITEMS_MAX} orders"));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.into_vec().into()) }
}

/// Submits the good items of a slice together; fates stand in the order of the items.
async fn submit(
    state: &State,
    call: &Call,
    client: ClientNo,
    slice: Vec<Result<OrderRequest, Problem>>,
) -> Vec<Fate> {
    let mut fates: Vec<Result<PartitionId, Problem>> = Vec::with_capacity(slice.len());
    let mut submissions = Vec::with_capacity(slice.len());
    for item in slice {
        let ready = match item {
            Ok(order) => ready(state, client, order).await,
            Err(problem) => Err(problem),
        };
        fates.push(ready.map(|work| {
            let home = work.home;
            submissions.push(work.submission(call, None));
            home
        }));
    }
    let submitted = match submissions.is_empty() {
        true => Ok(Vec::new()),
        false => state.engine.submit(submissions).await,
    };
    let mut submitted = submitted.map(Vec::into_iter);
    let fate = |ready: Result<PartitionId, Problem>| {
        let home = ready?;
        let submitted = submitted.as_mut().map_err(|full| Problem::from(*full))?;
        let submitted = submitted.next().ok_or(Problem::StoreUnavailable)?;
        let (id, replayed) = accept::accepted(state, home, &submitted)?;
        tracing::debug!(correlation_id = %call.correlation, transaction_id = %id, replayed, "order of a batch accepted");
        Ok(id)
    };
    fates.into_iter().map(fate).collect()
}

async fn ready(state: &State, client: ClientNo, order: OrderRequest) -> Result<Work, Problem> {
    let work = orders::work(state, client, order).await?;
    state.take_turn(client, work.command.kind(), work.command.reference()).await?;
    Ok(work)
}

fn respond(fates: &[Fate], instance: &str, call: &Call) -> Result<HttpResponse, Problem> {
    let results = fates.iter().enumerate().map(|(index, fate)| match fate {
        Ok(id) => Item { index, status: 202, transaction_id: Some(*id), problem: None },
        Err(problem) => Item {
            index,
            status: problem.status().as_u16(),
            transaction_id: None,
            problem: Some(problem.document(instance, &call.correlation)),
        },
    });
    let mut response = HttpResponseBuilder::new(status_of(fates));
    if let Some(seconds) = retry_after_s(fates) {
        response.insert_header((header::RETRY_AFTER, seconds));
    }
    accept::json_body(&mut response, &Results { results: results.collect() })
}

/// 202 when anything was accepted; 429 or 503 when that is the only thing wrong with every
/// item, so that a client that looks at the status alone knows to come back; else 422.
fn status_of(fates: &[Fate]) -> StatusCode {
    let all = |status: u16| fates.iter().all(|f| matches!(f, Err(p) if p.status().as_u16() == status));
    if fates.iter().any(Result::is_ok) {
        StatusCode::ACCEPTED
    } else if all(429) {
        StatusCode::TOO_MANY_REQUESTS
    } else if all(503) {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    }
}

/// The longest pause that any refused item asks for; after an accepted batch, a poll's.
fn retry_after_s(fates: &[Fate]) -> Option<u64> {
    let asked = fates.iter().filter_map(|f| f.as_ref().err()).filter_map(Problem::retry_after_s).max();
    asked.or_else(|| fates.iter().any(Result::is_ok).then(|| pace::jittered(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wavegate_engine::domain::time::Timestamp;

    #[test]
    fn a_batch_is_as_good_as_its_best_item() {
        let good = || Ok(TransactionId::new(Timestamp(1), PartitionId(1), 1));
        let full = || Err(Problem::BacklogFull(9));
        let bad = || Err(Problem::ReferenceConflict);
        let down = || Err(Problem::StoreUnavailable);
        for (fates, status, pause) in [
            (vec![good(), bad()], 202, Some(1..=2)),
            (vec![good(), full()], 202, Some(9..=9)),
            (vec![full(), full()], 429, Some(9..=9)),
            (vec![down(), down()], 503, Some(1..=2)),
            (vec![full(), bad()], 422, Some(9..=9)),
            (vec![bad()], 422, None),
        ] {
            assert_eq!(status_of(&fates).as_u16(), status, "{fates:?}");
            let said = retry_after_s(&fates);
            assert_eq!(said.is_some(), pause.is_some(), "{fates:?}");
            assert!(said.zip(pause).is_none_or(|(said, pause)| pause.contains(&said)), "{said:?}");
        }
    }
}
