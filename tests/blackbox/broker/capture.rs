//! Records as a consumer shows them, for `logship verify`.

use std::io::Write as _;

use super::Record;

/// What `kcat -C -J` prints of these records: strings hold the bytes as they are,
/// but for what JSON wants escaped.
pub fn as_kcat(topic: &str, records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        let _ = write!(
            out,
            "{{\"topic\":\"{topic}\",\"partition\":{},\"offset\":{},\"tstype\":\"create\",\"ts\":{},\"broker\":1,",
            record.partition, record.offset, record.timestamp_ms
        );
        if !record.headers.is_empty() {
            out.extend_from_slice(b"\"headers\":[");
            for (name, value) in &record.headers {
                string(&mut out, Some(name.as_bytes()));
                out.push(b',');
                string(&mut out, value.as_deref());
                out.push(b',');
            }
            out.pop();
            out.extend_from_slice(b"],");
        }
        out.extend_from_slice(b"\"key\":");
        string(&mut out, record.key.as_deref());
        out.extend_from_slice(b",\"payload\":");
        string(&mut out, Some(&record.value));
        out.extend_from_slice(b"}\n");
    }
    out
}

fn string(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return;
    };
    out.push(b'"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..0x20 => {
                let _ = write!(out, "\\u{byte:04X}");
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
