//! The pages of the guide in docs/ say what is so: the commands that they show are typed, and answer what is shown.

mod choose;
mod deploy;
mod failures;
mod links;
mod page;
mod service;
mod shell;
mod troubleshoot;
