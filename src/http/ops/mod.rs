//! `/v1/ops`: what operators see and do. No other role enters.

pub(super) mod dead_letters;
pub(super) mod pause;

use super::auth::Caller;
use super::call::Call;
use super::problem::Problem;

/// Lets an operator pass.
fn enter(call: &Call) -> Result<(), Problem> {
    match &call.caller {
        Caller::Operator | Caller::Local(_) => Ok(()),
        Caller::Client(_) | Caller::Wms(_) | Caller::Anybody => {
            Err(Problem::Forbidden("only an operator may do this"))
        }
    }
}
