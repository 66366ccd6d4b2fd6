//! The last good remote config on disk, for a start without etcd.
//!
//! It is bytes under keys, as etcd had them; what they mean is read anew.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk, RealDisk};

/// See ARCHITECTURE.md, "Stored formats".
const FILE: &str = "remote-config.json";
const VERSION: u32 = 1;

/// A key and its values: name, `mod_revision`, bytes.
#[derive(Debug)]
pub struct Kept {
    /// The key that was followed.
    pub key: String,
    /// As of this revision.
    pub revision: i64,
    /// Its own value, or those of all keys below it.
    pub values: Vec<(String, i64, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    keys: Vec<KeyRecord>,
}

#[derive(Serialize, Deserialize)]
struct KeyRecord {
    key: String,
    revision: i64,
    values: Vec<ValueRecord>,
}

#[derive(Serialize, Deserialize)]
struct ValueRecord {
    key: String,
    mod_revision: i64,
    value_base64: String,
}

/// Reads what was kept; nothing when nothing was.
///
/// # Errors
/// When there is something that cannot be read.
pub fn load(dir: &Path) -> io::Result<Vec<Kept>> {
    let text = match RealDisk.read(&dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let document: Document = serde_json::from_slice(&text)?;
    if document.version != VERSION {
        return Err(io::Error::other(format!(
            "it has version {}",
            document.version
        )));
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(io::Error::other);
    let keys = document.keys.into_iter().map(|record| {
        let values = record.values.into_iter();
        let values =
            values.map(|value| Ok((value.key, value.mod_revision, decode(&value.value_base64)?)));
        Ok(Kept {
            key: record.key,
            revision: record.revision,
            values: values.collect::<io::Result<_>>()?,
        })
    });
    keys.collect()
}

/// True when nothing is kept in a directory that is there: it was made again.
pub fn is_missing(dir: &Path) -> bool {
    RealDisk.exists(dir) && !RealDisk.exists(&dir.join(FILE))
}

/// Replaces what was kept.
pub fn save(dir: &Path, kept: Vec<Kept>) -> io::Result<()> {
    let value = |(key, mod_revision, bytes): (String, i64, Vec<u8>)| ValueRecord {
        key,
        mod_revision,
        value_base64: STANDARD.encode(bytes),
    };
    let keys = kept.into_iter().map(|kept| KeyRecord {
        key: kept.key,
        revision: kept.revision,
        values: kept.values.into_iter().map(value).collect(),
    });
    let document = Document {
        version: VERSION,
        keys: keys.collect(),
    };
    let text = serde_json::to_vec(&document)?;
    disk::replace(&RealDisk, &dir.join(FILE), &text)
}
