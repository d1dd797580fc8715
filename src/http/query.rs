//! Query parameters. One that the route does not have is refused like an unknown field, so that
//! a misspelt filter is never a filter that passes everything.

use std::ops::RangeInclusive;

use actix_web::{HttpRequest, web};
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::wire::reader::{FaultCode, Faults, Path};
use wavegate_engine::wire::time::WireTime;

use super::problem::Problem;

/// The parameters of a call, none twice.
pub(crate) struct Params(Vec<(String, String)>);

/// More parameters than any route has.
const PARAMS_MAX: usize = 64;

impl Params {
    /// Reads the query; every route may be told the client it is for.
    pub(crate) fn read(request: &HttpRequest, known: &[&str]) -> Result<Params, Problem> {
        if request.query_string().is_empty() {
            return Ok(Params(Vec::new()));
        }
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
        let mut faults = Faults::new(PARAMS_MAX);
        for (i, (name, _)) in pairs.iter().enumerate().take(PARAMS_MAX) {
            if name != "client" && !known.contains(&&**name) {
                faults.add(&at(name), FaultCode::UnknownField, "is not a parameter of this call");
            } else if pairs.iter().take(i).any(|(earlier, _)| earlier == name) {
                faults.add(&at(name), FaultCode::Malformed, "stands here twice");
            }
        }
        if faults.is_empty() { Ok(Params(pairs)) } else { Err(faults.into_vec().into()) }
    }

    /// A parameter as text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that parses by itself.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.map(name, |text| text.parse().ok())
    }

    /// A parameter read by `read`; a value that it does not take is a fault.
    pub(crate) fn map<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(fault(name, FaultCode::Malformed, "is not a value that this parameter takes")),
        }
    }

    /// A whole number within bounds.
    pub(crate) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        match self.parsed::<u64>(name)? {
            Some(n) if !range.contains(&n) => {
                let (min, max) = range.into_inner();
                let detail = format!("must be a whole number from {min} to {max}");
                Err(fault(name, FaultCode::OutOfRange, &detail))
            }
            within => Ok(within),
        }
    }

    /// A time.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        self.map(name, WireTime::parse)
    }
}

/// A refusal of one parameter.
pub(crate) fn fault(name: &str, code: FaultCode, detail: &str) -> Problem {
    let mut faults = Faults::new(1);
    faults.add(&at(name), code, detail);
    faults.into_vec().into()
}

fn at(name: &str) -> Path<'_> {
    Path::Key(&Path::Root, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn read(uri: &str) -> Result<Params, Problem> {
        Params::read(&TestRequest::with_uri(uri).to_http_request(), &["wait", "sku"])
    }

    #[test]
    fn a_misspelt_or_repeated_parameter_is_refused() {
        for bad in ["/?wiat=1", "/?wait=1&wait=2", "/?wait=1&x"] {
            assert!(matches!(read(bad), Err(Problem::Invalid(_))), "{bad}");
        }
        let params = read("/?wait=7&sku=A%2FB%20%C3%A9&client=acme").ok().unwrap();
        assert_eq!(params.number("wait", 0..=30).ok().unwrap(), Some(7));
        assert_eq!(params.text("sku"), Some("A/B é"));
        assert!(params.number("wait", 0..=5).is_err());
        assert!(read("/?wait=x").ok().unwrap().number("wait", 0..=5).is_err());
    }
}
