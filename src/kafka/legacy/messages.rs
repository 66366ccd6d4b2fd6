//! Messages as brokers before Kafka 0.11 take them: a key and a value, no more.
//!
//! A message set of magic 0 (<https://kafka.apache.org/documentation/#messageset>), each
//! message written once. It knows no offsets: those are the broker's.

use std::mem;
use std::sync::Arc;

use flate2::Crc;

use super::super::client::Records;
use super::super::codec::{Compression, Compressor};
use super::super::headers::EncodedHeaders;

/// Offset and size, which stand before a message.
const ENTRY_BYTES: usize = 8 + 4;
/// Where a message is, behind those, once its checksum is written.
const CRC_BYTES: usize = 4;
/// What a message set adds to key and value: the entry, checksum, magic, attributes and
/// two lengths.
const OVERHEAD_BYTES: usize = ENTRY_BYTES + CRC_BYTES + 1 + 1 + 4 + 4;
/// The only magic that all old brokers know.
const MAGIC: u8 = 0;

/// The messages of one batch, in order, as they are sent.
#[derive(Debug)]
pub struct Messages {
    /// The message set; a compressed one is the value of a message of its own.
    pub set: Arc<Vec<u8>>,
    /// Their number.
    pub count: u32,
    /// Their size before compression.
    pub plain_bytes: usize,
    /// One of them had headers, for which there is no room.
    pub lost_headers: bool,
}

/// Collects messages up to a limit.
pub struct MessageBuilder {
    batch_bytes_max: usize,
    /// That, or less for the messages that are being collected.
    limit: usize,
    compressor: Compressor,
    set: Vec<u8>,
    count: u32,
    lost_headers: bool,
}

impl MessageBuilder {
    /// A builder of batches of at most `batch_bytes_max` bytes before compression; a
    /// single message may have more. A codec that old brokers do not know becomes snappy.
    pub fn new(batch_bytes_max: usize, compression: Compression) -> MessageBuilder {
        MessageBuilder {
            batch_bytes_max,
            limit: batch_bytes_max,
            compressor: Compressor::new(known(compression)),
            set: Vec::new(),
            count: 0,
            lost_headers: false,
        }
    }

    /// Takes the messages out. `recycled` is any buffer to be used again.
    pub(super) fn finish(&mut self, recycled: Vec<u8>) -> Messages {
        let mut set = recycled;
        set.clear();
        let plain_bytes = self.set.len();
        match self.compressor.compression() {
            Compression::None => mem::swap(&mut set, &mut self.set),
            codec => append(&mut set, codec as u8, None, |set| {
                self.compressor.compress(&self.set, set);
            }),
        }
        self.set.clear();
        Messages {
            set: Arc::new(set),
            count: mem::take(&mut self.count),
            plain_bytes,
            lost_headers: mem::take(&mut self.lost_headers),
        }
    }
}

impl Records for MessageBuilder {
    fn limit(&mut self, bytes_max: usize) {
        self.limit = bytes_max.min(self.batch_bytes_max);
    }

    fn push(
        &mut self,
        _timestamp_ms: i64,
        key: Option<&[u8]>,
        value: &[u8],
        headers: EncodedHeaders,
    ) -> bool {
        let more = key.map_or(0, <[u8]>::len) + value.len() + OVERHEAD_BYTES;
        if self.count > 0 && self.set.len() + more > self.limit {
            return false;
        }
        // An empty line is an empty value, and not null.
        append(&mut self.set, 0, key, |set| set.extend_from_slice(value));
        self.count += 1;
        self.lost_headers |= headers.bytes() > EncodedHeaders::NONE.bytes();
        true
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn records(&self) -> u32 {
        self.count
    }

    fn bytes(&self) -> usize {
        self.set.len()
    }
}

/// The codec that the legacy client has in place of one that it has not.
fn known(compression: Compression) -> Compression {
    match compression {
        Compression::None | Compression::Gzip => compression,
        Compression::Snappy | Compression::Lz4 | Compression::Zstd => Compression::Snappy,
    }
}

/// Appends a message whose value `write` appends.
fn append(set: &mut Vec<u8>, attributes: u8, key: Option<&[u8]>, write: impl FnOnce(&mut Vec<u8>)) {
    const NULL: i32 = -1;
    let start = set.len();
    let message = start + ENTRY_BYTES;
    set.resize(message + CRC_BYTES, 0); // known at the end, but for the offset
    set.extend_from_slice(&[MAGIC, attributes]);
    let key_bytes = key.map_or(NULL, |key| length(key.len()));
    set.extend_from_slice(&key_bytes.to_be_bytes());
    set.extend_from_slice(key.unwrap_or_default());
    let value = set.len();
    set.extend_from_slice(&[0; 4]);
    write(set);

    let value_bytes = length(set.len() - value - 4);
    set[value..value + 4].copy_from_slice(&value_bytes.to_be_bytes());
    let mut crc = Crc::new();
    crc.update(&set[message + CRC_BYTES..]);
    set[message..message + CRC_BYTES].copy_from_slice(&crc.sum().to_be_bytes());
    let message_bytes = length(set.len() - message);
    set[message - 4..message].copy_from_slice(&message_bytes.to_be_bytes());
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("batches are bounded far below 2 GiB")
}

#[cfg(test)]
mod tests {
    use super::super::super::codec::tests::decompress;
    use super::*;

    fn push(builder: &mut MessageBuilder, key: Option<&[u8]>, value: &[u8]) -> bool {
        builder.push(0, key, value, EncodedHeaders::NONE)
    }

    /// Attributes, key, value.
    type Message = (u8, Option<Vec<u8>>, Option<Vec<u8>>);

    /// What a message set holds, read field by field.
    fn read(mut set: &[u8]) -> Vec<Message> {
        fn number(bytes: &mut &[u8]) -> i32 {
            i32::from_be_bytes(bytes.split_off(..4).unwrap().try_into().unwrap())
        }
        fn nullable(bytes: &mut &[u8]) -> Option<Vec<u8>> {
            let length = usize::try_from(number(bytes)).ok()?;
            Some(bytes.split_off(..length).unwrap().to_vec())
        }
        let mut messages = Vec::new();
        while !set.is_empty() {
            assert_eq!(set.split_off(..8).unwrap(), [0; 8], "the offset");
            let size = number(&mut set) as usize;
            let mut message = set.split_off(..size).unwrap();
            let crc = number(&mut message) as u32;
            let mut expected = Crc::new();
            expected.update(message);
            assert_eq!(crc, expected.sum());
            let [magic, attributes] = *message.split_off(..2).unwrap() else {
                panic!("two bytes");
            };
            assert_eq!(magic, 0);
            messages.push((attributes, nullable(&mut message), nullable(&mut message)));
            assert!(message.is_empty(), "{message:?} is left");
        }
        messages
    }

    #[test]
    fn messages_come_out_as_they_went_in_an_empty_one_too_with_every_codec() {
        let all: [(Option<&[u8]>, &[u8]); 3] =
            [(None, b"one"), (Some(b"key"), b""), (Some(b""), b"\0\xff")];
        let expected: Vec<_> = all
            .iter()
            .map(|(key, value)| (0, key.map(<[u8]>::to_vec), Some(value.to_vec())))
            .collect();
        for asked in Compression::ALL {
            let mut builder = MessageBuilder::new(1_000, asked);
            for round in 0..2 {
                for (key, value) in all {
                    assert!(push(&mut builder, key, value));
                }
                assert_eq!(builder.bytes(), 3 * OVERHEAD_BYTES + 8);
                let messages = builder.finish(vec![7; 100]);
                assert!(builder.is_empty());
                assert_eq!(messages.count, 3);
                assert_eq!(messages.plain_bytes, 3 * OVERHEAD_BYTES + 8);
                let codec = known(asked);
                let plain = match codec {
                    Compression::None => messages.set.to_vec(),
                    codec => {
                        let outer = read(&messages.set);
                        let [(attributes, None, Some(packed))] = &outer[..] else {
                            panic!("one message with a value: {outer:?}");
                        };
                        assert_eq!(*attributes, codec as u8);
                        decompress(codec, packed)
                    }
                };
                assert_eq!(read(&plain), expected, "{asked}, round {round}");
            }
        }
    }

    /// The checksum was computed by zlib.
    #[test]
    fn a_message_is_laid_out_as_the_protocol_guide_says() {
        let mut builder = MessageBuilder::new(1_000, Compression::None);
        push(&mut builder, None, b"line");
        let set = builder.finish(Vec::new()).set;
        let expected =
            b"\0\0\0\0\0\0\0\0\0\0\0\x12\x50\x41\x8d\x7d\0\0\xff\xff\xff\xff\0\0\0\x04line";
        assert_eq!(set[..], expected[..]);
    }

    #[test]
    fn a_batch_keeps_to_its_limit_but_for_its_first_message() {
        let mut builder = MessageBuilder::new(2 * OVERHEAD_BYTES + 2, Compression::None);
        assert!(push(&mut builder, None, b"a"));
        assert!(push(&mut builder, None, b"b"));
        assert!(!push(&mut builder, None, b""), "there is no room for it");
        assert_eq!(builder.records(), 2);
        builder.finish(Vec::new());
        assert!(push(&mut builder, None, &[b'x'; 500]));
        assert_eq!(builder.records(), 1);
    }
}
