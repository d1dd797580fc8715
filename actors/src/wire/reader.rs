//! Walks a JSON tree into typed values and notes every fault with its RFC 6901 pointer.
//!
//! The one path for good and bad input: nothing is allocated for pointers until a fault is found.

use std::borrow::Cow;
use std::fmt::Write;

use super::json::Json;
use super::time::WireTime;
use crate::domain::time::Timestamp;

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultCode {
    /// A field that the request does not have.
    UnknownField,
    /// A field that must be there.
    Missing,
    /// Not the JSON type that belongs here.
    WrongType,
    /// The right type, beyond its bounds.
    OutOfRange,
    /// A text or a list with more than it may have.
    TooLong,
    /// A text that does not follow its form.
    Malformed,
    /// None of the values that are known here.
    UnknownValue,
    /// A line number that stands on another line already.
    DuplicateLine,
    /// A carton that is named twice.
    DuplicateCarton,
    /// A line that the order does not have.
    UnknownLine,
    /// No warehouse has this code.
    UnknownWarehouse,
    /// The warehouse does not offer this service.
    UnknownServiceLevel,
    /// No client has this name.
    UnknownClient,
}

impl FaultCode {
    /// The code on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FaultCode::UnknownField => "unknown_field",
            FaultCode::Missing => "missing",
            FaultCode::WrongType => "wrong_type",
            FaultCode::OutOfRange => "out_of_range",
            FaultCode::TooLong => "too_long",
            FaultCode::Malformed => "malformed",
            FaultCode::UnknownValue => "unknown_value",
            FaultCode::DuplicateLine => "duplicate_line",
            FaultCode::DuplicateCarton => "duplicate_carton",
            FaultCode::UnknownLine => "unknown_line",
            FaultCode::UnknownWarehouse => "unknown_warehouse",
            FaultCode::UnknownServiceLevel => "unknown_service_level",
            FaultCode::UnknownClient => "unknown_client",
        }
    }
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// RFC 6901; empty for the whole body.
    pub pointer: String,
    /// Its kind.
    pub code: FaultCode,
    /// In words.
    pub detail: String,
}

/// All faults found so far, up to a bound.
#[derive(Debug)]
pub struct Faults {
    found: Vec<Fault>,
    max: usize,
}

impl Faults {
    /// Every field of a full order may be wrong and be told so; past that a hostile body is not
    /// answered with a longer one.
    pub const MAX: usize = 2_000;
    /// The same for one item of a batch, of which there may be a thousand.
    pub const MAX_OF_ITEM: usize = 100;

    /// None yet; faults beyond `max` are counted as found but not listed.
    #[must_use]
    pub fn new(max: usize) -> Faults {
        Faults { found: Vec::new(), max: max.max(1) }
    }

    /// Notes a fault.
    pub fn add(&mut self, path: &Path<'_>, code: FaultCode, detail: impl Into<String>) {
        if self.found.len() < self.max {
            self.found.push(Fault { pointer: path.pointer(), code, detail: detail.into() });
        }
    }

    /// True when nothing is wrong so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The faults in the order found.
    #[must_use]
    pub fn into_vec(self) -> Vec<Fault> {
        self.found
    }
}

/// Where in the tree a value stands: a chain on the stack, written out only for a fault.
#[derive(Clone, Copy, Debug)]
pub enum Path<'p> {
    /// The whole body.
    Root,
    /// A member of an object.
    Key(&'p Path<'p>, &'p str),
    /// An item of an array.
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    /// As an RFC 6901 pointer.
    #[must_use]
    pub fn pointer(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Key(parent, key) => {
                // An unknown key is the client's own text; a pointer repeats only so much of it.
                const KEY_CHARS_MAX: usize = 200;
                let key: String = key.chars().take(KEY_CHARS_MAX).collect();
                parent.pointer() + "/" + &key.replace('~', "~0").replace('/', "~1")
            }
            Path::Index(parent, index) => {
                let mut pointer = parent.pointer();
                let _infallible = write!(pointer, "/{index}");
                pointer
            }
        }
    }
}

/// An object whose members are taken by name; what is left in the end is unknown.
pub struct Fields<'j> {
    members: Vec<(Cow<'j, str>, Json<'j>)>,
}

impl<'j> Fields<'j> {
    /// Opens an object, or notes that it is none.
    pub fn open(value: Json<'j>, path: &Path<'_>, faults: &mut Faults) -> Option<Fields<'j>> {
        match value {
            Json::Object(members) => Some(Fields { members }),
            other @ (Json::Null
            | Json::Bool(_)
            | Json::Whole(_)
            | Json::Negative(_)
            | Json::Other(_)
            | Json::Text(_)
            | Json::List(_)) => {
                wrong_type(&other, "an object", path, faults);
                None
            }
        }
    }

    /// Takes a member out, whatever it is.
    pub fn take(&mut self, name: &str) -> Option<Json<'j>> {
        let at = self.members.iter().position(|(key, _)| key == name)?;
        Some(self.members.swap_remove(at).1)
    }

    /// Reads a member that must be there.
    pub fn required<T>(
        &mut self,
        name: &str,
        path: &Path<'_>,
        faults: &mut Faults,
        read: impl FnOnce(Json<'j>, &Path<'_>, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        let path = Path::Key(path, name);
        match self.take(name) {
            Some(value) => read(value, &path, faults),
            None => {
                faults.add(&path, FaultCode::Missing, "is required");
                None
            }
        }
    }

    /// Reads a member that may be absent or `null`; the outer `None` means that it is at fault.
    pub fn optional<T>(
        &mut self,
        name: &str,
        path: &Path<'_>,
        faults: &mut Faults,
        read: impl FnOnce(Json<'j>, &Path<'_>, &mut Faults) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(name) {
            None | Some(Json::Null) => Some(None),
            Some(value) => read(value, &Path::Key(path, name), faults).map(Some),
        }
    }

    /// Reads a member that has a default; `null` is not it.
    pub fn defaulted<T: Default>(
        &mut self,
        name: &str,
        path: &Path<'_>,
        faults: &mut Faults,
        read: impl FnOnce(Json<'j>, &Path<'_>, &mut Faults) -> Option<T>,
    ) -> Option<T> {
        match self.take(name) {
            None => Some(T::default()),
            Some(value) => read(value, &Path::Key(path, name), faults),
        }
    }

    /// Notes what nobody took.
    pub fn close(self, path: &Path<'_>, faults: &mut Faults) {
        for (key, _) in self.members {
            faults.add(&Path::Key(path, &key), FaultCode::UnknownField, "is not a field of this request");
        }
    }

    /// The members left, with their names.
    #[must_use]
    pub fn into_members(self) -> Vec<(Cow<'j, str>, Json<'j>)> {
        self.members
    }
}

fn wrong_type(found: &Json<'_>, wanted: &str, path: &Path<'_>, faults: &mut Faults) {
    faults.add(path, FaultCode::WrongType, format!("must be {wanted}, is {}", found.name()));
}

/// Reads a string.
pub fn string<'j>(value: Json<'j>, path: &Path<'_>, faults: &mut Faults) -> Option<Cow<'j, str>> {
    match value {
        Json::Text(text) => Some(text),
        other @ (Json::Null
        | Json::Bool(_)
        | Json::Whole(_)
        | Json::Negative(_)
        | Json::Other(_)
        | Json::List(_)
        | Json::Object(_)) => {
            wrong_type(&other, "a string", path, faults);
            None
        }
    }
}

/// Reads an array.
pub fn list<'j>(value: Json<'j>, path: &Path<'_>, faults: &mut Faults) -> Option<Vec<Json<'j>>> {
    match value {
        Json::List(items) => Some(items),
        other @ (Json::Null
        | Json::Bool(_)
        | Json::Whole(_)
        | Json::Negative(_)
        | Json::Other(_)
        | Json::Text(_)
        | Json::Object(_)) => {
            wrong_type(&other, "an array", path, faults);
            None
        }
    }
}

/// Reads a number without fraction and exponent within bounds.
pub fn whole(value: &Json<'_>, (min, max): (u32, u32), path: &Path<'_>, faults: &mut Faults) -> Option<u32> {
    let beyond = |faults: &mut Faults| {
        faults.add(path, FaultCode::OutOfRange, format!("must be a whole number from {min} to {max}"));
        None
    };
    match value {
        Json::Whole(n) => match u32::try_from(*n) {
            Ok(n) if (min..=max).contains(&n) => Some(n),
            Ok(_) | Err(_) => beyond(faults),
        },
        Json::Negative(_) => beyond(faults),
        // Too small or too large are ranges; a fraction or an exponent is another type.
        Json::Other(n) if n.fract() == 0.0 && (*n < 0.0 || *n >= 1.8e19) => beyond(faults),
        other @ (Json::Null
        | Json::Bool(_)
        | Json::Other(_)
        | Json::Text(_)
        | Json::List(_)
        | Json::Object(_)) => {
            wrong_type(other, "a whole number", path, faults);
            None
        }
    }
}

/// A whole number on either side of zero.
pub fn signed(value: &Json<'_>, (min, max): (i32, i32), path: &Path<'_>, faults: &mut Faults) -> Option<i32> {
    let number = match value {
        Json::Whole(n) => i64::try_from(*n).unwrap_or(i64::MAX),
        Json::Negative(n) => *n,
        other @ (Json::Null
        | Json::Bool(_)
        | Json::Other(_)
        | Json::Text(_)
        | Json::List(_)
        | Json::Object(_)) => {
            wrong_type(other, "a whole number", path, faults);
            return None;
        }
    };
    let number = i32::try_from(number).ok().filter(|n| (min..=max).contains(n));
    if number.is_none() {
        faults.add(path, FaultCode::OutOfRange, format!("must be a whole number from {min} to {max}"));
    }
    number
}

/// How long a text may be, in characters.
#[derive(Clone, Copy, Debug)]
pub struct Chars {
    /// At least.
    pub min: usize,
    /// At most.
    pub max: usize,
    /// Whether control characters (line ends among them) may stand in it.
    pub controls: bool,
}

/// Reads a text within bounds.
pub fn text(value: Json<'_>, bounds: Chars, path: &Path<'_>, faults: &mut Faults) -> Option<String> {
    let text = string(value, path, faults)?;
    check_text(&text, bounds, path, faults).then(|| text.into_owned())
}

/// Checks a text against bounds; true when it is within.
pub fn check_text(text: &str, bounds: Chars, path: &Path<'_>, faults: &mut Faults) -> bool {
    // Four bytes are the longest character, so what has more bytes has more characters.
    if text.len() > bounds.max * 4 || text.chars().count() > bounds.max {
        faults.add(path, FaultCode::TooLong, format!("must have at most {} characters", bounds.max));
        return false;
    }
    if text.chars().take(bounds.min).count() < bounds.min {
        faults.add(path, FaultCode::OutOfRange, format!("must have at least {} character", bounds.min));
        return false;
    }
    if !bounds.controls && text.chars().any(char::is_control) {
        faults.add(path, FaultCode::Malformed, "must not contain control characters");
        return false;
    }
    true
}

/// Reads a domain name of `chars_max` characters at most, by its own parser.
pub fn name<T: std::str::FromStr>(
    value: Json<'_>,
    chars_max: usize,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<T>
where
    T::Err: std::fmt::Display,
{
    let text = string(value, path, faults)?;
    let bounds = Chars { min: 1, max: chars_max, controls: false };
    if !check_text(&text, bounds, path, faults) {
        return None;
    }
    text.parse().map_err(|e: T::Err| faults.add(path, FaultCode::Malformed, e.to_string())).ok()
}

/// Reads a time.
pub fn time(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Timestamp> {
    let text = string(value, path, faults)?;
    let time = WireTime::parse(&text);
    if time.is_none() {
        faults.add(path, FaultCode::Malformed, "must be a time in RFC 3339, as 2026-11-24T16:00:00.000Z");
    }
    time
}

/// Reads an array of 1 to `max` items.
pub fn bounded_list<'j>(
    value: Json<'j>,
    max: usize,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<Vec<Json<'j>>> {
    let items = list(value, path, faults)?;
    if items.is_empty() {
        faults.add(path, FaultCode::OutOfRange, "must have at least one item");
        return None;
    }
    if items.len() > max {
        faults.add(path, FaultCode::TooLong, format!("must have at most {max} items"));
        return None;
    }
    Some(items)
}

/// Reads every item, so that the faults of all of them are found; `None` when any is at fault.
pub fn each<'j, T>(
    items: Vec<Json<'j>>,
    path: &Path<'_>,
    faults: &mut Faults,
    mut read: impl FnMut(Json<'j>, &Path<'_>, &mut Faults) -> Option<T>,
) -> Option<Vec<T>> {
    let mut all = Some(Vec::with_capacity(items.len()));
    for (i, item) in items.into_iter().enumerate() {
        let read = read(item, &Path::Index(path, i), faults);
        all = match (all, read) {
            (Some(mut all), Some(item)) => {
                all.push(item);
                Some(all)
            }
            (None, _) | (_, None) => None,
        };
    }
    all
}
