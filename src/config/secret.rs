//! Files that hold secrets: what is in them, and who can read it.
//!
//! What is said of such a file names it, and never shows what it holds.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::small;
use crate::text::shown;

/// Largest file that may hold a password.
const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Permission bits of everybody who is neither owner nor in the group.
const READABLE_BY_ALL: u32 = 0o004;

/// A secret in a file of its own, without the line end after it, and what had better be
/// looked at about it.
///
/// # Errors
/// What is wrong with the file, which is named.
pub fn read_secret(path: &Path) -> Result<(String, Option<String>), String> {
    let bytes =
        small::read(path, SECRET_BYTES_MAX + 1).map_err(|error| cannot_read(path, &error))?;
    let path = shown(path);
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!(
            "'{path}' is larger than any password: is this the right file?"
        ));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("'{path}' does not hold UTF-8"))?;
    if text.starts_with('\u{feff}') {
        return Err(format!(
            "'{path}' begins with a byte order mark, which is no part of a password: save it without one"
        ));
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    // Only the first line may be meant, or all; a second one may be there by accident.
    if secret.contains('\n') {
        return Err(format!(
            "'{path}' has more than one line, and a password is one: leave only that in it"
        ));
    }
    if secret.is_empty() {
        return Err(format!("'{path}' is empty: write the password into it"));
    }
    let doubt = secret.ends_with(char::is_whitespace).then(|| {
        format!("the password in '{path}' ends with white space: remove it, unless it is part of the password")
    });
    Ok((secret.to_owned(), doubt))
}

/// What had better be looked at about a file of secrets: everybody can read it.
pub fn open_to_all(path: &Path) -> Option<String> {
    is_open(path).then(|| {
        let path = shown(path);
        format!("everybody on this host can read '{path}': chmod 600 '{path}'")
    })
}

/// True when everybody on this host can read it.
pub fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & READABLE_BY_ALL != 0)
}

/// That a file cannot be read, and why.
pub fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read '{}': {error}", shown(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lines were one password, with a line break in it, and who wrote them heard of
    /// it from a broker that did not let him in.
    #[test]
    fn a_file_of_two_lines_is_refused_without_showing_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        for good in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            fs::write(&file, good).unwrap();
            assert_eq!(read_secret(&file), Ok(("hunter2".to_owned(), None)));
        }
        for bad in [
            "hunter2\nother",
            "hunter2\r\nother\r\n",
            "hunter2\n\n",
            "\nhunter2\n",
        ] {
            fs::write(&file, bad).unwrap();
            let told = read_secret(&file).unwrap_err();
            let due = format!("'{}' has more than one line", file.display());
            assert!(told.starts_with(&due), "{told}");
            assert!(
                !told.contains("hunter2") && !told.contains("other"),
                "{told}"
            );
        }
    }
}
