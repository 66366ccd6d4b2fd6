//! YAML 1.2 to a tree of values: one document, the core schema.
//!
//! Tags other than the core's, keys that are no scalars and merge keys are
//! not understood. What aliases stand for is copied, within a limit.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::json::{too_deep, too_many};
use super::{Content, DEPTH_MAX, EMPTY, Entry, Flaw, Form, Spot, VALUES_MAX, Value};

pub fn parse(text: &str) -> Result<Value, Flaw> {
    let mut tree = Tree {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        values: 0,
    };
    loop {
        match tree.next()? {
            (Event::StreamStart, _) => {}
            (Event::DocumentStart(_), _) => break,
            (_, at) => return wrong(at, EMPTY),
        }
    }
    let (event, at) = tree.next()?;
    let root = tree.value(event, at, 1)?;
    loop {
        match tree.next()? {
            (Event::DocumentStart(_), at) => {
                return wrong(at, "a second document begins here: a config is one");
            }
            (Event::StreamEnd, _) => return Ok(root),
            _ => {}
        }
    }
}

/// Makes the tree.
struct Tree<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, (Value, usize)>,
    values: usize,
}

impl<'a> Tree<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Spot), Flaw> {
        match self.parser.next_event() {
            Some(Ok((event, Span { start, .. }))) => Ok((event, spot(&start))),
            Some(Err(error)) => Err(flaw(&error)),
            None => Ok((Event::StreamEnd, Spot::START)),
        }
    }

    fn value(&mut self, event: Event<'a>, at: Spot, depth: usize) -> Result<Value, Flaw> {
        let before = self.values;
        self.count(1, at)?;
        if depth > DEPTH_MAX {
            return wrong(at, too_deep());
        }
        let form = form(&event);
        let (content, anchor) = match event {
            Event::Alias(anchor) => return self.copy(anchor, at),
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(text, style, tag.as_deref(), at)?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_tag(tag.as_deref(), at)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                check_tag(tag.as_deref(), at)?;
                (self.object(depth)?, anchor)
            }
            _ => return wrong(at, "a value is due here"),
        };
        let value = Value { at, form, content };
        if anchor > 0 {
            self.anchors
                .insert(anchor, (value.clone(), self.values - before));
        }
        Ok(value)
    }

    fn list(&mut self, depth: usize) -> Result<Content, Flaw> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::List(items)),
                (event, at) => items.push(self.value(event, at, depth + 1)?),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Content, Flaw> {
        let mut entries = Vec::new();
        loop {
            let (name, at) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Content::Object(entries)),
                (Event::Scalar(name, ..), at) => (name.into_owned(), at),
                (_, at) => return wrong(at, "a key must be a word or a string"),
            };
            if name == "<<" {
                return wrong(at, "'<<' is not understood: write the keys out");
            }
            let (event, value_at) = self.next()?;
            let value = self.value(event, value_at, depth + 1)?;
            entries.push(Entry { name, at, value });
        }
    }

    fn copy(&mut self, anchor: usize, at: Spot) -> Result<Value, Flaw> {
        let Some((value, count)) = self.anchors.get(&anchor) else {
            return wrong(at, "the alias stands inside of what it stands for");
        };
        let (value, count) = (value.clone(), *count);
        self.count(count, at)?;
        Ok(Value { at, ..value })
    }

    fn count(&mut self, more: usize, at: Spot) -> Result<(), Flaw> {
        self.values += more;
        if self.values > VALUES_MAX {
            return wrong(at, too_many());
        }
        Ok(())
    }
}

fn form(event: &Event) -> Form {
    match event {
        Event::Scalar(_, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted, ..) => Form::Quoted,
        Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() => Form::Absent,
        _ => Form::Plain,
    }
}

/// A scalar by the core schema (YAML 1.2.2, section 10.3).
fn scalar(
    text: Cow<str>,
    style: ScalarStyle,
    tag: Option<&Tag>,
    at: Spot,
) -> Result<Content, Flaw> {
    check_tag(tag, at)?;
    let text = text.into_owned();
    if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str") {
        return Ok(Content::Text(text));
    }
    Ok(match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        "true" | "True" | "TRUE" => Content::Bool(true),
        "false" | "False" | "FALSE" => Content::Bool(false),
        number if is_number(number) => Content::Number(text),
        _ => Content::Text(text),
    })
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let based = |prefix, radix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest: &str| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    let decimal = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.chars().any(|c| c.is_ascii_digit())
        && digits.parse::<f64>().is_ok();
    let special =
        [".inf", ".Inf", ".INF"].contains(&digits) || [".nan", ".NaN", ".NAN"].contains(&text);
    decimal || special || based("0x", 16) || based("0o", 8)
}

fn check_tag(tag: Option<&Tag>, at: Spot) -> Result<(), Flaw> {
    match tag {
        // It is not repeated: it may be a password that begins with a '!'.
        Some(tag) if !tag.is_yaml_core_schema() => wrong(
            at,
            "a tag, which begins with '!', is not understood: remove it, or put the value in quotes",
        ),
        _ => Ok(()),
    }
}

/// What the parser says, with what is most often the reason.
fn flaw(error: &ScanError) -> Flaw {
    let said = error.info();
    let advice = if said.contains("tab") {
        "indent with spaces"
    } else if said.contains("unknown anchor") {
        "a value that begins with * must be in quotes"
    } else if said.contains("simple key") || said.contains("mapping values") {
        "is there a space after the ':', and is the line indented like its neighbours?"
    } else {
        "is the line indented like its neighbours, and is every bracket and quote closed?"
    };
    Flaw {
        at: spot(error.marker()),
        problem: format!("this is not YAML: {said} ({advice})"),
    }
}

fn spot(marker: &Marker) -> Spot {
    Spot {
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

fn wrong<T>(at: Spot, problem: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw {
        at,
        problem: problem.into(),
    })
}
