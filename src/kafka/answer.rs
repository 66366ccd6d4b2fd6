//! Reads the fields of an answer, and believes nothing.
//!
//! Every count is checked against the bytes that are left, so a damaged or
//! hostile answer costs an error and no memory. What the fields mean is not
//! known here.

use kafka_protocol::messages::ApiKey;

use super::error::Cause;

/// What is left of an answer's body.
#[derive(Debug)]
pub struct Answer<'a> {
    api: ApiKey,
    rest: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The body of an answer to a request of this kind.
    pub fn new(api: ApiKey, body: &'a [u8]) -> Answer<'a> {
        Answer { api, rest: body }
    }

    fn garbled(&self) -> Cause {
        let api = self.api;
        Cause::Protocol(format!(
            "an answer to {api:?} that cannot be read: not Kafka?"
        ))
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Cause> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or_else(|| self.garbled())?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Cause> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("it has that length"))
    }

    /// INT8, or BOOLEAN.
    pub fn i8(&mut self) -> Result<i8, Cause> {
        self.fixed().map(i8::from_be_bytes)
    }

    /// INT16.
    pub fn i16(&mut self) -> Result<i16, Cause> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// INT32.
    pub fn i32(&mut self) -> Result<i32, Cause> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// INT64.
    pub fn i64(&mut self) -> Result<i64, Cause> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// The length of an ARRAY; null counts as empty.
    pub fn count(&mut self) -> Result<usize, Cause> {
        let count = self.i32()?.max(0) as usize;
        self.plausible(count)
    }

    /// The length of an ARRAY that takes memory, of which `room` is left: one with more is
    /// believed as little as one that says more than it has.
    pub fn count_within(&mut self, room: &mut usize, of: &str) -> Result<usize, Cause> {
        let count = self.count()?;
        let problem = || Cause::Protocol(format!("an answer that names {count} {of}: not Kafka?"));
        *room = room.checked_sub(count).ok_or_else(problem)?;
        Ok(count)
    }

    /// The length of a COMPACT_ARRAY; null counts as empty.
    pub fn compact_count(&mut self) -> Result<usize, Cause> {
        let count = self.unsigned_varint()?.saturating_sub(1);
        self.plausible(count as usize)
    }

    /// An element takes one byte at least.
    fn plausible(&self, count: usize) -> Result<usize, Cause> {
        if count <= self.rest.len() {
            Ok(count)
        } else {
            Err(self.garbled())
        }
    }

    /// STRING.
    pub fn string(&mut self) -> Result<String, Cause> {
        self.nullable_string()?.ok_or_else(|| self.garbled())
    }

    /// NULLABLE_STRING.
    pub fn nullable_string(&mut self) -> Result<Option<String>, Cause> {
        let Ok(length) = usize::try_from(self.i16()?) else {
            return Ok(None);
        };
        let text = String::from_utf8(self.take(length)?.to_vec());
        text.map(Some).map_err(|_| self.garbled())
    }

    /// BYTES; null counts as empty.
    pub fn bytes(&mut self) -> Result<&'a [u8], Cause> {
        let length = self.i32()?.max(0) as usize;
        self.take(length)
    }

    /// Tagged fields (KIP-482), none of which is of interest.
    pub fn skip_tags(&mut self) -> Result<(), Cause> {
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            self.take(length as usize)?;
        }
        Ok(())
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Cause> {
        match self.rest {
            [] => Ok(()),
            _ => Err(self.garbled()),
        }
    }

    fn unsigned_varint(&mut self) -> Result<u32, Cause> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let [byte] = self.fixed::<1>()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.garbled())
    }
}
