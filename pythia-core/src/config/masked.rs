//! Shows settings without the secrets among them.

use std::fmt;
use std::slice;

use figment::value::Value;

use super::refusal::shown;

/// A value, and the keys that lead to it.
pub(super) struct Masked<'a> {
    pub(super) value: &'a Value,
    pub(super) path: &'a [String],
}

impl fmt::Debug for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::Array(_, items) => {
                let path = self.path;
                let items = items.iter().map(|value| Masked { value, path });
                f.debug_list().entries(items).finish()
            }
            Value::Dict(_, entries) => {
                let mut map = f.debug_map();
                for (key, value) in entries {
                    let path = &[self.path, slice::from_ref(key)].concat();
                    map.entry(key, &Masked { value, path });
                }
                map.finish()
            }
            _ if is_secret(self.path) => f.write_str("***"),
            Value::Bool(_, value) => value.fmt(f),
            Value::String(_, text) => text.fmt(f),
            value => f.write_str(&shown(&value.to_actual())),
        }
    }
}

/// Whether a setting may hold a password, so that its value is never shown. Broad on purpose, and so that a misspelt
/// password is none the less one; only the name of a file that holds one is no secret.
pub(super) fn is_secret(path: &[String]) -> bool {
    path.iter().any(|key| {
        let is_misspelt = || {
            key.split('_')
                .any(|word| strsim::osa_distance(word, "password") <= 2)
        };
        let is_named = || {
            ["pass", "secret", "token", "url"]
                .iter()
                .any(|secret| key.contains(secret))
        };
        !key.ends_with("_file") && (is_named() || is_misspelt())
    })
}

/// A URL with `***` in place of what may be a password in it. Rather too much is hidden than too little: passwords hold
/// characters that they should not, and some are written where the user's name belongs.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (login, rest) = match rest.rsplit_once('@') {
        Some((login, rest)) => match login.split_once(':') {
            Some((user, _)) => (format!("{user}:***@"), rest),
            None => ("***@".to_owned(), rest),
        },
        None => (String::new(), rest),
    };
    match rest.split_once('?') {
        Some((rest, _)) => format!("{scheme}://{login}{rest}?***"),
        None => format!("{scheme}://{login}{rest}"),
    }
}
