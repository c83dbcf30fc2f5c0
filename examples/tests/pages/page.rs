//! A page of the guide, read from the top to the bottom.

use std::path::Path;

use crate::shell::Shell;

/// A page whose sessions (blocks of code that are marked `console`) have yet to be run.
pub(crate) struct Page {
    name: &'static str,
    text: String,
    sessions: std::vec::IntoIter<Session>,
}

struct Session {
    heading: String,
    /// What is typed, and what is answered.
    steps: Vec<(String, String)>,
}

impl Page {
    pub(crate) fn open(name: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let sessions = sessions(&text).into_iter();
        Self {
            name,
            text,
            sessions,
        }
    }

    /// Runs the next session, which is one below this heading, and compares what it answers with what the page shows.
    pub(crate) async fn run(&mut self, heading: &str, shell: &Shell) {
        let Some(session) = self.sessions.next() else {
            panic!("{} has no session any more", self.name);
        };
        assert_eq!(
            session.heading, heading,
            "the next session of {}",
            self.name
        );
        for (command, expected) in session.steps {
            let answer = shell.run(&command).await;
            assert!(
                is_like(&answer, &expected),
                "{}, {heading}: `{command}` answers\n{answer}\nand the page shows\n{expected}",
                self.name
            );
        }
    }

    /// Leaves out the next session, which this server answers in another way.
    pub(crate) fn skip(&mut self, heading: &str) {
        let session = self.sessions.next();
        assert!(session.is_some_and(|session| session.heading == heading));
    }

    /// To be called last: each session has been run.
    pub(crate) fn end(mut self) {
        if let Some(session) = self.sessions.next() {
            panic!(
                "nobody has run what {} shows below {:?}",
                self.name, session.heading
            );
        }
    }

    /// The code of every block in that language.
    pub(crate) fn blocks(&self, language: &str) -> Vec<&str> {
        let fence = format!("```{language}\n");
        let blocks = self.text.split(&*fence).skip(1);
        blocks.filter_map(|rest| rest.split("```").next()).collect()
    }

    /// The rows of the tables above the first heading, without their heads.
    pub(crate) fn table(&self) -> Vec<Vec<&str>> {
        rows(self.text.split("\n## ").next().unwrap_or_default())
    }

    /// The rows of every table below a heading, without their heads.
    pub(crate) fn rows(&self, heading: &str) -> Vec<Vec<&str>> {
        let below = self.text.split(&format!("\n## {heading}\n")).nth(1);
        let below = below.unwrap_or_else(|| panic!("{} has no {heading:?}", self.name));
        rows(below.split("\n## ").next().unwrap_or_default())
    }
}

fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut is_body = false;
    for line in text.lines() {
        if line.starts_with("|---") {
            is_body = true;
        } else if !line.starts_with('|') {
            is_body = false;
        } else if is_body {
            rows.push(line.trim_matches(['|', ' ']).split(" | ").collect());
        }
    }
    rows
}

fn sessions(text: &str) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut heading = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("## ") {
            heading = name;
        } else if line == "```console" {
            let mut steps: Vec<(String, String)> = Vec::new();
            for line in lines.by_ref().take_while(|line| *line != "```") {
                match (line.strip_prefix("$ "), steps.last_mut()) {
                    (Some(command), _) => steps.push((command.to_owned(), String::new())),
                    (None, Some((_, answer))) => {
                        answer.push_str(line);
                        answer.push('\n');
                    }
                    (None, None) => panic!("{heading}: a session begins with a command"),
                }
            }
            sessions.push(Session {
                heading: heading.to_owned(),
                steps,
            });
        } else if line.starts_with("```") {
            // Another language: a comment in it may look like a heading.
            lines
                .by_ref()
                .take_while(|line| *line != "```")
                .for_each(drop);
        }
    }
    sessions
}

/// Whether an answer is what the page shows, where `..` is any text.
fn is_like(answer: &str, shown: &str) -> bool {
    let (answer, shown) = (answer.trim_end(), shown.trim_end());
    let mut parts = shown.split("..");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = answer.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn dots_are_any_text() {
    for (answer, shown, alike) in [
        ("3", "3\n", true),
        ("4", "3", false),
        ("3\n4", "3", false),
        ("1-0 and 2-0\n", "..-0 and ..-0", true),
        ("a\nb\nc", "a\n..\nc", true),
        ("a\nb\nd", "a\n..\nc", false),
        ("", "..", true),
    ] {
        assert_eq!(is_like(answer, shown), alike, "{answer:?} {shown:?}");
    }
}
