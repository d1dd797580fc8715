//! Where settings come from, and the name of each source as a fault and `config show` print it.

use std::path::PathBuf;
use std::str::FromStr;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::DEFAULTS;

/// Before each name in the environment; two underscores stand between section and key.
const PREFIX: &str = "WAVEGATE__";

/// What the command line and the environment say about settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// What a sub-command sets otherwise than the defaults; everything else stands above it.
    pub(crate) base: Vec<Assignment>,
    /// `--config`, in order.
    pub(crate) files: Vec<PathBuf>,
    /// Variables whose names begin with `WAVEGATE__`, in order of their names.
    pub(crate) environment: Vec<(String, String)>,
    /// `--set`, in order.
    pub(crate) sets: Vec<Assignment>,
}

impl Sources {
    /// Takes the environment of this process.
    pub(crate) fn new(files: Vec<PathBuf>, sets: Vec<Assignment>) -> Self {
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        let mut environment: Vec<_> = std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        environment.sort();
        Sources { base: Vec::new(), files, environment, sets }
    }

    /// Stacks the sources; nothing is read yet but the files.
    pub(super) fn figment(&self) -> Figment {
        let mut figment = Figment::from(Named { name: "default".into(), inner: Toml::string(DEFAULTS) });
        for Assignment { key, value } in &self.base {
            figment =
                figment.merge(Single { name: "default".into(), key: key.clone(), value: value.clone() });
        }
        for file in &self.files {
            let name = file.display().to_string();
            figment = figment.merge(Named { name, inner: Toml::file_exact(file) });
        }
        for (name, value) in &self.environment {
            let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            figment =
                figment.merge(Single { name: format!("environment {name}"), key, value: value.clone() });
        }
        for Assignment { key, value } in &self.sets {
            let name = format!("--set {key}");
            figment = figment.merge(Single { name, key: key.clone(), value: value.clone() });
        }
        figment
    }
}

/// One `--set`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// `section.key`
    pub(crate) key: String,
    /// As on the command line.
    pub(crate) value: String,
}

impl FromStr for Assignment {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once('=') {
            Some((key, value)) if key.split('.').all(|part| !part.trim().is_empty()) => {
                Ok(Assignment { key: key.trim().to_owned(), value: value.to_owned() })
            }
            Some(_) | None => Err("expected SECTION.KEY=VALUE, say http.listen=127.0.0.1:9000".into()),
        }
    }
}

/// Another source under a name that says where a user finds it.
struct Named<P> {
    name: String,
    inner: P,
}

impl<P: Provider> Provider for Named<P> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }
    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        self.inner.data()
    }
}

/// One value.
struct Single {
    name: String,
    key: String,
    value: String,
}

impl Provider for Single {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }
    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.key, scalar(&self.value));
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

/// Reads a value as TOML does where that is possible, else as text, so that
/// `http.listen=127.0.0.1:0` needs no quotes.
fn scalar(text: &str) -> Value {
    // A number would lose the zeros of a prefix such as 0614141.
    let digits = text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<Value>() {
        Ok(value) if !digits => value,
        Ok(_) | Err(_) => Value::from(text),
    }
}
