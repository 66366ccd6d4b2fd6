//! JSON (RFC 8259) to a tree of values, with flaws in our own words.
//!
//! The parser is one for JSON with comments, with everything beyond JSON turned
//! off; what it lets through all the same, `serde_json` refuses.

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::{ParseError, ParseErrorKind};
use jsonc_parser::{CollectOptions, ParseOptions, ParseStringErrorKind, parse_to_ast};
use serde::de::IgnoredAny;

use super::{Content, DEPTH_MAX, EMPTY, Entry, Flaw, Form, Spot, VALUES_MAX, Value, end_of};

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
        .map_err(|error| flaw(text, &error))?;
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
    let problem = match error.kind() {
        Kind::ExpectedComma if in_number(text, error.range().start) => {
            "a number does not begin with 0"
        }
        Kind::ExpectedComma => "a comma is missing here",
        Kind::TrailingCommasNotAllowed => "the comma before '}' or ']' must go",
        Kind::CommentsNotAllowed | Kind::UnterminatedCommentBlock => {
            "JSON has no comments: remove it, or use a .yaml file"
        }
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
