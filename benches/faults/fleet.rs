//! Worker processes: started, killed, stopped, told to end.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::history::{self, Journal, Record, now};
use crate::plan::{Group, Number};

/// The worker processes of a run.
#[derive(Debug)]
pub(crate) struct Fleet {
    folder: PathBuf,
    journal: Arc<Journal>,
    groups: Vec<Group>,
    slots: Vec<Slot>,
}

/// A place for a process; who takes it after a death goes on in its stead.
#[derive(Debug, Default)]
struct Slot {
    lives: u32,
    process: Option<Process>,
    environment: Vec<(String, String)>,
}

#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
}

impl Fleet {
    pub(crate) fn new(
        folder: &Path,
        journal: Arc<Journal>,
        groups: Vec<Group>,
        size: usize,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            journal,
            groups,
            slots: (0..size).map(|_| Slot::default()).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The configuration that processes start with from here on.
    pub(crate) fn configure(&self, text: &str) -> io::Result<()> {
        std::fs::write(self.folder.join(CONFIG), text)
    }

    /// What is set in the environment of the processes of this slot that start from here on.
    pub(crate) fn environment(&mut self, slot: usize, name: &str, value: &str) {
        self.slots[slot]
            .environment
            .push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn start_all(&mut self) -> io::Result<()> {
        (0..self.len()).try_for_each(|slot| self.start(slot, None))
    }

    /// Starts a process in this slot, which is free. With `die` it dies by itself: `after-fetch:7`.
    pub(crate) fn start(&mut self, slot: usize, die: Option<&str>) -> io::Result<()> {
        let place = &mut self.slots[slot];
        place.lives += 1;
        let name = format!("worker-{slot}.{}", place.lives);
        let mut groups = self.groups.clone();
        // One process alone keeps an order.
        groups.retain(|group| *group != Group::Ordered || slot == 0);
        let groups: Vec<_> = groups.into_iter().map(Group::name).collect();
        let memory_from = MEMORY + (slot as Number * 1_000 + Number::from(place.lives)) * 1_000_000;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("worker")
            .arg("--config")
            .arg(self.folder.join(CONFIG))
            .arg("--journal")
            .arg(self.folder.join(format!("{name}.history")))
            .args(["--groups", &groups.join(",")])
            .args(["--memory-from", &memory_from.to_string()])
            .envs(place.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.folder.join(format!("{name}.log")))?);
        if let Some(die) = die {
            command.args(["--die", die]);
        }
        place.process = Some(Process {
            name,
            child: command.spawn()?,
        });
        Ok(())
    }

    /// Whether every process was given a message; where there is pub/sub, one that all of them hear.
    pub(crate) fn all_have_received(&self) -> io::Result<bool> {
        for place in &self.slots {
            let Some(process) = &place.process else {
                continue;
            };
            let path = self.folder.join(format!("{}.history", process.name));
            let records = match path.exists() {
                true => history::read(&path)?,
                false => Vec::new(),
            };
            let fans_out = self.groups.contains(&Group::News);
            let received = records.iter().any(|record| match record {
                Record::Received { group, .. } => !fans_out || *group == Group::News,
                _ => false,
            });
            if !received {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until the process of this slot has been given a message, or has published to its own broker.
    pub(crate) async fn begun(&self, slot: usize) -> io::Result<()> {
        let process = self.process(slot)?;
        let path = self.folder.join(format!("{}.history", process.name));
        let deadline = Instant::now() + PATIENCE;
        while path.metadata().map_or(0, |file| file.len()) == 0 {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("worker {slot} does not begin")));
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// The files that the process of this slot has mapped: its program and its libraries.
    pub(crate) fn mapped(&self, slot: usize) -> io::Result<String> {
        let process = self.process(slot)?;
        std::fs::read_to_string(format!("/proc/{}/maps", process.child.id()))
    }

    /// `kill -9`, and a new process in its place.
    pub(crate) async fn replace(&mut self, slot: usize) -> io::Result<()> {
        self.kill(slot)?;
        self.start(slot, None)
    }

    pub(crate) fn kill(&mut self, slot: usize) -> io::Result<()> {
        if let Some(mut process) = self.slots[slot].process.take() {
            self.journal.write(&Record::Killed {
                at: now(),
                process: process.name.clone(),
            });
            process.child.kill()?;
            process.child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn terminate(&mut self, slot: usize) -> io::Result<ExitStatus> {
        self.signal(slot, Signal::TERM)?;
        self.ended(slot).await
    }

    /// Tells all to end, and waits until they have, in order.
    pub(crate) async fn terminate_all(&mut self) -> io::Result<()> {
        let running: Vec<_> = (0..self.len())
            .filter(|slot| self.slots[*slot].process.is_some())
            .collect();
        for slot in &running {
            self.signal(*slot, Signal::TERM)?;
        }
        for slot in running {
            let status = self.ended(slot).await?;
            if !status.success() {
                return Err(io::Error::other(format!(
                    "worker {slot} ended with {status}, not in order"
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn stop(&self, slot: usize) -> io::Result<()> {
        self.signal(slot, Signal::STOP)
    }

    pub(crate) fn resume(&self, slot: usize) -> io::Result<()> {
        self.signal(slot, Signal::CONT)
    }

    fn process(&self, slot: usize) -> io::Result<&Process> {
        let process = self.slots[slot].process.as_ref();
        process.ok_or_else(|| not_running(slot))
    }

    fn signal(&self, slot: usize, signal: Signal) -> io::Result<()> {
        let process = self.process(slot)?;
        let pid = i32::try_from(process.child.id())
            .ok()
            .and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("no process id"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until the process of this slot has ended by itself.
    pub(crate) async fn ended(&mut self, slot: usize) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.reap(slot)? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "worker {slot} still runs after {PATIENCE:?}"
                )));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// How the process of this slot has ended, if it has; writes down a death that was not in order.
    pub(crate) fn reap(&mut self, slot: usize) -> io::Result<Option<ExitStatus>> {
        let place = &mut self.slots[slot];
        let Some(process) = &mut place.process else {
            return Err(not_running(slot));
        };
        let Some(status) = process.child.try_wait()? else {
            return Ok(None);
        };
        if !status.success() {
            self.journal.write(&Record::Killed {
                at: now(),
                process: process.name.clone(),
            });
        }
        place.process = None;
        Ok(Some(status))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if let Some(process) = &mut slot.process {
                // It may have ended by itself.
                let _killed = process.child.kill();
                let _reaped = process.child.wait();
            }
        }
    }
}

fn not_running(slot: usize) -> io::Error {
    io::Error::other(format!("worker {slot} does not run"))
}

const CONFIG: &str = "workers.toml";
/// The numbers of messages in memory begin here: nobody else comes so far.
const MEMORY: Number = 1 << 40;
const PATIENCE: Duration = Duration::from_secs(60);
