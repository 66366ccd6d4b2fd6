//! Record headers, encoded as they stand in a batch (KIP-82, in the form of KIP-98).
//!
//! What most records share is encoded once. What the names mean is not known here.

use super::batch::zigzag_len;

/// Headers of records that differ in the last one only.
#[derive(Debug, Clone)]
pub struct Headers {
    /// Their number, then each one; without the last one's value.
    encoded: Vec<u8>,
    /// Where the last one's value begins.
    last_at: usize,
}

/// Headers of one record, ready to stand in a batch.
#[derive(Debug, Clone, Copy)]
pub struct EncodedHeaders<'a>(&'a [u8]);

impl Headers {
    /// These headers, and one named `last` whose value comes with each record.
    pub fn new(fixed: &[(&str, &[u8])], last: &str) -> Headers {
        let mut encoded = Vec::new();
        append_len(&mut encoded, fixed.len() + 1);
        for (name, value) in fixed {
            append(&mut encoded, name.as_bytes());
            append(&mut encoded, value);
        }
        append(&mut encoded, last.as_bytes());
        Headers {
            last_at: encoded.len(),
            encoded,
        }
    }

    /// The headers with this value of the last one.
    pub fn with_last(&mut self, value: &[u8]) -> EncodedHeaders<'_> {
        self.encoded.truncate(self.last_at);
        append(&mut self.encoded, value);
        EncodedHeaders(&self.encoded)
    }
}

impl<'a> EncodedHeaders<'a> {
    /// A record without headers.
    pub const NONE: EncodedHeaders<'static> = EncodedHeaders(&[0]);

    /// The size that they add to a record.
    pub fn bytes(self) -> usize {
        self.0.len()
    }

    pub(super) fn encoded(self) -> &'a [u8] {
        self.0
    }
}

/// Appends a name or a value: its length as a varint, then its bytes.
/// <https://kafka.apache.org/documentation/#recordheader>
fn append(encoded: &mut Vec<u8>, bytes: &[u8]) {
    append_len(encoded, bytes.len());
    encoded.extend_from_slice(bytes);
}

fn append_len(encoded: &mut Vec<u8>, len: usize) {
    let mut rest = zigzag_len(len);
    while rest > 0x7f {
        encoded.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    encoded.push(rest as u8);
}
