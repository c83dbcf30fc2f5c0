//! The message: JSON of about a hundred bytes, as a plain client writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(crate) struct Payment {
    pub(crate) id: u64,
    /// When it was published, µs since 1970.
    pub(crate) at: u64,
    pub(crate) customer: String,
    pub(crate) cents: i64,
    pub(crate) currency: String,
    pub(crate) note: String,
}

impl Payment {
    /// The message of that number, of so many bytes if it can be.
    pub(crate) fn number(id: u64, bytes: usize) -> Self {
        let mut payment = Self {
            id,
            at: now(),
            customer: format!("customer-{:05}", id % 9_973),
            cents: 1_999,
            currency: "EUR".into(),
            note: String::new(),
        };
        let missing = bytes.saturating_sub(payment.to_json().len());
        payment.note = "x".repeat(missing);
        payment
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn from_json(bytes: &[u8]) -> Option<Self> {
        let payment = serde_json::from_slice(bytes).ok()?;
        Some(std::hint::black_box(payment))
    }
}

/// µs since 1970, by the clock that all processes of this machine share.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}
