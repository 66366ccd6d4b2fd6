//! Encodes records into Kafka record batches (magic 2, KIP-98), each value written exactly once.
//!
//! It decides neither when a batch is sent nor which sequence number it gets, and it has no place
//! for transactions, control batches and log append time.

use std::mem;

use super::client::Records;
use super::codec::{Compression, Compressor};
use super::headers::EncodedHeaders;

/// Who sends a batch, by which a broker tells a retry from a new batch (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerId {
    /// As answered to InitProducerId.
    pub id: i64,
    /// As answered to InitProducerId.
    pub epoch: i16,
}

impl ProducerId {
    /// No idempotence: the batch has no sequence number.
    pub const NONE: ProducerId = ProducerId { id: -1, epoch: -1 };
}

/// Encodes records one at a time into a batch.
///
/// Memory: nothing at first; then one buffer that grows with the records, up to the limit or to the
/// one record beyond it, and is used again for the next batch. When batches have stayed far below
/// what it holds for a while, it shrinks: a busy minute or a huge record is not kept for ever.
pub struct BatchBuilder {
    batch_bytes_max: usize,
    /// That, or less for the batch that is being built.
    limit: usize,
    compressor: Compressor,
    /// Room for the header, then the records so far; of no meaning while there are none.
    buffer: Vec<u8>,
    records: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    /// The size of the largest recent batch; fades by an eighth with every batch.
    recent_bytes: usize,
}

impl BatchBuilder {
    /// A builder of batches of at most `batch_bytes_max` bytes, before compression and with the
    /// header; more than 2 GiB is taken as 2 GiB.
    pub fn new(batch_bytes_max: usize, compression: Compression) -> Self {
        BatchBuilder {
            batch_bytes_max: batch_bytes_max.min(ENCODABLE_BYTES_MAX),
            limit: batch_bytes_max.min(ENCODABLE_BYTES_MAX),
            compressor: Compressor::new(compression),
            buffer: Vec::new(),
            records: 0,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            recent_bytes: 0,
        }
    }

    /// The same with a level of the compression; `None` is its default.
    pub fn at_level(self, level: Option<i32>) -> Self {
        BatchBuilder {
            compressor: self.compressor.at_level(level),
            ..self
        }
    }

    /// Appends a record. When the batch is not empty and the record would take it past the limit,
    /// nothing changes and the answer is `false`. The first record is always taken.
    ///
    /// # Panics
    ///
    /// If a first record has 2 GiB or more: the format has no way to say that.
    pub fn push(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: &[u8]) -> bool {
        self.push_with_headers(timestamp_ms, key, value, EncodedHeaders::NONE)
    }

    /// [`push`](Self::push) for a record with headers.
    // One function for records with and without: a second copy of it would be too much for the
    // compiler to inline what is in it.
    pub fn push_with_headers(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: &[u8],
        headers: EncodedHeaders,
    ) -> bool {
        if self.records == 0 {
            self.begin(timestamp_ms);
        }
        let record = Record {
            timestamp_delta_ms: timestamp_ms.wrapping_sub(self.base_timestamp_ms),
            offset_delta: self.records,
            key,
            value,
            headers: headers.encoded(),
        };
        let body_bytes = record.body_bytes();
        let end = self.buffer.len() + varint_bytes(zigzag_len(body_bytes)) + body_bytes;
        if end > self.limit && !self.takes_beyond_limit(end) {
            return false;
        }
        if end + HEAD_BYTES > self.buffer.capacity() {
            self.grow(end + HEAD_BYTES);
        }
        record.append_to(&mut self.buffer, body_bytes);
        debug_assert_eq!(self.buffer.len(), end);
        self.records += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        true
    }

    /// Whether there is no record to finish.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The number of records so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// The size so far, before compression and with the header.
    pub fn bytes(&self) -> usize {
        if self.is_empty() {
            BATCH_HEADER_BYTES
        } else {
            self.buffer.len()
        }
    }

    /// Finishes the batch into a buffer and empties the builder for the next one.
    ///
    /// `recycled` is any buffer to be used again, whatever it holds; `Vec::new()` will do. For
    /// [`ProducerId::NONE`] the base sequence is -1, whatever is given.
    ///
    /// # Panics
    ///
    /// If the builder is empty: brokers refuse a batch without records.
    pub fn finish(
        &mut self,
        producer: ProducerId,
        base_sequence: i32,
        recycled: Vec<u8>,
    ) -> Vec<u8> {
        assert!(!self.is_empty(), "a batch has at least one record");
        let bytes = self.buffer.len();
        let mut batch = recycled;
        batch.clear();
        if self.compressor.compression() == Compression::None {
            mem::swap(&mut batch, &mut self.buffer);
        } else {
            batch.extend_from_slice(&[0; BATCH_HEADER_BYTES]);
            self.compressor
                .compress(&self.buffer[BATCH_HEADER_BYTES..], &mut batch);
        }
        self.write_header(&mut batch);
        set_sequence(&mut batch, producer, base_sequence);
        self.records = 0;
        self.shrink_after(bytes);
        batch
    }

    fn begin(&mut self, timestamp_ms: i64) {
        self.buffer.clear();
        self.buffer.extend_from_slice(&[0; BATCH_HEADER_BYTES]);
        self.base_timestamp_ms = timestamp_ms;
        self.max_timestamp_ms = timestamp_ms;
    }

    #[cold]
    fn takes_beyond_limit(&self, end: usize) -> bool {
        if self.is_empty() {
            assert!(
                end <= ENCODABLE_BYTES_MAX,
                "a record of {end} bytes cannot be encoded"
            );
        }
        self.is_empty()
    }

    /// Doubles the buffer, but not to more than a full batch unless `needed` is more.
    #[cold]
    fn grow(&mut self, needed: usize) {
        let doubled = 2 * self.buffer.capacity();
        let capacity = doubled.min(self.batch_bytes_max + HEAD_BYTES).max(needed);
        self.buffer.reserve_exact(capacity - self.buffer.len());
    }

    /// Gives memory back when recent batches, the last of them of `bytes`, needed much less.
    fn shrink_after(&mut self, bytes: usize) {
        let faded = self.recent_bytes - self.recent_bytes / 8;
        self.recent_bytes = bytes.max(faded).min(self.batch_bytes_max);
        if self.buffer.capacity() > SMALL_BUFFER_BYTES.max(4 * self.recent_bytes) {
            self.buffer.clear();
            self.buffer.shrink_to(self.recent_bytes);
        }
    }

    /// Writes all of the header but the producer and the checksum.
    fn write_header(&self, batch: &mut [u8]) {
        let records = self.records as i32;
        let bytes_after_length = i32::try_from(batch.len() - field::PARTITION_LEADER_EPOCH)
            .expect("compression hardly grows what it cannot shrink");
        put(batch, field::BASE_OFFSET, 0_i64.to_be_bytes());
        put(batch, field::BATCH_LENGTH, bytes_after_length.to_be_bytes());
        put(
            batch,
            field::PARTITION_LEADER_EPOCH,
            NO_PARTITION_LEADER_EPOCH.to_be_bytes(),
        );
        put(batch, field::MAGIC, [2]);
        put(
            batch,
            field::ATTRIBUTES,
            (self.compressor.compression() as i16).to_be_bytes(),
        );
        put(batch, field::LAST_OFFSET_DELTA, (records - 1).to_be_bytes());
        put(
            batch,
            field::BASE_TIMESTAMP,
            self.base_timestamp_ms.to_be_bytes(),
        );
        put(
            batch,
            field::MAX_TIMESTAMP,
            self.max_timestamp_ms.to_be_bytes(),
        );
        put(batch, field::RECORDS_COUNT, records.to_be_bytes());
    }
}

impl Records for BatchBuilder {
    fn limit(&mut self, bytes_max: usize) {
        self.limit = bytes_max.min(self.batch_bytes_max);
    }

    #[inline]
    fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: &[u8],
        headers: EncodedHeaders,
    ) -> bool {
        self.push_with_headers(timestamp_ms, key, value, headers)
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    #[inline]
    fn records(&self) -> u32 {
        self.records()
    }

    #[inline]
    fn bytes(&self) -> usize {
        self.bytes()
    }
}

/// Rewrites who sends an encoded batch and its first sequence number, and with them the checksum.
///
/// For [`ProducerId::NONE`] the base sequence is -1, whatever is given.
///
/// # Panics
///
/// If `batch` is shorter than a batch header.
pub fn set_sequence(batch: &mut [u8], producer: ProducerId, base_sequence: i32) {
    let sequence = if producer == ProducerId::NONE {
        NO_SEQUENCE
    } else {
        base_sequence
    };
    put(batch, field::PRODUCER_ID, producer.id.to_be_bytes());
    put(batch, field::PRODUCER_EPOCH, producer.epoch.to_be_bytes());
    put(batch, field::BASE_SEQUENCE, sequence.to_be_bytes());
    let checksum = crc32c::crc32c(&batch[field::ATTRIBUTES..]);
    put(batch, field::CRC, checksum.to_be_bytes());
}

/// The base sequence of the batch that follows one of `records` records with base sequence `base`.
///
/// After `i32::MAX` comes 0, as in Kafka's `DefaultRecordBatch.incrementSequence`. `base` must not
/// be negative.
pub fn next_sequence(base: i32, records: u32) -> i32 {
    (base as u32).wrapping_add(records) as i32 & i32::MAX
}

/// Where the fields of the header begin; all numbers are big-endian.
/// <https://kafka.apache.org/documentation/#recordbatch>
mod field {
    pub const BASE_OFFSET: usize = 0;
    pub const BATCH_LENGTH: usize = 8;
    pub const PARTITION_LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORDS_COUNT: usize = 57;
}

/// Bytes of a batch before its first record.
const BATCH_HEADER_BYTES: usize = 61;
/// For the broker to set; not covered by the checksum. Java producers send -1, too.
const NO_PARTITION_LEADER_EPOCH: i32 = -1;
const NO_SEQUENCE: i32 = -1;
/// The lengths of batches and of their parts are signed 32 bit numbers.
const ENCODABLE_BYTES_MAX: usize = i32::MAX as usize;
/// A buffer up to this size is kept whatever the batches need.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;

fn put<const N: usize>(batch: &mut [u8], at: usize, bytes: [u8; N]) {
    batch[at..at + N].copy_from_slice(&bytes);
}

/// A record as the format has it: its length, then the body. All numbers of it are varints.
/// <https://kafka.apache.org/documentation/#record>
struct Record<'a> {
    timestamp_delta_ms: i64,
    offset_delta: u32,
    key: Option<&'a [u8]>,
    value: &'a [u8],
    /// In encoded form: their number, then each one.
    headers: &'a [u8],
}

/// The first field of the body, in which no bit has a meaning yet.
const RECORD_ATTRIBUTES: u8 = 0;
const NULL_LENGTH: i64 = -1;
/// Room to write the numbers in front of a key or a value; they take up to 27 bytes.
const HEAD_BYTES: usize = 32;

impl Record<'_> {
    /// The number that stands in front of the record.
    #[inline]
    fn body_bytes(&self) -> usize {
        let key_bytes = match self.key {
            None => varint_bytes(zigzag(NULL_LENGTH)),
            Some(key) => varint_bytes(zigzag_len(key.len())) + key.len(),
        };
        size_of_val(&RECORD_ATTRIBUTES)
            + varint_bytes(zigzag(self.timestamp_delta_ms))
            + varint_bytes(zigzag(self.offset_delta.into()))
            + key_bytes
            + varint_bytes(zigzag_len(self.value.len()))
            + self.value.len()
            + self.headers.len()
    }

    /// Writes the record. `batch` has the capacity for it and [`HEAD_BYTES`] more.
    #[inline]
    fn append_to(&self, batch: &mut Vec<u8>, body_bytes: usize) {
        append_head(batch, |head| {
            head.varint(zigzag_len(body_bytes));
            head.byte(RECORD_ATTRIBUTES);
            head.varint(zigzag(self.timestamp_delta_ms));
            head.varint(zigzag(self.offset_delta.into()));
            match self.key {
                Some(key) => head.varint(zigzag_len(key.len())),
                None => {
                    head.varint(zigzag(NULL_LENGTH));
                    head.varint(zigzag_len(self.value.len()));
                }
            }
        });
        if let Some(key) = self.key {
            batch.extend_from_slice(key);
            append_head(batch, |head| head.varint(zigzag_len(self.value.len())));
        }
        batch.extend_from_slice(self.value);
        match self.headers {
            [none] => batch.push(*none), // their number; no call of memcpy for one byte
            headers => batch.extend_from_slice(headers),
        }
    }
}

/// Where the numbers of a record are written: in the batch itself, since loading bytes that were
/// stored one by one a moment ago, to copy them, stalls for longer than writing them takes.
struct Head<'a> {
    bytes: &'a mut [u8; HEAD_BYTES],
    len: usize,
}

/// Appends what `write` writes.
#[inline]
fn append_head(batch: &mut Vec<u8>, write: impl FnOnce(&mut Head<'_>)) {
    let start = batch.len();
    batch.extend_from_slice(&[0; HEAD_BYTES]);
    let bytes = batch
        .last_chunk_mut()
        .expect("so many bytes were just appended");
    let mut head = Head { bytes, len: 0 };
    write(&mut head);
    let len = head.len;
    batch.truncate(start + len);
}

impl Head<'_> {
    #[inline]
    fn byte(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    /// Seven bits a byte, the lowest first; the eighth bit says that another byte follows.
    #[inline]
    fn varint(&mut self, mut zigzag: u64) {
        while zigzag > 0x7f {
            self.byte(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        self.byte(zigzag as u8);
    }
}

/// A signed number as the format has it, small for small ones: 0, -1, 1, -2 become 0, 1, 2, 3.
#[inline]
fn zigzag(number: i64) -> u64 {
    (number << 1) as u64 ^ (number >> 63) as u64
}

#[inline]
pub(super) fn zigzag_len(len: usize) -> u64 {
    (len as u64) << 1
}

/// The size of a varint: a byte for every seven bits, by way of 9/64, which is exact up to 64 bits.
#[inline]
fn varint_bytes(zigzag: u64) -> usize {
    ((zigzag | 1).ilog2() as usize * 9 + 73) / 64
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::records::{self, RecordBatchDecoder};

    use super::super::codec::tests::{Random, decompress};
    use super::super::headers::Headers;
    use super::*;

    const PRODUCER: ProducerId = ProducerId {
        id: 0x0102_0304_0506_0708,
        epoch: 0x090A,
    };
    const LIMIT: usize = 1 << 20;

    /// A record as it goes in and must come out: timestamp, key, value.
    type Sample = (i64, Option<Vec<u8>>, Vec<u8>);

    /// Pushes all samples into one batch and finishes it.
    fn encode(builder: &mut BatchBuilder, samples: &[Sample]) -> Vec<u8> {
        for (timestamp_ms, key, value) in samples {
            assert!(
                builder.push(*timestamp_ms, key.as_deref(), value),
                "the batch is full"
            );
        }
        builder.finish(PRODUCER, 5, Vec::new())
    }

    /// Reads one batch, all of it, with kafka-protocol; that checks the checksum, too.
    fn decode(batch: &[u8]) -> Vec<records::Record> {
        let unpack = |packed: &mut Bytes, compression: records::Compression| {
            let compression = Compression::ALL[compression as usize];
            Ok(Bytes::from(decompress(compression, packed)))
        };
        let mut bytes = Bytes::copy_from_slice(batch);
        let set = RecordBatchDecoder::decode_with_custom_compression(&mut bytes, Some(unpack));
        let set = set.expect("kafka-protocol reads the batch");
        assert!(bytes.is_empty(), "bytes follow the batch");
        set.records
    }

    #[track_caller]
    fn assert_holds(batch: &[u8], samples: &[Sample]) {
        let decoded = decode(batch);
        assert_eq!(decoded.len(), samples.len());
        for (offset, (record, (timestamp_ms, key, value))) in
            decoded.iter().zip(samples).enumerate()
        {
            assert_eq!(record.offset, offset as i64);
            assert_eq!(
                record.timestamp, *timestamp_ms,
                "timestamp of record {offset}"
            );
            assert!(
                record.key.as_deref() == key.as_deref(),
                "key of record {offset}"
            );
            assert!(
                record.value.as_deref() == Some(&value[..]),
                "value of record {offset}"
            );
            assert!(record.headers.is_empty());
        }
        let max_timestamp = samples.iter().map(|(timestamp_ms, ..)| *timestamp_ms).max();
        assert_eq!(Some(read_i64(batch, 35)), max_timestamp);
    }

    fn read_i32(batch: &[u8], at: usize) -> i32 {
        i32::from_be_bytes(batch[at..at + 4].try_into().unwrap())
    }

    fn read_i64(batch: &[u8], at: usize) -> i64 {
        i64::from_be_bytes(batch[at..at + 8].try_into().unwrap())
    }

    /// CRC-32C by its definition, bit by bit (RFC 3720, appendix B.4).
    fn crc32c_by_definition(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 {
                    (crc >> 1) ^ 0x82F6_3B78
                } else {
                    crc >> 1
                };
            }
        }
        !crc
    }

    fn sample(random: &mut Random) -> Sample {
        let timestamp_ms = 1_760_000_000_000 + (random.next() as i64 >> (2 + random.below(62)));
        let key_len = [0, 1, 200][random.below(3)];
        let key = (random.below(3) > 0).then(|| random.bytes(key_len));
        let len = random.below(20_000) >> random.below(15);
        let value = if random.below(2) == 0 {
            random.bytes(len)
        } else {
            random.text(len)
        };
        (timestamp_ms, key, value)
    }

    #[test]
    fn a_batch_of_two_records_is_what_the_specification_says_byte_for_byte() {
        let mut builder = BatchBuilder::new(LIMIT, Compression::None);
        assert!(builder.push(1_000, None, b"hi\0"));
        assert!(builder.push(933, Some(b"k"), b""));
        let batch = builder.finish(PRODUCER, 0x0B0C_0D0E, Vec::new());

        #[rustfmt::skip]
        let after_checksum = [
            0, 0,                       // attributes: no compression, create time
            0, 0, 0, 1,                 // last offset delta
            0, 0, 0, 0, 0, 0, 3, 0xE8,  // base timestamp 1000
            0, 0, 0, 0, 0, 0, 3, 0xE8,  // max timestamp 1000
            1, 2, 3, 4, 5, 6, 7, 8,     // producer id
            9, 0x0A,                    // producer epoch
            0x0B, 0x0C, 0x0D, 0x0E,     // base sequence
            0, 0, 0, 2,                 // records
            // length 9, attributes, timestamp +0, offset +0, no key, value of 3, no headers
            18, 0, 0, 0, 1, 6, b'h', b'i', 0, 0,
            // length 8, attributes, timestamp -67 (two bytes), offset +1, key of 1, value of 0, no headers
            16, 0, 0x85, 1, 2, 2, b'k', 0, 0,
        ];
        #[rustfmt::skip]
        let before_checksum = [
            0, 0, 0, 0, 0, 0, 0, 0,     // base offset
            0, 0, 0, 68,                // length of what follows
            0xFF, 0xFF, 0xFF, 0xFF,     // partition leader epoch
            2,                          // magic
        ];
        let checksum = crc32c_by_definition(&after_checksum).to_be_bytes();
        assert_eq!(
            batch,
            [&before_checksum[..], &checksum, &after_checksum].concat()
        );
    }

    #[test]
    fn the_attributes_name_the_compression_and_the_checksum_covers_what_is_compressed() {
        assert_eq!(
            crc32c_by_definition(b"123456789"),
            0xE306_9283,
            "the known check value"
        );
        for compression in Compression::ALL {
            let mut builder = BatchBuilder::new(LIMIT, compression);
            let batch = encode(&mut builder, &[(1, None, b"some value".repeat(50))]);
            assert_eq!(batch[21..23], [0, compression as u8], "{compression}");
            assert_eq!(
                batch[17..21],
                crc32c_by_definition(&batch[21..]).to_be_bytes()
            );
            assert_eq!(
                read_i32(&batch, 8) as usize,
                batch.len() - 12,
                "{compression}"
            );
        }
    }

    #[test]
    fn odd_keys_and_values_arrive_unchanged_with_every_compression() {
        let samples = [
            (5, None, b"first".to_vec()),
            (5, None, Vec::new()),
            (6, Some(Vec::new()), Vec::new()),
            (7, Some(vec![0]), vec![0; 300]),
            (
                7,
                Some(b"key".to_vec()),
                b"\0nul\0bytes\xFF\xFE\r\n".to_vec(),
            ),
            (7, Some(Random(1).bytes(100_000)), b"a long key".to_vec()),
            (9, None, Random(2).bytes(1 << 20)),
            (9, Some(b"k".to_vec()), vec![b'a'; 1 << 20]),
            (9, None, b"last".to_vec()),
        ];
        for compression in Compression::ALL {
            let batch = encode(&mut BatchBuilder::new(4 << 20, compression), &samples);
            assert_holds(&batch, &samples);
        }
    }

    #[test]
    fn every_length_around_the_steps_of_a_varint_arrives_unchanged() {
        let mut samples = vec![];
        for bytes in [63, 64, 8_191, 8_192, 1_048_575, 1_048_576] {
            for len in bytes - 12..bytes + 2 {
                samples.push((0, None, vec![b'v'; len]));
                samples.push((0, Some(vec![b'k'; len]), vec![]));
            }
        }
        let batch = encode(
            &mut BatchBuilder::new(100 << 20, Compression::None),
            &samples,
        );
        assert_holds(&batch, &samples);
    }

    #[test]
    fn twenty_thousand_small_records_fit_a_batch_and_keep_their_order() {
        let samples: Vec<Sample> = (0..20_000)
            .map(|n| (n, None, n.to_string().into_bytes()))
            .collect();
        for compression in Compression::ALL {
            let batch = encode(&mut BatchBuilder::new(LIMIT, compression), &samples);
            assert_holds(&batch, &samples);
            assert_eq!(read_i32(&batch, 23), 19_999, "last offset delta");
        }
    }

    #[test]
    fn timestamps_may_run_backwards_and_jump() {
        let day = 86_400_000;
        let far = 1 << 62;
        let timestamps = [
            day,
            day - 1,
            day + 1,
            0,
            -1,
            -day,
            400 * day,
            far,
            -far,
            day,
        ];
        let samples = timestamps.map(|timestamp_ms| (timestamp_ms, None, b"line".to_vec()));
        for compression in Compression::ALL {
            let batch = encode(&mut BatchBuilder::new(LIMIT, compression), &samples);
            assert_holds(&batch, &samples);
            assert_eq!(read_i64(&batch, 27), day, "base timestamp");
        }
    }

    /// The oracle reads every header of every record, and its encoder makes the same bytes.
    #[test]
    fn headers_arrive_with_their_record_and_as_the_format_has_them() {
        let mut headers = Headers::new(&[("path", b"/var/log/\xff\n"), ("empty", b"")], "offset");
        let values = [&b"first"[..], b"", &[b'x'; 9_000]];
        let offsets = ["0", "18446744073709551615", "7"];
        for compression in Compression::ALL {
            let mut builder = BatchBuilder::new(LIMIT, compression);
            for (value, offset) in values.iter().zip(offsets) {
                let encoded = headers.with_last(offset.as_bytes());
                assert!(builder.push_with_headers(1, Some(b"key"), value, encoded));
            }
            assert!(builder.push(1, None, b"without"));
            let batch = builder.finish(PRODUCER, 0, Vec::new());

            let decoded = decode(&batch);
            for (record, (value, offset)) in decoded.iter().zip(values.iter().zip(offsets)) {
                assert_eq!(record.value.as_deref(), Some(*value));
                let found: Vec<(&str, &[u8])> = record
                    .headers
                    .iter()
                    .map(|(name, value)| (&name[..], value.as_deref().unwrap()))
                    .collect();
                let expected: [(&str, &[u8]); 3] = [
                    ("path", b"/var/log/\xff\n"),
                    ("empty", b""),
                    ("offset", offset.as_bytes()),
                ];
                assert_eq!(found, expected);
            }
            assert!(decoded[3].headers.is_empty());
            if compression == Compression::None {
                assert_encoded_alike(&batch);
            }
        }
    }

    #[test]
    fn headers_count_towards_the_limit_of_a_batch() {
        let mut headers = Headers::new(&[("path", &[b'p'; 300])], "offset");
        let mut builder = BatchBuilder::new(1_000, Compression::None);
        assert!(builder.push_with_headers(0, None, b"first", headers.with_last(b"0")));
        let each = builder.bytes() - 61;
        assert!(each > 300);
        assert!(builder.push_with_headers(0, None, b"secnd", headers.with_last(b"1")));
        assert_eq!(builder.bytes(), 61 + 2 * each);
        assert!(!builder.push_with_headers(0, None, b"third", headers.with_last(b"2")));
        assert!(builder.push(0, None, b"third"));
    }

    #[test]
    fn random_records_arrive_unchanged_however_they_fall_into_batches() {
        let mut random = Random(3);
        for compression in Compression::ALL {
            let mut builder = BatchBuilder::new(100_000, compression);
            let mut pending: Vec<Sample> = Vec::new();
            let mut recycled = random.bytes(1_000);
            for _ in 0..1_500 {
                let next = sample(&mut random);
                let full = !builder.push(next.0, next.1.as_deref(), &next.2);
                if full || (!pending.is_empty() && random.below(50) == 0) {
                    if !full {
                        pending.push(next.clone());
                    }
                    assert_eq!(builder.records() as usize, pending.len());
                    let bytes = builder.bytes();
                    let sequence = random.below(i32::MAX as usize) as i32;
                    recycled = builder.finish(PRODUCER, sequence, recycled);
                    assert_holds(&recycled, &pending);
                    assert_eq!(read_i32(&recycled, 53), sequence);
                    let plain = decompress(compression, &recycled[61..]);
                    assert_eq!(plain.len() + 61, bytes, "bytes() before finish");
                    assert!(bytes <= 100_000 || pending.len() == 1, "{bytes} bytes");
                    pending.clear();
                    if !full {
                        continue;
                    }
                    assert!(builder.push(next.0, next.1.as_deref(), &next.2));
                }
                pending.push(next);
            }
        }
    }

    #[test]
    fn kafka_protocol_encodes_the_same_records_to_the_same_bytes() {
        let mut random = Random(4);
        for _ in 0..50 {
            let mut samples: Vec<Sample> = (0..=random.below(20))
                .map(|_| sample(&mut random))
                .collect();
            // Its base timestamp is the smallest one instead of the first.
            samples[0].0 = samples
                .iter()
                .map(|(timestamp_ms, ..)| *timestamp_ms)
                .min()
                .unwrap();
            let batch = encode(&mut BatchBuilder::new(LIMIT, Compression::None), &samples);
            assert_encoded_alike(&batch);
        }
    }

    /// kafka-protocol makes the same bytes of the records that it reads in an uncompressed batch.
    #[track_caller]
    fn assert_encoded_alike(batch: &[u8]) {
        let options = records::RecordEncodeOptions {
            version: 2,
            compression: records::Compression::None,
        };
        let decoded = decode(batch);
        let mut expected = BytesMut::new();
        records::RecordBatchEncoder::encode(&mut expected, &decoded, &options).unwrap();
        assert!(
            batch == expected,
            "a batch of {} records differs",
            decoded.len()
        );
    }

    #[test]
    fn a_record_that_just_fits_is_taken_and_one_byte_more_is_refused() {
        let mut builder = BatchBuilder::new(1_000, Compression::None);
        assert!(builder.push(0, None, &[1; 100]));
        let first_bytes = builder.bytes();
        // Beyond its value, a record of this size takes two bytes each for its length and its
        // value's, and one each for attributes, timestamp, offset, key and headers.
        let room = 1_000 - first_bytes - 9;

        assert!(!builder.push(0, None, &vec![2; room + 1]));
        assert_eq!((builder.records(), builder.bytes()), (1, first_bytes));
        assert!(builder.push(0, None, &vec![2; room]));
        assert_eq!(builder.bytes(), 1_000);
        assert!(!builder.push(0, None, b""));

        let batch = builder.finish(PRODUCER, 0, Vec::new());
        assert_eq!(batch.len(), 1_000);
        assert_holds(&batch, &[(0, None, vec![1; 100]), (0, None, vec![2; room])]);
    }

    #[test]
    fn a_refused_record_leaves_no_trace_in_the_batch() {
        let mut with = BatchBuilder::new(500, Compression::None);
        let mut without = BatchBuilder::new(500, Compression::None);
        for builder in [&mut with, &mut without] {
            assert!(builder.push(10, Some(b"key"), b"value"));
        }
        assert!(!with.push(99, Some(b"refused"), &[0; 500]));
        for builder in [&mut with, &mut without] {
            assert!(builder.push(20, None, b"another"));
        }
        assert_eq!(
            with.finish(PRODUCER, 1, vec![]),
            without.finish(PRODUCER, 1, vec![])
        );
    }

    #[test]
    fn the_first_record_is_taken_whatever_its_size_and_is_the_only_one() {
        for limit in [0, 61, 1_000] {
            let mut builder = BatchBuilder::new(limit, Compression::Lz4);
            for _ in 0..3 {
                assert!(builder.is_empty());
                assert_eq!(builder.bytes(), 61);
                assert!(builder.push(1, None, &[b'x'; 5_000]));
                assert!(!builder.push(1, None, b""));
                assert_eq!(builder.records(), 1);
                let batch = builder.finish(PRODUCER, 0, Vec::new());
                assert_holds(&batch, &[(1, None, vec![b'x'; 5_000])]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "a batch has at least one record")]
    fn an_empty_batch_cannot_be_finished() {
        BatchBuilder::new(LIMIT, Compression::None).finish(PRODUCER, 0, Vec::new());
    }

    #[test]
    fn a_varint_is_as_long_as_announced() {
        for shift in 0..64 {
            for number in [
                (1_u64 << shift) - 1,
                1 << shift,
                (1 << shift) + 1,
                u64::MAX >> shift,
            ] {
                let mut written = Vec::new();
                append_head(&mut written, |head| head.varint(number));
                assert_eq!(written.len(), varint_bytes(number), "{number}");
                let read = written
                    .iter()
                    .rev()
                    .fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7F));
                assert_eq!(read, number);
            }
        }
    }

    #[test]
    fn zigzag_numbers_alternate_around_zero() {
        let numbers = [0, -1, 1, -2, 2, i64::MAX, i64::MIN];
        assert_eq!(numbers.map(zigzag), [0, 1, 2, 3, 4, u64::MAX - 1, u64::MAX]);
        assert_eq!(zigzag_len(1_234), zigzag(1_234));
    }

    #[test]
    fn sequence_numbers_go_on_at_zero_after_the_largest() {
        assert_eq!(next_sequence(0, 1), 1);
        assert_eq!(next_sequence(7, 1_000), 1_007);
        assert_eq!(next_sequence(i32::MAX - 10, 10), i32::MAX);
        assert_eq!(next_sequence(i32::MAX - 10, 11), 0);
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX, 5), 4);
        assert_eq!(next_sequence(i32::MAX, i32::MAX as u32), i32::MAX - 1);
    }

    #[test]
    fn rewriting_the_sequence_makes_the_batch_that_would_have_been_finished_with_it() {
        let other = ProducerId { id: 99, epoch: 3 };
        for compression in Compression::ALL {
            let finish = |producer, sequence| {
                let mut builder = BatchBuilder::new(LIMIT, compression);
                assert!(builder.push(1, None, b"line"));
                builder.finish(producer, sequence, Vec::new())
            };
            let mut batch = finish(PRODUCER, 5);
            set_sequence(&mut batch, other, 1_234);
            assert_eq!(batch, finish(other, 1_234));
            assert_ne!(batch, finish(PRODUCER, 5));
        }
    }

    #[test]
    fn a_batch_without_producer_id_has_no_sequence() {
        let mut builder = BatchBuilder::new(LIMIT, Compression::None);
        assert!(builder.push(1, None, b"line"));
        let batch = builder.finish(ProducerId::NONE, 17, Vec::new());
        assert_eq!(batch[43..57], [0xFF; 14]);
        assert_holds(&batch, &[(1, None, b"line".to_vec())]);
    }

    #[test]
    fn an_uncompressed_batch_is_handed_over_and_not_copied() {
        let mut builder = BatchBuilder::new(LIMIT, Compression::None);
        assert!(builder.push(1, None, &[7; 10_000]));
        let (filled, recycled) = (builder.buffer.as_ptr(), Vec::with_capacity(10_000));
        let next = recycled.as_ptr();
        let batch = builder.finish(PRODUCER, 0, recycled);
        assert_eq!(batch.as_ptr(), filled);
        assert_eq!(builder.buffer.as_ptr(), next);
    }

    #[test]
    fn a_builder_with_little_to_do_holds_little() {
        for compression in Compression::ALL {
            let mut builder = BatchBuilder::new(LIMIT, compression);
            assert_eq!(builder.buffer.capacity(), 0);
            assert!(builder.push(1, None, b"a line"));
            assert!(builder.buffer.capacity() < 1_000);
        }
    }

    #[test]
    fn a_full_batch_takes_hardly_more_memory_than_its_bytes() {
        let mut builder = BatchBuilder::new(LIMIT, Compression::Lz4);
        while builder.push(1, None, &[7; 100]) {}
        assert!(builder.buffer.capacity() < LIMIT + 100);
    }

    #[test]
    fn a_huge_record_is_forgotten_at_once_and_a_busy_time_after_a_while() {
        for compression in Compression::ALL {
            let mut builder = BatchBuilder::new(LIMIT, compression);
            let mut batch = encode(&mut builder, &[(1, None, vec![b'x'; 16 << 20])]);
            batch = next_batch(&mut builder, 1_000, batch);
            assert!(
                builder.buffer.capacity() <= LIMIT,
                "{compression}: after the huge record"
            );

            for _ in 0..5 {
                batch = next_batch(&mut builder, LIMIT - 100, batch);
            }
            let busy = builder.buffer.capacity();
            batch = next_batch(&mut builder, 100, batch);
            assert!(
                builder.buffer.capacity() >= busy,
                "{compression}: too early"
            );
            for _ in 0..50 {
                batch = next_batch(&mut builder, 100, batch);
            }
            assert!(
                builder.buffer.capacity() <= 16 * 1024,
                "{compression}: never"
            );
        }
    }

    fn next_batch(builder: &mut BatchBuilder, value_bytes: usize, recycled: Vec<u8>) -> Vec<u8> {
        assert!(builder.push(1, None, &vec![b'x'; value_bytes]));
        builder.finish(PRODUCER, 0, recycled)
    }

    #[test]
    fn a_builder_can_be_moved_to_another_thread() {
        fn movable<T: Send>(_: &T) {}
        movable(&BatchBuilder::new(LIMIT, Compression::Zstd));
    }
}
