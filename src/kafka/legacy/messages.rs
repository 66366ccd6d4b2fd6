//! Messages as brokers before Kafka 0.11 take them: a key and a value, no more.
//!
//! They are kept as they came; the crate `kafka` encodes and compresses them.

use std::ops::Range;

use super::super::client::Records;
use super::super::headers::EncodedHeaders;

/// What a message set adds to key and value: offset, size, checksum, magic, attributes and
/// two lengths. <https://kafka.apache.org/documentation/#messageset>
const OVERHEAD_BYTES: usize = 8 + 4 + 4 + 1 + 1 + 4 + 4;

/// The messages of one batch, in order.
#[derive(Debug, Default)]
pub struct Messages {
    /// Keys and values.
    bytes: Vec<u8>,
    spans: Vec<Span>,
    /// A message had headers, for which there is no room.
    lost_headers: bool,
}

#[derive(Debug)]
struct Span {
    key: Option<Range<usize>>,
    value: Range<usize>,
}

/// Collects messages up to a limit.
#[derive(Debug)]
pub struct MessageBuilder {
    batch_bytes_max: usize,
    messages: Messages,
}

impl Messages {
    /// Key and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&[u8]>, &[u8])> {
        self.spans.iter().map(|span| {
            let key = span.key.clone().map(|key| &self.bytes[key]);
            (key, &self.bytes[span.value.clone()])
        })
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Their size as they are sent, before compression.
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.len() + self.spans.len() * OVERHEAD_BYTES
    }

    /// True when one of them had headers.
    pub fn lost_headers(&self) -> bool {
        self.lost_headers
    }

    /// Forgets them and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.spans.clear();
        self.lost_headers = false;
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        from..self.bytes.len()
    }
}

impl MessageBuilder {
    /// A builder of batches of at most `batch_bytes_max` bytes before compression; a
    /// single message may have more.
    pub fn new(batch_bytes_max: usize) -> MessageBuilder {
        MessageBuilder {
            batch_bytes_max,
            messages: Messages::default(),
        }
    }

    /// Takes the messages out, and begins the next batch in `recycled`.
    pub(super) fn take(&mut self, recycled: Messages) -> Messages {
        std::mem::replace(&mut self.messages, recycled)
    }
}

impl Records for MessageBuilder {
    fn push(
        &mut self,
        _timestamp_ms: i64,
        key: Option<&[u8]>,
        value: &[u8],
        headers: EncodedHeaders,
    ) -> bool {
        let messages = &mut self.messages;
        let more = key.map_or(0, <[u8]>::len) + value.len() + OVERHEAD_BYTES;
        if messages.len() > 0 && messages.encoded_bytes() + more > self.batch_bytes_max {
            return false;
        }
        let key = key.map(|key| messages.append(key));
        let value = messages.append(value);
        messages.spans.push(Span { key, value });
        messages.lost_headers |= headers.bytes() > EncodedHeaders::NONE.bytes();
        true
    }

    fn is_empty(&self) -> bool {
        self.messages.len() == 0
    }

    fn records(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    fn bytes(&self) -> usize {
        self.messages.encoded_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(builder: &mut MessageBuilder, key: Option<&[u8]>, value: &[u8]) -> bool {
        builder.push(0, key, value, EncodedHeaders::NONE)
    }

    #[test]
    fn messages_come_out_as_they_went_in_an_empty_one_too() {
        let mut builder = MessageBuilder::new(1_000);
        let all: [(Option<&[u8]>, &[u8]); 3] =
            [(None, b"one"), (Some(b"key"), b""), (Some(b""), b"\0\xff")];
        for (key, value) in all {
            assert!(push(&mut builder, key, value));
        }
        assert_eq!(builder.bytes(), 3 * OVERHEAD_BYTES + 8);
        let messages = builder.take(Messages::default());
        assert!(messages.iter().eq(all), "{messages:?}");
        assert!(builder.is_empty());
    }

    #[test]
    fn a_batch_keeps_to_its_limit_but_for_its_first_message() {
        let mut builder = MessageBuilder::new(2 * OVERHEAD_BYTES + 2);
        assert!(push(&mut builder, None, b"a"));
        assert!(push(&mut builder, None, b"b"));
        assert!(!push(&mut builder, None, b""), "there is no room for it");
        assert_eq!(builder.records(), 2);
        builder.take(Messages::default());
        assert!(push(&mut builder, None, &[b'x'; 500]));
        assert_eq!(builder.records(), 1);
    }
}
