//! A user's rules as `ACL GETUSER` shows them, for Redis 6.2: it can't be asked what they allow.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use super::permissions::{Reach, Verdict};
use crate::connection::{Args, Reply};
use crate::error::RedisError;

/// What a user may do.
#[derive(Debug, Default)]
pub(super) struct Rules {
    commands: Vec<String>,
    keys: Vec<String>,
    channels: Vec<String>,
    /// The commands of the categories that the rules name.
    categories: BTreeMap<String, BTreeSet<String>>,
}

impl Rules {
    pub(super) async fn of(node: &Node<'_>, user: &str) -> Result<Self, RedisError> {
        let args = Args::new().arg("GETUSER").arg(user.to_owned());
        let fields = node.command("ACL", args).await?.into_array()?;
        let mut rules = Self::default();
        for field in fields.chunks_exact(2) {
            let value = field[1].clone();
            match field[0].clone().into_bytes()?.as_ref() {
                b"commands" => rules.commands = words(&value.into_text()?),
                b"keys" => rules.keys = texts(value)?,
                b"channels" => rules.channels = texts(value)?,
                _ => {}
            }
        }
        for rule in &rules.commands {
            let category = rule.get(1..).and_then(|rest| rest.strip_prefix('@'));
            if let Some(category) = category.filter(|&category| category != "all") {
                let args = Args::new().arg("CAT").arg(category.to_owned());
                let commands = texts(node.command("ACL", args).await?)?;
                let commands = commands.into_iter().collect();
                rules.categories.insert(category.to_owned(), commands);
            }
        }
        Ok(rules)
    }

    /// What is to be said of a command that uses these keys and channels.
    pub(super) fn verdict(&self, command: &str, keys: &[&str], channels: &[&str]) -> Verdict {
        let reached = |patterns: &[String], names: &[&str]| {
            let reach = |name: &&str| {
                let matches = |pattern: &String| matches(pattern.as_bytes(), name.as_bytes());
                patterns.iter().any(matches)
            };
            names.iter().all(reach)
        };
        let reach = match reached(&self.keys, keys) && reached(&self.channels, channels) {
            true => Reach::Given,
            false => Reach::Missing,
        };
        Verdict {
            denied: (!self.allow(command)).then(|| command.to_owned()),
            reach,
        }
    }

    /// The last rule that is about a command decides.
    fn allow(&self, command: &str) -> bool {
        let container = command.split('|').next().unwrap_or(command);
        let is_about = |rule: &str| match rule.strip_prefix('@') {
            Some("all") => true,
            Some(category) => self
                .categories
                .get(category)
                .is_some_and(|known| known.contains(container)),
            None => rule == command || rule == container,
        };
        let deciding = self
            .commands
            .iter()
            .rev()
            .find(|rule| rule.get(1..).is_some_and(is_about));
        deciding.is_some_and(|rule| rule.starts_with('+'))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn texts(reply: Reply) -> Result<Vec<String>, RedisError> {
    let elements = reply.into_array()?.into_iter();
    elements
        .map(|element| Ok(element.into_text()?.to_string()))
        .collect()
}

/// As Redis' patterns match: `*`, `?` and `\`. What has a choice of characters is taken to match.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], name) => name.is_empty(),
        ([b'[', ..], _) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        ([b'\\', sign, rest @ ..], [first, others @ ..]) => sign == first && matches(rest, others),
        ([sign, rest @ ..], [first, others @ ..]) => {
            (*sign == b'?' || sign == first) && matches(rest, others)
        }
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(commands: &str) -> Rules {
        let read = ["get", "llen", "xinfo"].map(str::to_owned);
        Rules {
            commands: words(commands),
            keys: vec!["orders*".to_owned()],
            channels: Vec::new(),
            categories: BTreeMap::from([("read".to_owned(), BTreeSet::from(read))]),
        }
    }

    #[test]
    fn the_last_rule_about_a_command_decides() {
        for (commands, allowed) in [
            ("+@all", "yes"),
            ("-@all", "no"),
            ("-@all +@read", "yes"),
            ("-@all +@read -get", "no"),
            ("-get +@all", "yes"),
            ("-@all +set", "no"),
            ("", "no"),
        ] {
            assert_eq!(rules(commands).allow("get"), allowed == "yes", "{commands}");
        }
        assert!(rules("-@all +xinfo").allow("xinfo|groups"));
        assert!(rules("-@all +xinfo|groups").allow("xinfo|groups"));
        assert!(!rules("-@all +xinfo|groups").allow("xinfo|stream"));
    }

    #[test]
    fn a_command_lacks_itself_or_a_name_or_both() {
        let rules = rules("-@all +@read");
        for (command, keys, channels, denied, reach) in [
            ("get", &["orders:1"][..], &[][..], None, Reach::Given),
            ("get", &["orders:1", "bills"], &[], None, Reach::Missing),
            ("get", &[], &["orders"], None, Reach::Missing),
            ("set", &["orders"], &[], Some("set"), Reach::Given),
            ("set", &["bills"], &[], Some("set"), Reach::Missing),
        ] {
            let denied = denied.map(str::to_owned);
            let verdict = rules.verdict(command, keys, channels);
            assert_eq!(verdict, Verdict { denied, reach });
        }
    }

    #[test]
    fn patterns_match_as_they_do_in_redis() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a?", "ab", true),
            ("a?", "a", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("pythia:{orders}:*", "pythia:{orders}:dead", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }
}
