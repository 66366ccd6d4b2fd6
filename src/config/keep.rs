//! The last good remote config on disk, for a start without etcd.
//!
//! It is bytes under keys, as etcd had them; what they mean is read anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// See ARCHITECTURE.md, "Stored formats".
const FILE: &str = "remote-config.json";
const UNFINISHED: &str = "remote-config.json.tmp";
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
    let text = match fs::read(dir.join(FILE)) {
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

/// Replaces what was kept: temporary file, fsync, rename, fsync of the directory.
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
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(dir.join(UNFINISHED))?;
    file.write_all(&serde_json::to_vec(&document)?)?;
    file.sync_all()?;
    fs::rename(dir.join(UNFINISHED), dir.join(FILE))?;
    File::open(dir)?.sync_all()
}
