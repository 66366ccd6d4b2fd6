//! Takes values out of a document by the table of keys, and collects mistakes.
//!
//! Every question names a key of the table, which says what the value must be.
//! What the values are for is not known here.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::document::{Content, Entry, Flaw, Form, Spot, Value};
use super::file::{ENTRY, LEAST};
use super::units::{parse_duration, parse_size, show_duration, show_size};
use super::{Mistake, Place, keys, variables};

/// Longest piece of a value that a message quotes, in characters.
const QUOTE_CHARS_MAX: usize = 100;
/// What is said of a key of YAML with nothing below it.
const NO_KEYS: &str = "has nothing below it: indent its keys, or leave it away";
const NO_ITEMS: &str =
    "has nothing below it: write its items below, each behind a '- ', or leave it away";
/// What is said of a path that a shell would take from somebody's home.
pub const NO_HOME: &str = "'~' is not expanded: write the full path";
/// Mistakes that are told of one document, and warnings.
const TOLD_MAX: usize = 1_000;

/// What was found wrong in a document so far.
#[derive(Debug)]
pub struct Report {
    file: Arc<str>,
    /// The document came from etcd: unknown keys are no mistakes, and variables
    /// are not filled in, because they could carry secrets away.
    pub remote: bool,
    /// What must be put right.
    pub mistakes: Vec<Mistake>,
    /// What had better be looked at.
    pub warnings: Vec<Mistake>,
}

/// A value that was taken, and where it stands.
#[derive(Debug, Clone)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub at: Spot,
    /// The path of its key, for people.
    pub key: String,
}

/// An object of the document.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    entries: &'a [Entry],
    /// Where it begins.
    pub at: Spot,
    /// Its path, for people: `sources[1]`; the document itself is "".
    pub key: String,
    table: &'static str,
}

impl Report {
    /// A report on a file, or the value of an etcd key.
    pub fn new(file: Arc<str>, remote: bool) -> Report {
        Report {
            file,
            remote,
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Where a spot is, with the name of the file.
    pub fn place(&self, at: Spot) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line: at.line,
            column: at.column,
        }
    }

    /// Adds a mistake.
    pub fn wrong(&mut self, at: Spot, key: &str, problem: impl Into<String>) {
        if !self.is_full() {
            let mistake = self.mistake(at, key, problem.into());
            self.mistakes.push(mistake);
        }
    }

    /// Adds a warning.
    pub fn warn(&mut self, at: Spot, key: &str, problem: impl Into<String>) {
        if self.warnings.len() < TOLD_MAX {
            let warning = self.mistake(at, key, problem.into());
            self.warnings.push(warning);
        }
    }

    /// Adds what is wrong with a document as such.
    pub fn flaw(&mut self, flaw: Flaw) {
        self.wrong(flaw.at, "", flaw.problem);
    }

    /// True when nothing more is told.
    fn is_full(&self) -> bool {
        self.mistakes.len() >= TOLD_MAX
    }

    /// The warnings, or all mistakes, each in the order of the document.
    pub fn end(mut self) -> Result<Vec<Mistake>, Vec<Mistake>> {
        let spot = |mistake: &Mistake| {
            mistake
                .place
                .as_ref()
                .map(|place| (place.line, place.column))
        };
        self.mistakes.sort_by_key(spot);
        self.warnings.sort_by_key(spot);
        if self.is_full() {
            self.mistakes.push(Mistake {
                place: None,
                key: String::new(),
                problem: format!("there may be more: only {TOLD_MAX} mistakes are told"),
            });
        }
        if self.mistakes.is_empty() {
            Ok(self.warnings)
        } else {
            Err(self.mistakes)
        }
    }

    fn mistake(&self, at: Spot, key: &str, problem: String) -> Mistake {
        Mistake {
            place: Some(self.place(at)),
            key: key.to_owned(),
            problem,
        }
    }

    /// A string with its variables filled in, and whether there were any.
    fn fill_in(&mut self, text: &str, at: Spot, key: &str) -> Option<(String, bool)> {
        let variable = variables::has_variable(text);
        if variable && self.remote {
            self.wrong(at, key, "variables are not filled in in etcd, they could carry secrets away: write the value itself ($$ is a dollar sign)");
            return None;
        }
        match variables::fill_in(text) {
            Ok(filled) => Some((filled, variable)),
            Err(problem) => {
                self.wrong(at, key, problem);
                None
            }
        }
    }
}

impl<T> Found<T> {
    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found {
            value: change(self.value),
            at: self.at,
            key: self.key,
        }
    }
}

/// Takes a value as an object whose keys stand below `table` in the table of
/// keys, and reports those that do not.
pub fn object_of<'a>(
    value: &'a Value,
    key: &str,
    table: &'static str,
    report: &mut Report,
) -> Option<Object<'a>> {
    if value.form == Form::Absent && !key.is_empty() {
        report.wrong(value.at, key, NO_KEYS);
        return None;
    }
    let Content::Object(entries) = &value.content else {
        let like = match table {
            "" => LEAST,
            "sources[]" => ENTRY,
            table => keys::find(table).map_or("{}", |key| key.example),
        };
        let got = got(value, Wanted::Object, table);
        report.wrong(
            value.at,
            key,
            format!("must be an object like {like}; {got}"),
        );
        return None;
    };
    let object = Object {
        entries,
        at: value.at,
        key: key.to_owned(),
        table,
    };
    for entry in entries {
        if keys::names_in(table).any(|name| name == entry.name) {
            continue;
        }
        if report.is_full() || report.warnings.len() >= TOLD_MAX {
            break; // Looking for near names takes its time.
        }
        let problem = keys::unknown(table, &entry.name);
        let key = object.path_of(&keys::shown(table, &entry.name));
        if report.remote {
            report.warn(entry.at, &key, problem);
        } else {
            report.wrong(entry.at, &key, problem);
        }
    }
    Some(object)
}

impl<'a> Object<'a> {
    /// An object within it.
    pub fn object(&self, name: &str, report: &mut Report) -> Option<Object<'a>> {
        let entry = self.entry(name)?;
        object_of(
            &entry.value,
            &self.path_of(name),
            self.row(name).path,
            report,
        )
    }

    /// The objects of a list, each with the table's rows below `name[]`.
    pub fn objects(
        &self,
        name: &str,
        table: &'static str,
        report: &mut Report,
    ) -> Option<Vec<Object<'a>>> {
        let entry = self.entry(name)?;
        let Content::List(items) = &entry.value.content else {
            self.wrong_kind(name, &entry.value, report);
            return None;
        };
        Some(objects_of(items, &self.path_of(name), table, report))
    }

    /// True when the key is there, whatever its value.
    pub fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// True when the key's value is a list of nothing.
    pub fn is_empty_list(&self, name: &str) -> bool {
        let entry = self.entry(name);
        entry.is_some_and(|entry| entry.value.content == Content::List(Vec::new()))
    }

    /// Where the value of a key is, or else the object.
    pub fn spot(&self, name: &str) -> Spot {
        self.entry(name).map_or(self.at, |entry| entry.value.at)
    }

    /// The path of a key within it, for people.
    pub fn path_of(&self, name: &str) -> String {
        if self.key.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.key)
        }
    }

    /// Reports a key that is missing, where the object begins.
    pub fn missing(&self, name: &str, report: &mut Report) {
        let example = self.row(name).example;
        self.missing_with(
            name,
            &format!("is missing: give one, like {example}"),
            report,
        );
    }

    /// The same with another problem. Nothing is reported when another key was
    /// taken for a slip of it.
    pub fn missing_with(&self, name: &str, problem: &str, report: &mut Report) {
        let slip = |entry: &Entry| keys::nearest(self.table, &entry.name) == Some(name);
        if report.remote || !self.entries.iter().take(TOLD_MAX).any(slip) {
            report.wrong(self.at, &self.path_of(name), problem);
        }
    }

    /// A string that is not empty.
    pub fn text(&self, name: &str, report: &mut Report) -> Option<Found<String>> {
        let found = self.raw_text(name, report)?.map(|(text, _)| text);
        if found.value.is_empty() {
            report.wrong(
                found.at,
                &found.key,
                format!("is empty: give one, like {}", self.row(name).example),
            );
            return None;
        }
        Some(found)
    }

    /// A string that no message may show, and whether it stands there itself.
    pub fn secret(&self, name: &str, report: &mut Report) -> Option<Found<(String, bool)>> {
        let entry = self.entry(name)?;
        let key = self.path_of(name);
        let Content::Text(text) = &entry.value.content else {
            let kind = entry.value.kind();
            report.wrong(
                entry.value.at,
                &key,
                format!("must be a string, got {kind}: put it in quotes"),
            );
            return None;
        };
        let (text, variable) = report.fill_in(text, entry.value.at, &key)?;
        if text.is_empty() {
            report.wrong(entry.value.at, &key, "is empty");
            return None;
        }
        Some(Found {
            value: (text, !variable),
            at: entry.value.at,
            key,
        })
    }

    /// A list of strings, none of them empty.
    pub fn texts(&self, name: &str, report: &mut Report) -> Option<Vec<Found<String>>> {
        self.texts_with(name, |_| None, report)
    }

    /// The same; `advise` says what to write instead of an object in it.
    pub fn texts_with(
        &self,
        name: &str,
        advise: impl Fn(&[Entry]) -> Option<String>,
        report: &mut Report,
    ) -> Option<Vec<Found<String>>> {
        let entry = self.entry(name)?;
        let key = self.path_of(name);
        let Content::List(items) = &entry.value.content else {
            self.wrong_kind(name, &entry.value, report);
            return None;
        };
        let mut texts = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let key = format!("{key}[{n}]");
            let Content::Text(text) = &item.content else {
                let advice = match &item.content {
                    Content::Object(entries) => advise(entries),
                    _ => None,
                };
                let advice = advice.map_or(String::new(), |advice| format!(": {advice}"));
                let got = got(item, Wanted::Text, self.row(name).path);
                report.wrong(item.at, &key, format!("must be a string; {got}{advice}"));
                continue;
            };
            match report.fill_in(text, item.at, &key) {
                Some((text, _)) if text.is_empty() => {
                    report.wrong(item.at, &key, "is empty: remove it")
                }
                Some((value, _)) => texts.push(Found {
                    value,
                    at: item.at,
                    key,
                }),
                None => {}
            }
        }
        Some(texts)
    }

    /// Names and strings.
    pub fn text_map(
        &self,
        name: &str,
        report: &mut Report,
    ) -> Option<Vec<Found<(String, String)>>> {
        let entry = self.entry(name)?;
        let Content::Object(entries) = &entry.value.content else {
            self.wrong_kind(name, &entry.value, report);
            return None;
        };
        let mut texts = Vec::new();
        for entry in entries {
            let key = format!("{}.{}", self.path_of(name), entry.name.escape_debug());
            let Content::Text(text) = &entry.value.content else {
                let got = got(&entry.value, Wanted::Text, self.row(name).path);
                report.wrong(entry.value.at, &key, format!("must be a string; {got}"));
                continue;
            };
            if let Some((text, _)) = report.fill_in(text, entry.value.at, &key) {
                let value = (entry.name.clone(), text);
                texts.push(Found {
                    value,
                    at: entry.at,
                    key,
                });
            }
        }
        Some(texts)
    }

    /// True or false.
    pub fn flag(&self, name: &str, report: &mut Report) -> Option<bool> {
        let entry = self.entry(name)?;
        let quotes = match entry.value.form {
            Form::Quoted => " without quotes",
            _ => "",
        };
        self.scalar(name, report, |value| match value {
            Scalar::Bool(flag) => Ok(*flag),
            Scalar::Filled("true") => Ok(true),
            Scalar::Filled("false") => Ok(false),
            Scalar::Text(text) => Err(Some(format!(
                "must be true or false{quotes}, got '{}'{}",
                shorten(text),
                meant_flag(text)
            ))),
            _ => Err(None),
        })
    }

    /// A whole number within limits.
    pub fn number(
        &self,
        name: &str,
        limits: RangeInclusive<u64>,
        report: &mut Report,
    ) -> Option<usize> {
        let number = self.scalar(name, report, |value| {
            let (Scalar::Number(text) | Scalar::Filled(text)) = value else {
                return Err(None);
            };
            let number = whole(text)?;
            in_limits(number, &limits, |number| number.to_string(), text)
        })?;
        usize::try_from(number).ok()
    }

    /// A size in bytes within limits.
    pub fn size(
        &self,
        name: &str,
        limits: RangeInclusive<u64>,
        report: &mut Report,
    ) -> Option<usize> {
        let size = self.scalar(name, report, |value| {
            let (size, text) = match value {
                Scalar::Number(text) => (whole(text)?, text),
                Scalar::Text(text) | Scalar::Filled(text) => {
                    let size = parse_size(text).map_err(|problem| Some(about(text, &problem)))?;
                    (size, text)
                }
                _ => return Err(None),
            };
            in_limits(size, &limits, |size| show_size(*size), text)
        })?;
        usize::try_from(size).ok()
    }

    /// A duration within limits.
    pub fn duration(
        &self,
        name: &str,
        limits: RangeInclusive<Duration>,
        report: &mut Report,
    ) -> Option<Duration> {
        self.scalar(name, report, |value| match value {
            Scalar::Number(text) => Err(Some(format!(
                "a duration needs a unit: write \"{text}ms\" or \"{text}s\""
            ))),
            Scalar::Text(text) | Scalar::Filled(text) => {
                let duration =
                    parse_duration(text).map_err(|problem| Some(about(text, &problem)))?;
                in_limits(duration, &limits, |duration| show_duration(*duration), text)
            }
            Scalar::Bool(_) => Err(None),
        })
    }

    /// One of several words.
    pub fn choice<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
        report: &mut Report,
    ) -> Option<T> {
        self.choice_by(name, words, str::eq, report)
    }

    /// One of several words, in capitals or not.
    pub fn choice_in_any_case<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
        report: &mut Report,
    ) -> Option<T> {
        self.choice_by(name, words, str::eq_ignore_ascii_case, report)
    }

    fn choice_by<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
        same: impl Fn(&str, &str) -> bool,
        report: &mut Report,
    ) -> Option<T> {
        let is_secret = keys::is_secret(self.row(name).path);
        self.scalar(name, report, |value| {
            let text = match value {
                Scalar::Text(text) | Scalar::Filled(text) | Scalar::Number(text) => text,
                Scalar::Bool(true) => "true",
                Scalar::Bool(false) => "false",
            };
            let known = words.iter().find(|(word, _)| same(word, text));
            known.map(|(_, meaning)| *meaning).ok_or_else(|| {
                if let [(only, _)] = words {
                    return Some(format!(
                        "only \"{only}\" is supported: write \"{only}\", or leave the key away"
                    ));
                }
                let due = alternatives(words.iter().map(|(word, _)| *word));
                Some(match is_secret {
                    true => format!("must be {due}"),
                    false => format!("must be {due}, got '{}'", shorten(text)),
                })
            })
        })
    }

    /// What a string says, as it parses.
    pub fn parsed<T: FromStr>(&self, name: &str, report: &mut Report) -> Option<Found<T>> {
        let found = self.text(name, report)?;
        let value = found.value.parse();
        let Ok(value) = value else {
            let kind = self.row(name).kind;
            report.wrong(
                found.at,
                &found.key,
                format!("must be {kind}, got '{}'", shorten(&found.value)),
            );
            return None;
        };
        Some(Found {
            value,
            at: found.at,
            key: found.key,
        })
    }

    /// A path; a relative one is taken from `directory`.
    pub fn path(
        &self,
        name: &str,
        directory: &Path,
        report: &mut Report,
    ) -> Option<Found<PathBuf>> {
        let found = self.text(name, report)?;
        if let Some(problem) = no_path(&found.value) {
            report.wrong(found.at, &found.key, problem);
            return None;
        }
        if is_home(&found.value) {
            report.warn(found.at, &found.key, NO_HOME);
        }
        Some(found.map(|text| directory.join(text).components().collect()))
    }

    /// A scalar, with a string's variables filled in, as `take` understands it.
    /// Its error is what is wrong, or `None` when it is another kind of value.
    fn scalar<T>(
        &self,
        name: &str,
        report: &mut Report,
        take: impl FnOnce(&Scalar) -> Result<T, Option<String>>,
    ) -> Option<T> {
        let entry = self.entry(name)?;
        let (at, key) = (entry.value.at, self.path_of(name));
        let filled;
        let scalar = match &entry.value.content {
            Content::Bool(flag) => Scalar::Bool(*flag),
            Content::Number(text) => Scalar::Number(text),
            Content::Text(text) => {
                filled = report.fill_in(text, at, &key)?;
                if filled.1 {
                    Scalar::Filled(&filled.0)
                } else {
                    Scalar::Text(text)
                }
            }
            _ => {
                self.wrong_kind(name, &entry.value, report);
                return None;
            }
        };
        match take(&scalar) {
            Ok(value) => Some(value),
            Err(Some(problem)) => {
                report.wrong(at, &key, problem);
                None
            }
            Err(None) => {
                self.wrong_kind(name, &entry.value, report);
                None
            }
        }
    }

    fn raw_text(&self, name: &str, report: &mut Report) -> Option<Found<(String, bool)>> {
        let entry = self.entry(name)?;
        let Content::Text(text) = &entry.value.content else {
            self.wrong_kind(name, &entry.value, report);
            return None;
        };
        let key = self.path_of(name);
        let value = report.fill_in(text, entry.value.at, &key)?;
        Some(Found {
            value,
            at: entry.value.at,
            key,
        })
    }

    fn wrong_kind(&self, name: &str, value: &Value, report: &mut Report) {
        let row = self.row(name);
        let wanted = Wanted::of(row.kind);
        if value.form == Form::Absent && wanted == Wanted::List {
            report.wrong(value.at, &self.path_of(name), NO_ITEMS);
            return;
        }
        let like = if row.kind.contains("like") || row.kind.contains(" or false") {
            String::new()
        } else {
            format!(" like {}", row.example)
        };
        let problem = format!(
            "must be {}{like}; {}",
            row.kind,
            got(value, wanted, row.path)
        );
        report.wrong(value.at, &self.path_of(name), problem);
    }

    fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.row(name); // Nothing is read that is not in the table.
        self.entries.iter().find(|entry| entry.name == name)
    }

    fn row(&self, name: &str) -> &'static keys::Key {
        let path = if self.table.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.table)
        };
        keys::find(&path).unwrap_or_else(|| panic!("{path} is missing from the table of keys"))
    }
}

/// What is wrong with a text that cannot be meant as a path.
pub fn no_path(text: &str) -> Option<&'static str> {
    if text.contains('\0') {
        Some("holds a NUL character, which no file name can hold")
    } else if text.trim_end_matches(['\n', '\r']).contains(['\n', '\r']) {
        Some("holds a line break: a backslash is written \\\\")
    } else if text.ends_with(['\n', '\r']) {
        Some("ends with a line break: remove it")
    } else if text.contains('\t') {
        Some("holds a tab: a backslash is written \\\\")
    } else {
        None
    }
}

/// True for a path that a shell would take from somebody's home.
pub fn is_home(text: &str) -> bool {
    text == "~" || text.starts_with("~/")
}

/// The objects of a list.
pub fn objects_of<'a>(
    items: &'a [Value],
    key: &str,
    table: &'static str,
    report: &mut Report,
) -> Vec<Object<'a>> {
    let items = items.iter().enumerate();
    items
        .filter_map(|(n, item)| object_of(item, &format!("{key}[{n}]"), table, report))
        .collect()
}

/// A value that is no list and no object.
enum Scalar<'a> {
    Bool(bool),
    Number(&'a str),
    Text(&'a str),
    /// A string that held variables: it may stand for any kind of value.
    Filled(&'a str),
}

/// Words as a choice: `"a", "b" or "c"`.
fn alternatives<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    let last = words.pop().unwrap_or_default();
    match words.as_slice() {
        [] => last,
        others => format!("{} or {last}", others.join(", ")),
    }
}

/// What to write instead of a word that means true or false elsewhere.
fn meant_flag(text: &str) -> &'static str {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" | "1" => ": write true",
        "no" | "n" | "off" | "0" => ": write false",
        _ => "",
    }
}

/// A whole number; what is wrong with it otherwise.
fn whole(text: &str) -> Result<u64, Option<String>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let problem = if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        format!("must be a whole number, got {}", shorten(text))
    } else if digits != text && digits.chars().any(|c| c != '0') {
        format!("must not be negative, got {}", shorten(text))
    } else {
        // More than fits is above every limit.
        return Ok(digits.parse().unwrap_or(u64::MAX));
    };
    Err(Some(problem))
}

fn in_limits<T: PartialOrd>(
    value: T,
    limits: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
    text: &str,
) -> Result<T, Option<String>> {
    if limits.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (show(limits.start()), show(limits.end()));
    Err(Some(format!(
        "must be from {least} to {most}, got {}",
        shorten(text)
    )))
}

/// What would have been right, as far as there is something to say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Text,
    Pattern,
    Number,
    List,
    Object,
    Other,
}

impl Wanted {
    /// By the table's words.
    fn of(kind: &str) -> Wanted {
        match kind {
            "a string" | "a path" => Wanted::Text,
            "a path or a pattern" => Wanted::Pattern,
            "a whole number" => Wanted::Number,
            "a list of strings" | "a list of objects" => Wanted::List,
            "an object" => Wanted::Object,
            _ => Wanted::Other,
        }
    }
}

/// What a value is instead of what was due at this path of the table.
fn got(value: &Value, wanted: Wanted, path: &str) -> String {
    let got = match &value.content {
        _ if keys::is_secret(path) => value.kind().to_owned(),
        Content::Null => "null".to_owned(),
        Content::Bool(flag) => flag.to_string(),
        Content::Number(number) => format!("the number {}", shorten(number)),
        Content::Text(text) => format!("the string '{}'", shorten(text)),
        Content::List(_) | Content::Object(_) => value.kind().to_owned(),
    };
    let advice = match (&value.content, wanted) {
        (Content::Null, _) => ": give a value, or leave the key out",
        (Content::Bool(_) | Content::Number(_), Wanted::Text | Wanted::Pattern) => {
            ": put it in quotes"
        }
        (Content::List(_), Wanted::Pattern) => {
            ": use one source a path, or a pattern like \"/{a,b}\""
        }
        (Content::Text(text), Wanted::Number) if text.parse::<u64>().is_ok() => {
            ": remove the quotes"
        }
        (Content::Text(_), Wanted::List) => ": put it in [ ]",
        (Content::Object(_), Wanted::List) => ": put it in [ ], or in YAML behind a '- '",
        _ => "",
    };
    format!("got {got}{advice}")
}

fn about(text: &str, problem: &str) -> String {
    format!("'{}': {problem}", shorten(text))
}

/// The beginning of a text, as a message can show it.
pub fn shorten(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars
        .by_ref()
        .take(QUOTE_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if chars.next().is_some() {
        short.push_str("...");
    }
    short
}
