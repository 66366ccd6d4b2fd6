//! JSON (RFC 8259) to a tree of values, with flaws in our own words.
//!
//! The parser is one for JSON with comments, with everything beyond JSON turned
//! off; what it lets through all the same, `serde_json` refuses.

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::{ParseError, ParseErrorKind};
use jsonc_parser::{CollectOptions, ParseOptions, ParseStringErrorKind, parse_to_ast};
use serde::de::IgnoredAny;

use super::super::units::{parse_duration, parse_size};
use super::{
    Content, DEPTH_MAX, EMPTY, Entry, Flaw, Form, LIKE_YAML, Spot, VALUES_MAX, Value, end_of,
};

const NO_COMMENTS: &str = "JSON has no comments: remove it, or use a .yaml file";
/// JSON and nothing else.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

pub fn parse(text: &str) -> Result<Value, Flaw> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &STRICT)
        .map_err(|error| yaml_flaw(text).unwrap_or_else(|| flaw(text, &error)))?;
    let Some(root) = parsed.value else {
        return Err(at(Spot::START, EMPTY));
    };
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| leftover(text, &error))?;
    let mut tree = Tree {
        lines: Lines::of(text),
        values: 0,
    };
    tree.value(root, 1)
}

/// Makes the tree.
struct Tree<'a> {
    lines: Lines<'a>,
    values: usize,
}

impl Tree<'_> {
    fn value(&mut self, from: ast::Value, depth: usize) -> Result<Value, Flaw> {
        let spot = self.lines.spot(from.start());
        self.values += 1;
        if depth > DEPTH_MAX {
            return Err(at(spot, &too_deep()));
        }
        if self.values > VALUES_MAX {
            return Err(at(spot, &too_many()));
        }
        let content = match from {
            ast::Value::NullKeyword(_) => Content::Null,
            ast::Value::BooleanLit(from) => Content::Bool(from.value),
            ast::Value::NumberLit(from) => Content::Number(from.value.to_owned()),
            ast::Value::StringLit(from) => Content::Text(from.value.into_owned()),
            ast::Value::Array(from) => {
                let items = from.elements.into_iter();
                Content::List(
                    items
                        .map(|item| self.value(item, depth + 1))
                        .collect::<Result<_, _>>()?,
                )
            }
            ast::Value::Object(from) => {
                let entries = from.properties.into_iter();
                Content::Object(
                    entries
                        .map(|entry| self.entry(entry, depth))
                        .collect::<Result<_, _>>()?,
                )
            }
        };
        let form = match content {
            Content::Text(_) => Form::Quoted,
            _ => Form::Plain,
        };
        Ok(Value {
            at: spot,
            form,
            content,
        })
    }

    fn entry(&mut self, from: ast::ObjectProp, depth: usize) -> Result<Entry, Flaw> {
        let spot = self.lines.spot(from.start());
        Ok(Entry {
            name: from.name.into_string(),
            at: spot,
            value: self.value(from.value, depth + 1)?,
        })
    }
}

/// Turns the index of a byte into a spot. The next one is counted from the last
/// one, so that a document without line ends takes no longer than another.
struct Lines<'a> {
    text: &'a str,
    index: usize,
    spot: Spot,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Lines<'a> {
        Lines {
            text,
            index: 0,
            spot: Spot::START,
        }
    }

    fn spot(&mut self, index: usize) -> Spot {
        if index < self.index {
            *self = Lines::of(self.text);
        }
        for c in self.text[self.index..index].chars() {
            if c == '\n' {
                self.spot.line += 1;
                self.spot.column = 1;
            } else {
                self.spot.column += 1;
            }
        }
        self.index = index;
        self.spot
    }
}

pub fn too_deep() -> String {
    format!("values stand in each other more than {DEPTH_MAX} deep")
}

pub fn too_many() -> String {
    format!("there are more than {VALUES_MAX} values")
}

fn at(at: Spot, problem: &str) -> Flaw {
    Flaw {
        at,
        problem: problem.to_owned(),
    }
}

/// What `serde_json` says; its column counts bytes.
fn leftover(text: &str, error: &serde_json::Error) -> Flaw {
    let line = text
        .split('\n')
        .nth(error.line().saturating_sub(1))
        .unwrap_or_default();
    let bytes = error.column().saturating_sub(1).min(line.len());
    let before = String::from_utf8_lossy(&line.as_bytes()[..bytes]);
    let spot = Spot {
        line: error.line().max(1),
        column: end_of(&before).column,
    };
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    if said.starts_with("control character") {
        return at(
            spot,
            "the string goes over the end of its line, or holds a control character: is its closing quote missing?",
        );
    }
    at(spot, &format!("this is not JSON: {said}"))
}

/// What the parser says, in our words.
fn flaw(text: &str, error: &ParseError) -> Flaw {
    use ParseErrorKind as Kind;
    let start = error.range().start;
    let is_unknown = matches!(error.kind(), Kind::UnexpectedWord | Kind::UnexpectedToken);
    if is_unknown && let Some(flaw) = unquoted(text, start) {
        return flaw;
    }
    let problem = match error.kind() {
        Kind::UnexpectedToken if text.as_bytes().get(start) == Some(&b'#') => NO_COMMENTS,
        Kind::ExpectedComma if in_number(text, error.range().start) => {
            "a number does not begin with 0"
        }
        Kind::ExpectedComma => "a comma is missing here",
        Kind::TrailingCommasNotAllowed => "the comma before '}' or ']' must go",
        Kind::CommentsNotAllowed | Kind::UnterminatedCommentBlock => NO_COMMENTS,
        Kind::ExpectedColonAfterObjectKey => "a ':' must follow the key",
        Kind::ExpectedObjectValue => "a value must follow the ':'",
        Kind::ExpectedStringObjectProperty => "the key needs double quotes",
        Kind::SingleQuotedStringsNotAllowed => "strings need double quotes",
        Kind::UnterminatedObject => "the object that begins here has no '}'",
        Kind::UnterminatedArray => "the list that begins here has no ']'",
        Kind::MultipleRootJsonValues => {
            "there is something after the end of the document: remove it"
        }
        Kind::NestingDepthExceeded => return at(place(error), &too_deep()),
        Kind::UnexpectedWord | Kind::UnexpectedToken => {
            "this is no value: a string needs double quotes, the words are true, false and null"
        }
        Kind::UnexpectedTokenInObject => "a key in double quotes is due here",
        Kind::UnexpectedComma => "a value is due here: there is one comma too many",
        Kind::UnexpectedColon => "a value is due here, not a ':'",
        Kind::UnexpectedCloseBrace => "a value is due here, not a '}'",
        Kind::UnexpectedCloseBracket => "a value is due here, not a ']'",
        Kind::String(ParseStringErrorKind::UnterminatedStringLiteral) => {
            "the string that begins here has no closing quote in its line"
        }
        Kind::String(_) => {
            "the string holds an escape that JSON does not have: a backslash is written \\\\"
        }
        _ => "this is not a number as JSON has them, like 10 or 0.5",
    };
    at(place(error), problem)
}

/// A size or a duration without quotes, of which the parser took the digits.
fn unquoted(text: &str, at_byte: usize) -> Option<Flaw> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let (before, after) = text.split_at_checked(at_byte)?;
    let start = before.trim_end_matches(in_word).len();
    let end = at_byte + after.find(|c| !in_word(c)).unwrap_or(after.len());
    let word = &text[start..end];
    let key = text[..start].trim_end().trim_end_matches(':').trim_end();
    if key.ends_with("password\"") || key.ends_with("\"sasl\"") {
        return None; // It is not repeated.
    }
    let has_unit = word.contains(|c: char| c.is_ascii_alphabetic());
    (has_unit && (parse_size(word).is_ok() || parse_duration(word).is_ok())).then(|| Flaw {
        at: Lines::of(text).spot(start),
        problem: format!("needs double quotes: \"{word}\""),
    })
}

/// What is said of a text whose first line is YAML.
fn yaml_flaw(text: &str) -> Option<Flaw> {
    let lines = text.lines().enumerate();
    let mut lines = lines.map(|(n, line)| (n, line.trim_end()));
    let (n, line) = lines.find(|(_, line)| !line.is_empty() && !line.starts_with('#'))?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let after = line.trim_start_matches(is_name);
    let is_key = after.len() < line.len() && (after == ":" || after.starts_with(": "));
    let is_yaml = is_key || line == "---" || line.starts_with("- ");
    let spot = Spot {
        line: n + 1,
        column: 1,
    };
    is_yaml.then(|| at(spot, LIKE_YAML))
}

/// True between two digits.
fn in_number(text: &str, at: usize) -> bool {
    let around = text.as_bytes().get(at.saturating_sub(1)..=at);
    around.is_some_and(|around| around.iter().all(u8::is_ascii_digit))
}

fn place(error: &ParseError) -> Spot {
    Spot {
        line: error.line_display(),
        column: error.column_display(),
    }
}
