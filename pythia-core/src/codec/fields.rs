//! Serde over the field-value pairs of a stream entry.

use serde::de::DeserializeOwned;

use super::{Codec, CodecError, Fields};
use crate::message::Payload;

impl<T: DeserializeOwned> Codec<T> for Fields {
    fn decode(&self, payload: &Payload) -> Result<T, CodecError> {
        let _ = payload;
        Err(CodecError::new("fields", "not yet"))
    }
}
