//! A config file as a tree of values that know where they stand.
//!
//! JSON and YAML give the same tree. What the values mean is not known here; what
//! no config can mean (a key twice, a document without an end) is refused here.

mod json;
mod yaml;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::path::Path;

use twox_hash::XxHash3_64;

use super::keys;

/// Largest text that is read, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 20;
/// What is said of a document with nothing in it.
pub const EMPTY: &str = "is empty";
/// What is said of YAML where JSON is due.
pub const LIKE_YAML: &str = "looks like YAML";
/// Values in values, at most.
const DEPTH_MAX: usize = 32;
/// Values of a document, at most. An alias of YAML counts all that it stands for.
const VALUES_MAX: usize = 500_000;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// RFC 8259, nothing else.
    Json,
    /// YAML 1.2, one document.
    Yaml,
}

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Its first character.
    pub at: Spot,
    /// How it was written.
    pub form: Form,
    /// What it is.
    pub content: Content,
}

/// How a value was written, as far as messages need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In quotes.
    Quoted,
    /// Not in quotes.
    Plain,
    /// Not at all: in YAML nothing stands behind the key, or below it.
    Absent,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Object(Vec<Entry>),
}

/// A name in an object, and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Its first character.
    pub at: Spot,
    /// The value.
    pub value: Value,
}

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Where.
    pub at: Spot,
    /// What, and what to do about it.
    pub problem: String,
}

impl Spot {
    /// The first character of a document.
    pub const START: Spot = Spot { line: 1, column: 1 };
}

impl Entry {
    /// Its path in the table of keys, in an object at `path`.
    fn path_in(&self, path: &str) -> String {
        match path {
            "" => self.name.clone(),
            path => format!("{path}.{}", self.name),
        }
    }
}

impl Syntax {
    /// YAML for files whose name ends so, JSON for all others.
    pub fn of(file: &Path) -> Syntax {
        let end = file.extension().unwrap_or_default();
        if end.eq_ignore_ascii_case("yaml") || end.eq_ignore_ascii_case("yml") {
            Syntax::Yaml
        } else {
            Syntax::Json
        }
    }
}

impl Value {
    /// XXH3 (64 bits) of what it says, but for passwords: whoever sees it is not to find out
    /// by trying which one it is.
    pub fn hash_without_secrets(&self) -> u64 {
        let mut hasher = XxHash3_64::new();
        self.feed("", &mut hasher);
        hasher.finish()
    }

    /// `path` is its own in the table of keys.
    fn feed(&self, path: &str, hasher: &mut XxHash3_64) {
        match &self.content {
            _ if keys::is_password(path) => 0_u8.hash(hasher),
            Content::Null => 1_u8.hash(hasher),
            Content::Bool(flag) => (2_u8, flag).hash(hasher),
            Content::Number(text) => (3_u8, text).hash(hasher),
            Content::Text(text) => (4_u8, text).hash(hasher),
            Content::List(items) => {
                (5_u8, items.len()).hash(hasher);
                let path = format!("{path}[]");
                items.iter().for_each(|item| item.feed(&path, hasher));
            }
            Content::Object(entries) => {
                (6_u8, entries.len()).hash(hasher);
                for entry in entries {
                    entry.name.hash(hasher);
                    entry.value.feed(&entry.path_in(path), hasher);
                }
            }
        }
    }

    /// What it is, in a word for people.
    pub fn kind(&self) -> &'static str {
        match self.content {
            Content::Null => "null",
            Content::Bool(_) => "true or false",
            Content::Number(_) => "a number",
            Content::Text(_) => "a string",
            Content::List(_) => "a list",
            Content::Object(_) => "an object",
        }
    }
}

/// Reads a document; beside it, the keys that stand twice in an object.
///
/// # Errors
/// The first flaw of its syntax.
pub fn parse(bytes: &[u8], syntax: Syntax) -> Result<(Value, Vec<Flaw>), Flaw> {
    let text = decode(bytes)?;
    let value = match syntax {
        Syntax::Json => json::parse(text),
        Syntax::Yaml => yaml::parse(text),
    }?;
    let mut doubles = Vec::new();
    find_doubles(&value, "", &mut doubles);
    Ok((value, doubles))
}

/// The text without a byte order mark.
fn decode(bytes: &[u8]) -> Result<&str, Flaw> {
    let wrong = |at, problem: String| Err(Flaw { at, problem });
    if bytes.len() > TEXT_BYTES_MAX {
        let limit = TEXT_BYTES_MAX >> 20;
        let problem =
            format!("is larger than {limit} MiB, which no config needs: is this the right file?");
        return wrong(Spot::START, problem);
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return wrong(Spot::START, "is UTF-16: save it as UTF-8".to_owned());
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let byte = bytes[error.valid_up_to()];
            return wrong(
                end_of(&good),
                format!("the byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"),
            );
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return wrong(Spot::START, EMPTY.to_owned());
    }
    Ok(text)
}

/// The spot after a text.
fn end_of(text: &str) -> Spot {
    let line = text.rsplit('\n').next().unwrap_or_default();
    Spot {
        line: text.matches('\n').count() + 1,
        column: line.chars().filter(|c| *c != '\u{feff}').count() + 1,
    }
}

/// The keys that stand twice in an object. `path` is the value's in the table of keys,
/// which knows where a name may be a secret.
fn find_doubles(value: &Value, path: &str, flaws: &mut Vec<Flaw>) {
    match &value.content {
        Content::List(items) => {
            let path = format!("{path}[]");
            items
                .iter()
                .for_each(|item| find_doubles(item, &path, flaws));
        }
        Content::Object(entries) => {
            let mut first = HashMap::new();
            for entry in entries {
                if let Some(line) = first.insert(&entry.name, entry.at.line) {
                    let name = keys::shown(path, &entry.name);
                    flaws.push(Flaw {
                        at: entry.at,
                        problem: format!("the key '{name}' stands twice in this object, the other one in line {line}: remove one"),
                    });
                }
                find_doubles(&entry.value, &entry.path_in(path), flaws);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash in `/status` was of the whole text: a password in it could be guessed, and
    /// the guess be proved, as fast as one can hash.
    #[test]
    fn a_hash_tells_everything_but_a_password() {
        let hash = |text: &str, syntax| {
            let (value, _) = parse(text.as_bytes(), syntax).unwrap();
            value.hash_without_secrets()
        };
        let config = |user: &str, kafka: &str, etcd: &str| {
            let text = format!(
                r#"{{"kafka": {{"sasl": {{"username": "{user}", "password": "{kafka}"}}}}, "etcd": {{"password": "{etcd}"}}, "n": [1, true, null]}}"#
            );
            hash(&text, Syntax::Json)
        };
        let first = config("me", "a", "b");
        assert_eq!(first, config("me", "hunter2", "b"));
        assert_eq!(first, config("me", "a", "hunter2"));
        assert_ne!(first, config("you", "a", "b"));
        let written = [
            r#"{"a": [1, "x"]}"#,
            r#"{"a":["x",1]}"#,
            r#"{"a":[1]}"#,
            r#"{"b":[1]}"#,
        ];
        let hashes = written.map(|text| hash(text, Syntax::Json));
        assert!(
            (1..4).all(|n| !hashes[..n].contains(&hashes[n])),
            "{hashes:?}"
        );
        assert_eq!(hash("a: [1, x]", Syntax::Yaml), hashes[0]);
    }

    fn flaws(text: impl AsRef<[u8]>, syntax: Syntax) -> Vec<String> {
        let flaws = match parse(text.as_ref(), syntax) {
            Ok((_, doubles)) => doubles,
            Err(flaw) => vec![flaw],
        };
        let shown = |flaw: Flaw| format!("{}:{}: {}", flaw.at.line, flaw.at.column, flaw.problem);
        flaws.into_iter().map(shown).collect()
    }

    /// The tree on one line: `{name@line:column=value}`.
    fn shown(value: &Value) -> String {
        let at = format!("@{}:{}", value.at.line, value.at.column);
        match &value.content {
            Content::Null => format!("null{at}"),
            Content::Bool(truth) => format!("{truth}{at}"),
            Content::Number(text) => format!("{text}{at}"),
            Content::Text(text) => format!("{text:?}{at}"),
            Content::List(items) => {
                let items: Vec<String> = items.iter().map(shown).collect();
                format!("[{}]{at}", items.join(" "))
            }
            Content::Object(entries) => {
                let entry = |entry: &Entry| {
                    format!(
                        "{}@{}:{}={}",
                        entry.name,
                        entry.at.line,
                        entry.at.column,
                        shown(&entry.value)
                    )
                };
                let entries: Vec<String> = entries.iter().map(entry).collect();
                format!("{{{}}}{at}", entries.join(" "))
            }
        }
    }

    fn tree(text: &str, syntax: Syntax) -> String {
        shown(&parse(text.as_bytes(), syntax).unwrap().0)
    }

    #[test]
    fn every_value_of_json_knows_where_it_stands() {
        let text = "\u{feff}{\n  \"ä\": [1.5, \"ö\", true],\n  \"b\": {\"c\": null}\n}";
        assert_eq!(
            tree(text, Syntax::Json),
            "{ä@2:3=[1.5@2:9 \"ö\"@2:14 true@2:19]@2:8 b@3:3={c@3:9=null@3:14}@3:8}@1:1"
        );
    }

    #[test]
    fn every_value_of_yaml_knows_where_it_stands() {
        let text = "\u{feff}# comment\nä: [1.5, ö, true]\nb:\n  c: ~\n  d:\n  e:\n  - x\n  - 10s\n";
        assert_eq!(
            tree(text, Syntax::Yaml),
            "{ä@2:1=[1.5@2:5 \"ö\"@2:10 true@2:13]@2:4 \
             b@3:1={c@4:3=null@4:6 d@5:3=null@5:4 e@6:3=[\"x\"@7:5 \"10s\"@8:5]@7:5}@4:3}@2:1"
        );
    }

    /// YAML 1.2: `yes` is a word, and only what is not quoted is a number.
    #[test]
    fn plain_words_of_yaml_are_what_yaml_1_2_says() {
        for (text, expected) in [
            ("yes", "\"yes\""),
            ("\"10\"", "\"10\""),
            ("'true'", "\"true\""),
            ("!!str 10", "\"10\""),
            ("10", "10"),
            ("-1", "-1"),
            ("1e3", "1e3"),
            ("0x10", "0x10"),
            ("1_000", "\"1_000\""),
            ("True", "true"),
            ("Null", "null"),
            ("10s", "\"10s\""),
            ("1.2.3.4", "\"1.2.3.4\""),
            ("${A}", "\"${A}\""),
            ("12:30", "\"12:30\""),
        ] {
            let shown = tree(&format!("k: {text}"), Syntax::Yaml);
            let value = shown.split('=').nth(1).unwrap().split('@').next().unwrap();
            assert_eq!(value, expected, "{text}");
        }
    }

    #[test]
    fn an_alias_stands_for_a_copy() {
        let text = "a: &x [1, 2]\nb: *x\n";
        assert_eq!(
            tree(text, Syntax::Yaml),
            "{a@1:1=[1@1:8 2@1:11]@1:4 b@2:1=[1@1:8 2@1:11]@2:4}@1:1"
        );
    }

    #[test]
    fn what_is_not_a_document_is_refused_at_its_place() {
        for (text, expected) in [
            ("", "1:1: is empty"),
            (" \n", "1:1: is empty"),
            (
                "{\n  \"a\": 1\n  \"b\": 2\n}",
                "2:9: a comma is missing here",
            ),
            ("{\"a\": 1,}", "1:8: the comma before '}' or ']' must go"),
            ("{\"a\": 1", "1:1: the object that begins here has no '}'"),
            ("{'a': 1}", "1:2: strings need double quotes"),
            ("{a: 1}", "1:2: the key needs double quotes"),
            (
                "{\"a\": 1} x",
                "1:10: there is something after the end of the document",
            ),
            (
                "{\"a\": // why\n1}",
                "1:7: JSON has no comments: remove it, or use a .yaml file",
            ),
            ("{\"a\": 01}", "1:8: "),
            ("{\"a\": nope}", "1:7: "),
            ("{\"a\": 5} # why", "1:10: JSON has no comments"),
            ("# why\n{}", "1:1: JSON has no comments"),
            ("{\"a\": 8MiB}", "1:7: needs double quotes: \"8MiB\""),
            ("{\"ä\": [1,\n 1.5s]}", "2:2: needs double quotes: \"1.5s\""),
            ("{\"a\": [1h 30m]}", "1:8: needs double quotes: \"1h\""),
            ("{\"password\": 10s}", "1:16: this is no value"),
            ("{\"sasl\": 10s}", "1:12: this is no value"),
            ("{\"a\": 8parsecs}", "1:8: this is no value"),
            ("# why\n\na: 1", "3:1: looks like YAML"),
            ("---\na: 1", "1:1: looks like YAML"),
            ("- a: 1", "1:1: looks like YAML"),
            ("a:1", "1:1: this is no value"),
            (
                "{\"a\": 1, \"a\": 2}",
                "1:10: the key 'a' stands twice in this object, the other one in line 1: remove one",
            ),
        ] {
            let flaws = flaws(text, Syntax::Json);
            assert!(flaws[0].starts_with(expected), "{text}\n{flaws:?}");
        }
        assert_eq!(
            flaws(b"{\n \xc3\xa4\xff", Syntax::Json),
            ["2:3: the byte 0xff is not UTF-8: save the file as UTF-8"]
        );
        assert_eq!(
            flaws(b"\xff\xfe{\0", Syntax::Json),
            ["1:1: is UTF-16: save it as UTF-8"]
        );
        assert!(
            flaws(vec![b' '; TEXT_BYTES_MAX + 1], Syntax::Json)[0].contains("larger than 4 MiB")
        );
    }

    #[test]
    fn what_is_not_yaml_for_a_config_is_refused_at_its_place() {
        for (text, expected) in [
            (
                "a: 1\nb: 2\na: 3\n",
                "3:1: the key 'a' stands twice in this object, the other one in line 1: remove one",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "2:1: a second document begins here: a config is one",
            ),
            ("a:\n\tb: 1\n", "2:2: "),
            ("a: [1, 2\n", "2:1: "),
            (
                "a: !secret x\n",
                "1:4: a tag, which begins with '!', is not understood: remove it",
            ),
            ("? [a]\n: 1\n", "1:3: a key must be a word or a string"),
            ("a: *x\n", "1:4: "),
            ("a: \"x\n", "1:4: "),
        ] {
            let flaws = flaws(text, Syntax::Yaml);
            assert!(flaws[0].starts_with(expected), "{text}\n{flaws:?}");
        }
    }

    /// Nine levels of ten aliases stand for a billion values.
    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = "a0: &a0 [x]\n".to_owned();
        for n in 1..10 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        let flaws = flaws(&text, Syntax::Yaml);
        assert!(flaws[0].contains("more than 500000 values"), "{flaws:?}");
    }

    #[test]
    fn values_in_values_have_a_limit() {
        for depth in [40, 400, 100_000] {
            let json = "[".repeat(depth) + &"]".repeat(depth);
            assert!(flaws(&json, Syntax::Json)[0].contains("deep"));
            assert!(!flaws(&json, Syntax::Yaml).is_empty());
            let block = "- ".repeat(depth) + "x";
            assert!(!flaws(&block, Syntax::Yaml).is_empty());
        }
    }

    #[test]
    fn the_ending_of_the_name_chooses_the_syntax() {
        for (name, syntax) in [
            ("a.yaml", Syntax::Yaml),
            ("a.YML", Syntax::Yaml),
            ("a.json", Syntax::Json),
            ("a", Syntax::Json),
            ("yaml", Syntax::Json),
        ] {
            assert_eq!(Syntax::of(Path::new(name)), syntax, "{name}");
        }
    }
}
