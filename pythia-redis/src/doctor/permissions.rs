//! Whether the user may do what a worker does. Redis 7 tells without doing it, by `ACL DRYRUN`;
//! of Redis 6.2 the rules are weighed here.

use std::collections::BTreeSet;

use pythia_core::QueueName;

use super::finding::{Code, Severity};
use super::node::{Findings, Node, Purpose, quoted};
use super::rules::Rules;
use crate::acl::{self, Pattern};
use crate::connection::{Args, Reply};
use crate::error::{Kind, RedisError};
use crate::keys::Keys;
use crate::store;

pub(super) async fn examine(node: &Node<'_>, queues: &[QueueName], found: &mut Findings) {
    let user = node.redis.server().username.as_deref().unwrap_or("default");
    let mut rights = Rights {
        node,
        user,
        shown: None,
        commands: BTreeSet::new(),
        rules: BTreeSet::new(),
    };
    let version = node.version();
    let is_old = version.is_some_and(|version| version < (7, 0));
    let mut outcome = rights.weigh(is_old, queues).await;
    if outcome.is_err() && version.is_none() {
        outcome = rights.weigh(true, queues).await;
    }
    if let Err(error) = outcome {
        let what = format!(
            "could not be examined: the permissions of user {user}: {}",
            error.detail()
        );
        let rule = match is_old {
            true => "'+acl|getuser' '+acl|cat'",
            false => "'+acl|dryrun'",
        };
        let finding = node
            .finding(Severity::Note, Code::NotExamined, what)
            .means("a right that is missing shows when it is needed, in the log")
            .mended_by(format!("ACL SETUSER {} {rule}", quoted(user)))
            .advice_is("or not at all: workers do without");
        found.add(finding);
        return;
    }
    let missing: Vec<String> = rights.commands.into_iter().chain(rights.rules).collect();
    if missing.is_empty() {
        return;
    }
    let quoted_rules: Vec<String> = missing.iter().map(|rule| quoted(rule)).collect();
    let finding = node
        .finding(
            Severity::Critical,
            Code::MissingPermission,
            format!("user {user} lacks {}", missing.join(" ")),
        )
        .means("a worker fails with NOPERM where it needs what is missing")
        .mended_by(format!(
            "ACL SETUSER {} {}",
            quoted(user),
            quoted_rules.join(" ")
        ))
        .advice_is("and the same in the file of users, or ACL SAVE: it lasts until Redis restarts");
    found.add(finding);
}

struct Rights<'a> {
    node: &'a Node<'a>,
    user: &'a str,
    /// Where Redis can't be asked what they allow.
    shown: Option<Rules>,
    /// Rules that grant missing commands.
    commands: BTreeSet<String>,
    /// Rules that grant missing keys and channels.
    rules: BTreeSet<String>,
}

/// What is known of one command.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    /// The command, if it is not allowed.
    pub(super) denied: Option<String>,
    pub(super) reach: Reach,
}

/// Whether the names of a queue may be used. Where that is not known, because no command with them is allowed, they are taken
/// for missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reach {
    Given,
    Missing,
    Unknown,
}

impl Rights<'_> {
    async fn weigh(&mut self, is_old: bool, queues: &[QueueName]) -> Result<(), RedisError> {
        if is_old {
            self.shown = Some(Rules::of(self.node, self.user).await?);
        }
        let config = self.node.config();
        let prefix = &config.key_prefix;
        if self.node.purpose != Purpose::Queues {
            let key = store::key(&prefix.to_string(), "doctor");
            let mut keys = Reach::Unknown;
            for line in acl::STORE {
                let verdict = self.verdict(line, &[("K", &key)]).await?;
                self.note(verdict, &mut keys);
            }
            if keys != Reach::Given {
                self.rules.insert(acl::store_keys(prefix));
            }
        }
        if self.node.purpose == Purpose::Store {
            return Ok(());
        }
        for line in connecting(self.node) {
            let verdict = self.verdict(line, &[]).await?;
            self.note(verdict, &mut Reach::Unknown);
        }
        for (index, queue) in queues.iter().enumerate() {
            self.queue(queue, index == 0).await?;
        }
        Ok(())
    }

    /// The first queue is tried with every command; what others may lack are their keys and channels.
    async fn queue(&mut self, queue: &QueueName, is_first: bool) -> Result<(), RedisError> {
        let config = self.node.config();
        let keys = Keys::new(&config.key_prefix, queue);
        let own = keys.key("doctor");
        let names = [
            ("K", &*keys.ready),
            ("O", &*own),
            ("C", &*keys.ready),
            ("N", &*keys.control),
        ];
        let (mut in_keys, mut in_channels) = (Reach::Unknown, Reach::Unknown);
        for line in acl::needed(self.node.pattern, config) {
            let of = |signs: [&str; 2]| line.split(' ').any(|word| signs.contains(&word));
            let (of_keys, of_channels) = (of(["K", "O"]), of(["C", "N"]));
            // A script reads and writes.
            if !is_first && !of_channels && !line.starts_with("EVALSHA") {
                continue;
            }
            let verdict = self.verdict(line, &names).await?;
            match (of_keys, of_channels) {
                (true, _) => self.note(verdict, &mut in_keys),
                (_, true) => self.note(verdict, &mut in_channels),
                _ => self.note(verdict, &mut Reach::Unknown),
            }
        }
        if in_keys != Reach::Given {
            self.rules.extend(acl::keys(&config.key_prefix, queue));
        }
        let [ready, control] = acl::channels(&config.key_prefix, queue);
        match self.node.pattern {
            Pattern::List if in_channels != Reach::Given => self.rules.insert(control),
            Pattern::PubSub if in_channels != Reach::Given => self.rules.insert(ready),
            _ => false,
        };
        Ok(())
    }

    /// Keeps what a command lacks, and what that says of the keys or channels that it was to reach. To grant them twice would be
    /// refused: `~orders` behind `allkeys`.
    fn note(&mut self, verdict: Verdict, reach: &mut Reach) {
        if let Some(command) = verdict.denied {
            self.commands.insert(format!("+{command}"));
        }
        match (verdict.reach, *reach) {
            (Reach::Missing, _) => *reach = Reach::Missing,
            (Reach::Given, Reach::Unknown) => *reach = Reach::Given,
            _ => {}
        }
    }

    async fn verdict(&self, line: &str, names: &[(&str, &str)]) -> Result<Verdict, RedisError> {
        if let Some(rules) = &self.shown {
            return Ok(by_rules(rules, line, names));
        }
        let words = line.split(' ').map(|word| {
            let name = names.iter().find(|(sign, _)| *sign == word);
            name.map_or(word, |(_, name)| name).to_owned()
        });
        let args = Args::new()
            .arg("DRYRUN")
            .arg(self.user.to_owned())
            .args(words);
        let answer = self.node.command("ACL", args).await;
        let text = match answer.and_then(Reply::into_text) {
            Ok(text) => text,
            // This server has no such command, so nobody needs it there.
            Err(error) if error.kind() == Kind::UnknownCommand => {
                return Ok(Verdict::of_nothing());
            }
            Err(error) => return Err(error),
        };
        let denied = text
            .split_once("run the '")
            .and_then(|(_, rest)| Some(rest.split_once('\'')?.0.to_owned()));
        let reach = match &denied {
            // Redis has not looked at its keys.
            Some(_) => Reach::Unknown,
            None if text.contains(" channel") || text.contains(" key") => Reach::Missing,
            None => Reach::Given,
        };
        Ok(Verdict { denied, reach })
    }
}

impl Verdict {
    const fn of_nothing() -> Self {
        Self {
            denied: None,
            reach: Reach::Unknown,
        }
    }
}

/// The same, by rules that are weighed here.
fn by_rules(rules: &Rules, line: &str, names: &[(&str, &str)]) -> Verdict {
    let mut words = line.split(' ');
    let mut command = words.next().unwrap_or_default().to_lowercase();
    // It came with 7.0, so nobody needs it here.
    if matches!(&*command, "blmpop" | "ssubscribe" | "spublish") {
        return Verdict::of_nothing();
    }
    if matches!(&*command, "cluster" | "xgroup" | "xinfo") {
        command.push('|');
        command.push_str(&words.next().unwrap_or_default().to_lowercase());
    }
    let (mut keys, mut channels) = (Vec::new(), Vec::new());
    for word in words {
        match (word, names.iter().find(|(sign, _)| *sign == word)) {
            ("K" | "O", Some((_, name))) => keys.push(*name),
            ("C" | "N", Some((_, name))) => channels.push(*name),
            _ => {}
        }
    }
    rules.verdict(&command, &keys, &channels)
}

/// What connecting to this place takes, as commands.
fn connecting(node: &Node<'_>) -> impl Iterator<Item = &'static str> {
    let rules = acl::commands_to_connect(&node.redis.server().place);
    rules.iter().map(|rule| match *rule {
        "+cluster|slots" => "CLUSTER SLOTS",
        "+cluster|info" => "CLUSTER INFO",
        _ => "ROLE",
    })
}
