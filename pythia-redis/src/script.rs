//! Lua scripts: named, compiled into the crate, and called by their digest.

use std::fmt;
use std::sync::OnceLock;

use bytestring::ByteString;
use sha1_smol::Sha1;

/// One script, declared as a `static` beside the code that calls it:
///
/// ```text
/// static CLAIM: Script = Script::new("list/claim", include_str!("../scripts/list/claim.lua"));
/// ```
///
/// Its file starts with a header that names KEYS, ARGV and what it returns. Every script is bounded and may run
/// twice (see the crate's notes on re-sent commands), and returns user data only nested: see
/// [`connection`](crate::connection).
pub(crate) struct Script {
    name: &'static str,
    written: &'static str,
    source: OnceLock<String>,
    digest: OnceLock<ByteString>,
}

impl Script {
    /// Declares a script; `name` is its path below `scripts/`, without the extension.
    pub(crate) const fn new(name: &'static str, source: &'static str) -> Self {
        Self {
            name,
            written: source,
            source: OnceLock::new(),
            digest: OnceLock::new(),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What is sent to Redis: without what is there for readers only, or a slow link would be busy with it for seconds.
    pub(crate) fn source(&self) -> &str {
        self.source.get_or_init(|| {
            let lines = self.written.lines().map(str::trim);
            let code = lines.filter(|line| !line.is_empty() && !line.starts_with("--"));
            code.collect::<Vec<_>>().join("\n")
        })
    }

    /// The SHA-1 of the source, in the lower-case hexadecimal that `EVALSHA` takes.
    pub(crate) fn digest(&self) -> &ByteString {
        self.digest
            .get_or_init(|| Sha1::from(self.source()).digest().to_string().into())
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_sha1_of_the_source() {
        static SCRIPT: Script = Script::new("test/one", "return 1");
        // As SCRIPT LOAD answers.
        assert_eq!(SCRIPT.digest(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(format!("{SCRIPT:?}"), "Script(\"test/one\")");
    }

    #[test]
    fn what_is_for_readers_is_not_sent() {
        static SCRIPT: Script = Script::new(
            "test/two",
            "-- Why.\n\nif a then\n  return 1 -- this stays\nend\n",
        );
        assert_eq!(SCRIPT.source(), "if a then\nreturn 1 -- this stays\nend");
    }
}
