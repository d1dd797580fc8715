//! Where an order goes, as sent: personal data, bounded and free of control characters.

use super::json::Json;
use super::reader::{self, Chars, FaultCode, Faults, Fields, Path};
use crate::domain::command::ShipTo;

/// A field of an address that must say something; longer than any that carriers print.
const ADDRESS: Chars = Chars { min: 1, max: 200, controls: false };
/// A field of an address that may be empty, as many systems send what they do not have.
const ADDRESS_OR_EMPTY: Chars = Chars { min: 0, max: 200, controls: false };
/// Street lines: more than any label has room for.
const ADDRESS_LINES_MAX: usize = 10;

/// Reads an address.
pub(super) fn ship_to(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<ShipTo> {
    let mut fields = Fields::open(value, path, faults)?;
    let must = |v: Json<'_>, p: &Path<'_>, f: &mut Faults| reader::text(v, ADDRESS, p, f);
    let may = |v: Json<'_>, p: &Path<'_>, f: &mut Faults| reader::text(v, ADDRESS_OR_EMPTY, p, f);
    let name = fields.required("name", path, faults, must);
    let company = fields.optional("company", path, faults, may);
    let lines = fields.required("lines", path, faults, |v, p, f| {
        let items = reader::bounded_list(v, ADDRESS_LINES_MAX, p, f)?;
        reader::each(items, p, f, must)
    });
    let city = fields.required("city", path, faults, must);
    let region = fields.optional("region", path, faults, may);
    let postal_code = fields.optional("postal_code", path, faults, may);
    let country = fields.required("country", path, faults, country);
    let phone = fields.optional("phone", path, faults, may);
    let email = fields.optional("email", path, faults, may);
    fields.close(path, faults);
    Some(ShipTo {
        name: name?,
        company: company?,
        lines: lines?,
        city: city?,
        region: region?,
        postal_code: postal_code?,
        country: country?,
        phone: phone?,
        email: email?,
    })
}

fn country(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<String> {
    let code = reader::string(value, path, faults)?;
    // The table reads small letters as well; the standard's codes are capital.
    let known = celes::Country::from_alpha2(&*code).ok().filter(|c| c.alpha2 == code);
    if known.is_none() {
        let detail = "must be a country code of ISO 3166-1 alpha-2, in capitals";
        faults.add(path, FaultCode::UnknownValue, detail);
    }
    known.map(|c| c.alpha2.to_owned())
}
