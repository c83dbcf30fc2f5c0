//! What users of the crate see, from outside.

mod memory;
mod runtime;
