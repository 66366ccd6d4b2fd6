//! Paths as text: for a file, reading back byte for byte, and for people.
//!
//! Unix paths are bytes. For a file UTF-8 stays as it is; anything else, and
//! `%`, is written as `%XX`. Nothing here touches the file system.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A path as text.
pub fn to_text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// The path that [`to_text`] made this text of.
pub fn from_text(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// A path for people: what could disturb a terminal or break a line is escaped.
pub fn shown(path: impl AsRef<OsStr>) -> String {
    escaped(path.as_ref(), char::is_control)
}

/// A path, or another name, as the value in `key=value`: in quotes if it could be
/// misread, with `"` and `\` escaped in them.
pub fn as_value(name: impl AsRef<OsStr>) -> String {
    let plain = shown(&name);
    let misleads = |c: char| c.is_whitespace() || matches!(c, '=' | '"' | '\'' | '\\');
    if plain.is_empty() || plain.contains(misleads) {
        let delimits = |c: char| c.is_control() || matches!(c, '"' | '\\');
        return format!("\"{}\"", escaped(name.as_ref(), delimits));
    }
    plain
}

/// Text in which some characters, and whatever is not UTF-8, are escaped.
fn escaped(bytes: &OsStr, needs_it: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    for chunk in bytes.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if needs_it(c) {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_reads_back() {
        for bytes in [
            &b"/var/log/a b.log"[..],
            b"/100%/%41/%",
            b"/\xff\xfe/\xc3\xa4\xc3",
            "/ä/日本\n".as_bytes(),
        ] {
            let path = Path::new(OsStr::from_bytes(bytes));
            assert_eq!(from_text(&to_text(path)), path);
        }
    }

    #[test]
    fn control_characters_and_broken_utf8_are_shown_escaped() {
        let path = OsStr::from_bytes(b"a\n\x1b[31m\xff");
        assert_eq!(shown(path), "a\\n\\u{1b}[31m\\xff");
    }

    #[test]
    fn a_value_that_could_be_misread_is_quoted_and_others_are_not() {
        for (name, value) in [
            (&b"/var/log/a-1.log"[..], "/var/log/a-1.log"),
            ("/ä/日本".as_bytes(), "/ä/日本"),
            (b"x from=2 to=3", r#""x from=2 to=3""#),
            (b"", r#""""#),
            (b"a=1", r#""a=1""#),
            (b"it's", r#""it's""#),
            ("a\u{a0}b".as_bytes(), "\"a\u{a0}b\""),
            (br#"a"\b"#, r#""a\"\\b""#),
            // An escape, and a name that looks like one.
            (b"a\nb", r#""a\nb""#),
            (br"a\nb", r#""a\\nb""#),
            (b"a\xff", r#""a\xff""#),
        ] {
            assert_eq!(as_value(OsStr::from_bytes(name)), value);
        }
    }
}
