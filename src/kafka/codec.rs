//! The compressions of a Kafka record batch, with contexts kept from batch to batch.
//!
//! It only compresses: it does not read anything back, and it knows neither records nor batches.

use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use flate2::{Compress, Crc, FlushCompress, Status};
use lz4_flex::block::CompressTable;
use twox_hash::XxHash32;

/// Compression of a record batch; the discriminant is the attribute bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Records as they are.
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks in the stream format of snappy-java.
    Snappy = 2,
    /// The LZ4 frame format, blocks independent of each other.
    #[default]
    Lz4 = 3,
    /// RFC 8878; brokers take it since Kafka 2.1, in Produce version 7 or later (KIP-110).
    Zstd = 4,
}

impl Compression {
    /// Every compression, in the order of the attribute bits.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The levels that it has, from fast to small; `None` where there is only one way.
    pub fn levels(self) -> Option<std::ops::RangeInclusive<i32>> {
        match self {
            Compression::Gzip => Some(1..=9),
            Compression::Zstd => Some(1..=22),
            _ => None,
        }
    }

    /// The name that Kafka's `compression.type` uses.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        let known = Compression::ALL
            .into_iter()
            .find(|known| known.name() == name);
        known.ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// A name that is no [`Compression`]; the message lists those that are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCompression(pub String);

impl fmt::Display for UnknownCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Compression::ALL.map(Compression::name).join(", ");
        write!(
            f,
            "unknown compression '{}', expected one of {names}",
            self.0.escape_debug()
        )
    }
}

impl std::error::Error for UnknownCompression {}

/// The level of Kafka's own producer (KIP-390).
const GZIP_LEVEL: i32 = 6;
/// The level of Kafka's own producer (KIP-390).
const ZSTD_LEVEL: i32 = 3;
/// Input bytes of a snappy block: as far as snappy looks back, so that more would gain nothing.
const SNAPPY_BLOCK_BYTES: usize = 64 * 1024;
/// Input bytes of an LZ4 block. A consumer needs a buffer of this size; 256 KiB would save 2.5% of
/// the bytes and cost 4% more time.
const LZ4_BLOCK_BYTES: usize = 64 * 1024;
/// FLG: version 01, blocks independent, no block checksum, content size or content checksum.
const LZ4_FLAGS: u8 = 0b0110_0000;
/// BD: code 4, which stands for [`LZ4_BLOCK_BYTES`].
const LZ4_BLOCK_SIZE: u8 = 4 << 4;

/// A compression with its reusable context.
///
/// The context is made by the first call of [`compress`](Compressor::compress), so that a
/// compressor nobody uses costs nothing. From then on it holds 16 KiB for lz4, up to 32 KiB for
/// snappy, 0.3 MiB for gzip and up to 1 MiB for zstd.
pub struct Compressor {
    compression: Compression,
    level: Option<i32>,
    codec: Option<Codec>,
}

enum Codec {
    None,
    Gzip(Compress),
    Snappy(Box<snap::raw::Encoder>),
    Lz4(CompressTable),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    /// A compressor that has no context yet.
    pub fn new(compression: Compression) -> Self {
        Compressor {
            compression,
            level: None,
            codec: None,
        }
    }

    /// The same at one of its [`levels`](Compression::levels); `None` is Kafka's own.
    pub fn at_level(self, level: Option<i32>) -> Self {
        Compressor { level, ..self }
    }

    /// What this compressor produces.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Appends the compressed `input` to `out`, complete in itself: header, data and trailer.
    pub fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match self
            .codec
            .get_or_insert_with(|| Codec::new(self.compression, self.level))
        {
            Codec::None => out.extend_from_slice(input),
            Codec::Gzip(deflate) => gzip(deflate, input, out),
            Codec::Snappy(encoder) => snappy(encoder, input, out),
            Codec::Lz4(table) => lz4(table, input, out),
            Codec::Zstd(context) => zstd(context, input, out),
        }
    }
}

impl Codec {
    fn new(compression: Compression, level: Option<i32>) -> Self {
        let levels = compression.levels().unwrap_or(0..=0);
        let at = |default: i32| {
            level
                .unwrap_or(default)
                .clamp(*levels.start(), *levels.end())
        };
        match compression {
            Compression::None => Codec::None,
            Compression::Gzip => {
                let level = flate2::Compression::new(at(GZIP_LEVEL).unsigned_abs());
                let zlib_header = false;
                Codec::Gzip(Compress::new(level, zlib_header))
            }
            Compression::Snappy => Codec::Snappy(Box::new(snap::raw::Encoder::new())),
            Compression::Lz4 => Codec::Lz4(CompressTable::large()),
            Compression::Zstd => {
                let context = zstd::bulk::Compressor::new(at(ZSTD_LEVEL));
                Codec::Zstd(context.expect("zstd knows the level"))
            }
        }
    }
}

/// RFC 1952: a header without name and time, a deflate stream, CRC-32 and length of the input.
fn gzip(deflate: &mut Compress, input: &[u8], out: &mut Vec<u8>) {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    const DEFLATE: u8 = 8;
    const NO_FLAGS_TIME_OR_EXTRA: [u8; 6] = [0; 6];
    const UNKNOWN_SYSTEM: u8 = 255;
    out.extend_from_slice(&MAGIC);
    out.push(DEFLATE);
    out.extend_from_slice(&NO_FLAGS_TIME_OR_EXTRA);
    out.push(UNKNOWN_SYSTEM);

    deflate.reset();
    loop {
        out.reserve(input.len() / 4 + 1024);
        let rest = &input[deflate.total_in() as usize..];
        match deflate.compress_vec(rest, out, FlushCompress::Finish) {
            Ok(Status::StreamEnd) => break,
            Ok(Status::Ok | Status::BufError) => (),
            Err(error) => unreachable!("deflate only fails when misused: {error}"),
        }
    }

    let mut crc = Crc::new();
    crc.update(input);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&crc.amount().to_le_bytes());
}

/// The stream of snappy-java: a header, then snappy blocks, each behind its length.
///
/// Kafka's Java code and librdkafka also read one bare block, as librdkafka writes it, but Java
/// must then unpack the whole batch in one piece. This is what every consumer has to read, since
/// Java producers write it. <https://github.com/xerial/snappy-java#compatibility-notes>
fn snappy(encoder: &mut snap::raw::Encoder, input: &[u8], out: &mut Vec<u8>) {
    const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
    const VERSION: [u8; 4] = 1u32.to_be_bytes();
    const OLDEST_READER: [u8; 4] = 1u32.to_be_bytes();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION);
    out.extend_from_slice(&OLDEST_READER);

    let mut end = out.len();
    for block in input.chunks(SNAPPY_BLOCK_BYTES) {
        let room = room_at(out, end, 4 + snap::raw::max_compress_len(block.len()));
        let (length, data) = room.split_at_mut(4);
        let bytes = encoder
            .compress(block, data)
            .expect("there is room for any block");
        length.copy_from_slice(&(bytes as u32).to_be_bytes());
        end += 4 + bytes;
    }
    out.truncate(end);
}

/// An LZ4 frame such as Kafka's Java code reads and writes: independent blocks, and no checksum but
/// that of the header, taken over the descriptor alone (KIP-57).
/// <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>
fn lz4(table: &mut CompressTable, input: &[u8], out: &mut Vec<u8>) {
    const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
    const DESCRIPTOR: [u8; 2] = [LZ4_FLAGS, LZ4_BLOCK_SIZE];
    /// Added to the length of a block that is stored as it was.
    const STORED: u32 = 1 << 31;
    const END_MARK: [u8; 4] = [0; 4];
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&DESCRIPTOR);
    out.push((XxHash32::oneshot(0, &DESCRIPTOR) >> 8) as u8);

    let mut end = out.len();
    for block in input.chunks(LZ4_BLOCK_BYTES) {
        let room = room_at(
            out,
            end,
            4 + lz4_flex::block::get_maximum_output_size(block.len()),
        );
        let (length, data) = room.split_at_mut(4);
        let bytes = lz4_flex::block::compress_into_with_table(block, data, table)
            .expect("there is room for any block");
        if bytes < block.len() {
            length.copy_from_slice(&(bytes as u32).to_le_bytes());
            end += 4 + bytes;
        } else {
            length.copy_from_slice(&(STORED | block.len() as u32).to_le_bytes());
            data[..block.len()].copy_from_slice(block);
            end += 4 + block.len();
        }
    }
    out.truncate(end);
    out.extend_from_slice(&END_MARK);
}

/// RFC 8878: one frame with the size of its content and without a checksum.
fn zstd(context: &mut zstd::bulk::Compressor<'static>, input: &[u8], out: &mut Vec<u8>) {
    out.reserve(zstd::compress_bound(input.len()));
    let end = out.len() as u64;
    let mut out = Cursor::new(out);
    out.set_position(end);
    context
        .compress_to_buffer(input, &mut out)
        .expect("there is room for any input");
}

/// The `bytes` of `out` from `start` on, with zeros added where `out` is too short.
///
/// What one block did not use is there for the next, so that hardly a byte is zeroed twice.
fn room_at(out: &mut Vec<u8>, start: usize, bytes: usize) -> &mut [u8] {
    if out.len() < start + bytes {
        out.resize(start + bytes, 0);
    }
    &mut out[start..start + bytes]
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Read;

    use super::*;

    /// Unpacks what was compressed, with nothing but the crates that read the format.
    pub(in crate::kafka) fn decompress(compression: Compression, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match compression {
            Compression::None => plain.extend_from_slice(packed),
            Compression::Gzip => {
                let mut reader = flate2::bufread::GzDecoder::new(packed);
                reader.read_to_end(&mut plain).unwrap();
                assert!(
                    reader.into_inner().is_empty(),
                    "bytes follow the gzip member"
                );
            }
            Compression::Snappy => plain = unpack_snappy_java(packed),
            Compression::Lz4 => {
                let mut rest = packed;
                let mut reader = lz4_flex::frame::FrameDecoder::new(&mut rest);
                reader.read_to_end(&mut plain).unwrap();
                assert!(rest.is_empty(), "bytes follow the LZ4 frame");
            }
            Compression::Zstd => plain = zstd::stream::decode_all(packed).unwrap(),
        }
        plain
    }

    fn unpack_snappy_java(packed: &[u8]) -> Vec<u8> {
        let (header, mut blocks) = packed.split_at(16);
        assert_eq!(header, b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        let mut plain = Vec::new();
        while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
            let (block, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
            plain.extend(snap::raw::Decoder::new().decompress_vec(block).unwrap());
            blocks = rest;
        }
        assert!(blocks.is_empty(), "bytes follow the last snappy block");
        plain
    }

    /// SplitMix64: the same numbers for the same seed, everywhere.
    pub(in crate::kafka) struct Random(pub u64);

    impl Random {
        pub(in crate::kafka) fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }

        pub(in crate::kafka) fn below(&mut self, limit: usize) -> usize {
            (self.next() % limit as u64) as usize
        }

        pub(in crate::kafka) fn bytes(&mut self, len: usize) -> Vec<u8> {
            (0..len).map(|_| self.next() as u8).collect()
        }

        /// Words that come again and again, with noise between them.
        pub(in crate::kafka) fn text(&mut self, len: usize) -> Vec<u8> {
            let mut text = Vec::with_capacity(len + 20);
            while text.len() < len {
                match self.below(4) {
                    0 => text.extend(format!("{:x} ", self.next() as u32).into_bytes()),
                    _ => text.extend([&b"INFO "[..], b"connection ", b"closed "][self.below(3)]),
                }
            }
            text.truncate(len);
            text
        }
    }

    #[test]
    fn every_level_reads_back_and_the_highest_is_smaller_than_the_lowest() {
        let input = Random(7).text(300_000);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let levels = compression.levels().unwrap();
            let packed = |level| {
                let mut packed = Vec::new();
                let mut compressor = Compressor::new(compression).at_level(level);
                compressor.compress(&input, &mut packed);
                assert!(
                    decompress(compression, &packed) == input,
                    "{compression} {level:?}"
                );
                packed.len()
            };
            let sizes: Vec<usize> = levels.clone().map(|level| packed(Some(level))).collect();
            assert!(sizes.last() < sizes.first(), "{compression}: {sizes:?}");
            let default = if compression == Compression::Gzip {
                6
            } else {
                3
            };
            assert_eq!(packed(None), packed(Some(default)));
        }
    }

    /// Lengths around the ends of blocks, and content from constant to random.
    fn inputs() -> Vec<Vec<u8>> {
        let mut random = Random(1);
        let mut inputs = Vec::new();
        for len in [
            0,
            1,
            12,
            13,
            100,
            65_535,
            65_536,
            65_537,
            131_072,
            200_000,
            1 << 20,
        ] {
            inputs.push(vec![0; len]);
            inputs.push(random.bytes(len));
            inputs.push(random.text(len));
        }
        inputs
    }

    #[test]
    fn what_is_compressed_reads_back_with_independent_decoders() {
        for compression in Compression::ALL {
            let mut compressor = Compressor::new(compression);
            for input in inputs() {
                let mut packed = Vec::new();
                compressor.compress(&input, &mut packed);
                let plain = decompress(compression, &packed);
                assert!(
                    plain == input,
                    "{compression} of {} bytes differs",
                    input.len()
                );
            }
        }
    }

    #[test]
    fn random_inputs_read_back_whatever_their_length_and_content() {
        let mut random = Random(2);
        let mut compressors = Compression::ALL.map(Compressor::new);
        for round in 0..300 {
            let mut input = Vec::new();
            for _ in 0..random.below(4) {
                let len = random.below(70_000) >> random.below(12);
                match random.below(3) {
                    0 => input.extend(random.bytes(len)),
                    1 => input.extend(random.text(len)),
                    _ => input.resize(input.len() + len, random.next() as u8),
                }
            }
            for compressor in &mut compressors {
                let mut packed = Vec::new();
                compressor.compress(&input, &mut packed);
                let plain = decompress(compressor.compression(), &packed);
                assert!(
                    plain == input,
                    "round {round}, {}",
                    compressor.compression()
                );
            }
        }
    }

    #[test]
    fn output_is_appended_and_does_not_depend_on_what_was_compressed_before() {
        let mut random = Random(3);
        let (first, second) = (random.text(150_000), random.text(90_000));
        for compression in Compression::ALL {
            let mut fresh = Vec::new();
            Compressor::new(compression).compress(&second, &mut fresh);

            let mut compressor = Compressor::new(compression);
            compressor.compress(&first, &mut Vec::new());
            let mut out = b"before".to_vec();
            compressor.compress(&second, &mut out);

            assert_eq!(out[..6], *b"before", "{compression}");
            assert!(out[6..] == fresh, "{compression} remembers the last batch");
        }
    }

    #[test]
    fn random_bytes_grow_by_less_than_a_thousandth() {
        let input = Random(4).bytes(1 << 20);
        for compression in Compression::ALL {
            let mut packed = Vec::new();
            Compressor::new(compression).compress(&input, &mut packed);
            assert!(
                packed.len() < input.len() + 1024,
                "{compression}: {}",
                packed.len()
            );
        }
    }

    #[test]
    fn repetitive_text_shrinks_to_less_than_half() {
        let input = Random(5).text(1 << 20);
        for compression in &Compression::ALL[1..] {
            let mut packed = Vec::new();
            Compressor::new(*compression).compress(&input, &mut packed);
            assert!(
                packed.len() < input.len() / 2,
                "{compression}: {}",
                packed.len()
            );
        }
    }

    /// The first bytes that Java's producer sends, too; 0x82 is the checksum known from there.
    #[test]
    fn an_lz4_frame_announces_independent_blocks_of_64_kib() {
        let mut frame = Vec::new();
        Compressor::new(Compression::Lz4).compress(b"x", &mut frame);
        let header = [0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82];
        let stored_block_of_one_byte = [1, 0, 0, 0x80, b'x'];
        let end_mark = [0; 4];
        assert_eq!(
            frame,
            [&header[..], &stored_block_of_one_byte, &end_mark].concat()
        );
    }

    #[test]
    fn a_zstd_frame_says_how_large_its_content_is() {
        let mut frame = Vec::new();
        Compressor::new(Compression::Zstd).compress(&[7; 12_345], &mut frame);
        let content_size = zstd::zstd_safe::get_frame_content_size(&frame);
        assert_eq!(content_size.ok().flatten(), Some(12_345));
    }

    #[test]
    fn every_name_parses_and_the_discriminants_are_the_attribute_bits() {
        let names = ["none", "gzip", "snappy", "lz4", "zstd"];
        for (bits, name) in names.into_iter().enumerate() {
            let compression: Compression = name.parse().unwrap();
            assert_eq!(compression.to_string(), name);
            assert_eq!(compression as usize, bits);
        }
        assert_eq!(Compression::default(), Compression::Lz4);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = "LZ4\n".parse::<Compression>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown compression 'LZ4\\n', expected one of none, gzip, snappy, lz4, zstd"
        );
    }
}
