//! Reads a record batch as suspiciously as possible.
//!
//! `kafka-protocol` decodes the records; everything a decoder may be lenient
//! about (lengths, counts, deltas, what is left over) is checked here by hand.
//!
//! Source: <https://kafka.apache.org/documentation/#recordbatch>.

use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use kafka_protocol::records::RecordBatchDecoder;

const HEADER_BYTES: usize = 61;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// How far from our clock a timestamp may be; Kafka 4 refuses what is an hour
/// ahead (`message.timestamp.after.max.ms`).
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(3_600);

/// One record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Bytes>,
    pub value: Bytes,
    pub timestamp_ms: i64,
    pub headers: Vec<(String, Option<Bytes>)>,
    /// Who sent it.
    pub producer_id: i64,
    /// When it was appended, or decoded as long as it was not.
    pub arrived: Instant,
}

/// A batch without a flaw. Partition and offsets of its records are still zero.
#[derive(Debug)]
pub struct Batch {
    pub zstd: bool,
    pub producer_id: i64,
    pub epoch: i16,
    pub first_sequence: i32,
    pub records: Vec<Record>,
}

/// What is wrong with a batch, and the error code a broker answers it with.
#[derive(Debug)]
pub struct Flaw {
    pub code: i16,
    pub text: String,
}

const UNKNOWN_SERVER_ERROR: i16 = -1;
const CORRUPT_MESSAGE: i16 = 2;
const INVALID_TIMESTAMP: i16 = 32;
const INVALID_RECORD: i16 = 87;

macro_rules! check {
    ($holds:expr, $($text:tt)*) => {
        check!(INVALID_RECORD => $holds, $($text)*)
    };
    ($code:ident => $holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(Flaw { code: $code, text: format!($($text)*) });
        }
    };
}

/// Reads the `records` field of one partition of a Produce request.
pub fn read(bytes: &Bytes) -> Result<Batch, Flaw> {
    let size = bytes.len();
    check!(size >= HEADER_BYTES, "{size} bytes are no batch");
    let mut header = bytes.slice(..HEADER_BYTES);
    let base_offset = header.get_i64();
    let length = header.get_i32();
    let _leader_epoch = header.get_i32();
    let magic = header.get_i8();
    let crc = header.get_u32();
    let attributes = header.get_u16();
    let last_delta = header.get_i32();
    let _base_ms = header.get_i64();
    let max_ms = header.get_i64();
    let producer_id = header.get_i64();
    let epoch = header.get_i16();
    let first_sequence = header.get_i32();
    let count = header.get_i32();

    check!(
        length as usize == size - 12,
        "batchLength is {length}, the batch has {size} bytes"
    );
    check!(magic == 2, "magic is {magic}, not 2");
    let computed = crc32c::crc32c(&bytes[21..]);
    check!(CORRUPT_MESSAGE => computed == crc, "crc is {crc:08x}, computed {computed:08x}");
    check!(base_offset == 0, "base offset is {base_offset}, not 0");
    check!(
        usize::from(attributes) < CODECS.len(),
        "attributes are {attributes:#x}: no known codec"
    );
    check!(count > 0, "record count is {count}");
    check!(
        last_delta == count - 1,
        "lastOffsetDelta is {last_delta} with {count} records"
    );
    let producer = (producer_id, epoch, first_sequence);
    let idempotent = producer_id >= 0 && epoch >= 0 && first_sequence >= 0;
    check!(
        idempotent || producer == (-1, -1, -1),
        "id, epoch, sequence are {producer:?}"
    );

    let codec = CODECS[usize::from(attributes)];
    let payload = decompress(codec, &bytes[HEADER_BYTES..]).map_err(|error| Flaw {
        code: UNKNOWN_SERVER_ERROR,
        text: format!("cannot decompress {codec}: {error}"),
    })?;
    let exact = walk(&payload, count).is_some();
    check!(
        exact,
        "{} bytes are not exactly {count} records",
        payload.len()
    );
    let payload = Bytes::from(payload);
    let plain = Some(|_: &mut Bytes, _| Ok(payload.clone()));
    let decoded = RecordBatchDecoder::decode_with_custom_compression(&mut bytes.clone(), plain);
    let decoded = decoded.map_err(|error| Flaw {
        code: INVALID_RECORD,
        text: format!("cannot be decoded: {error}"),
    })?;

    let latest = decoded.records.iter().map(|record| record.timestamp).max();
    check!(
        latest == Some(max_ms),
        "maxTimestamp is {max_ms}, the latest {latest:?}"
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is past 1970").as_millis();
    let plausible = |ms: i64| now.abs_diff(ms.max(0) as u128) <= CLOCK_DIFFERENCE_MAX.as_millis();
    let mut records = Vec::new();
    for (at, record) in decoded.records.into_iter().enumerate() {
        let ms = record.timestamp;
        check!(INVALID_TIMESTAMP => plausible(ms), "record {at} is of {ms}, now is {now}");
        check!(
            record.value.is_some(),
            "record {at} has no value: a tombstone"
        );
        let headers = record.headers.into_iter();
        records.push(Record {
            partition: 0,
            offset: 0,
            key: record.key,
            value: record.value.unwrap_or_default(),
            timestamp_ms: ms,
            headers: headers
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
            producer_id,
            arrived: Instant::now(),
        });
    }
    let zstd = codec == "zstd";
    Ok(Batch {
        zstd,
        producer_id,
        epoch,
        first_sequence,
        records,
    })
}

/// Walks over `count` records: nothing may be missing and nothing left over.
fn walk(mut bytes: &[u8], count: i32) -> Option<()> {
    for at in 0..count {
        let length = varint(&mut bytes)?;
        let mut record = take(&mut bytes, length)?;
        let attributes = *record.split_off_first()?;
        let _timestamp_delta = varint(&mut record)?;
        let offset_delta = varint(&mut record)?;
        if attributes != 0 || offset_delta != i64::from(at) {
            return None;
        }
        nullable(&mut record)?;
        nullable(&mut record)?;
        for _ in 0..u16::try_from(varint(&mut record)?).ok()? {
            let name = varint(&mut record)?;
            take(&mut record, name)?;
            nullable(&mut record)?;
        }
        record.is_empty().then_some(())?;
    }
    bytes.is_empty().then_some(())
}

fn nullable(bytes: &mut &[u8]) -> Option<()> {
    match varint(bytes)? {
        -1 => Some(()),
        length => take(bytes, length).map(drop),
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: i64) -> Option<&'a [u8]> {
    bytes.split_off(..usize::try_from(length).ok()?)
}

/// A zigzag varint as in protocol buffers.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((raw >> 1) as i64 ^ -((raw & 1) as i64));
        }
    }
    None
}

/// Decompresses as a Java broker would, which wants the whole input used up,
/// and of an lz4 frame that its blocks are independent.
fn decompress(codec: &str, mut packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match codec {
        "none" => plain.extend_from_slice(std::mem::take(&mut packed)),
        "gzip" => {
            flate2::bufread::GzDecoder::new(&mut packed).read_to_end(&mut plain)?;
        }
        "snappy" => plain = snappy(std::mem::take(&mut packed))?,
        "lz4" => {
            let flags = packed.get(4).copied().unwrap_or(0);
            if flags & 0b1110_0001 != 0b0110_0000 {
                return Err(io::Error::other("no version 1 of independent blocks"));
            }
            lz4_flex::frame::FrameDecoder::new(&mut packed).read_to_end(&mut plain)?;
        }
        _ => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&mut packed)?;
            decoder.single_frame().read_to_end(&mut plain)?;
        }
    }
    if packed.fill_buf()?.is_empty() {
        Ok(plain)
    } else {
        Err(io::Error::other(format!("{} bytes too many", packed.len())))
    }
}

/// Snappy as snappy-java frames it, or bare; brokers take both.
///
/// Source: SnappyInputStream in <https://github.com/xerial/snappy-java>.
fn snappy(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoder = snap::raw::Decoder::new();
    let Some(mut rest) = packed.strip_prefix(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01") else {
        return Ok(decoder.decompress_vec(packed)?);
    };
    let mut plain = Vec::new();
    while !rest.is_empty() {
        let length = rest.try_get_i32().map_err(io::Error::other)?;
        let block = take(&mut rest, length.into()).ok_or(io::ErrorKind::UnexpectedEof)?;
        plain.append(&mut decoder.decompress_vec(block)?);
    }
    Ok(plain)
}
