//! What one value would change, entry by entry.
//!
//! Entries are paired by path and topic, then those that are left by path: a
//! path that gets another topic has changed.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::cli::check::settings;
use crate::tail::Source;
use crate::text::shown;

/// From one list of sources to another.
#[derive(Debug)]
pub struct Changes<'a> {
    added: Vec<&'a Source>,
    removed: Vec<&'a Source>,
    /// As it was, and as it becomes.
    changed: Vec<(&'a Source, &'a Source)>,
    line_bytes_max: usize,
}

impl<'a> Changes<'a> {
    /// Compares two lists. `line_bytes_max` is what holds where nothing is said.
    pub fn between(
        old: &'a [Arc<Source>],
        new: &'a [Arc<Source>],
        line_bytes_max: usize,
    ) -> Changes<'a> {
        let mut removed: Vec<&Source> = old.iter().map(Arc::as_ref).collect();
        let mut added: Vec<&Source> = new.iter().map(Arc::as_ref).collect();
        let mut pairs = pair(&mut removed, &mut added, |old, new| {
            path(old) == path(new) && old.job.topic == new.job.topic
        });
        pairs.extend(pair(&mut removed, &mut added, |old, new| {
            path(old) == path(new)
        }));
        pairs.retain(|(old, new)| differ(old, new));
        Changes {
            added,
            removed,
            changed: pairs,
            line_bytes_max,
        }
    }

    /// How many of each.
    pub fn summary(&self) -> String {
        let counts = [
            (self.added.len(), "added"),
            (self.removed.len(), "removed"),
            (self.changed.len(), "changed"),
        ];
        let said = counts.iter().filter(|(count, _)| *count > 0);
        let said: Vec<String> = said
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        match said.is_empty() {
            true => "no entry changes".to_owned(),
            false => said.join(", "),
        }
    }

    /// A line for each, and for a changed one how it was; `colour` for terminals.
    pub fn describe(&self, colour: bool) -> String {
        let mut out = String::new();
        let mut tell = |sign: &str, code: &str, text: String| {
            let _ = match colour {
                true => writeln!(out, "  \x1b[{code}m{sign} {text}\x1b[0m"),
                false => writeln!(out, "  {sign} {text}"),
            };
        };
        for source in &self.removed {
            tell("-", "31", self.entry(source));
        }
        for source in &self.added {
            tell("+", "32", self.entry(source));
        }
        for (old, new) in &self.changed {
            let (old, new) = (self.entry(old), self.entry(new));
            tell("~", "33", format!("{new}\n      was {old}"));
        }
        out
    }

    fn entry(&self, source: &Source) -> String {
        let (path, topic) = (shown(source.pattern.text()), &source.job.topic);
        let settings = settings(source, self.line_bytes_max);
        match settings.is_empty() {
            true => format!("{path} -> {topic}"),
            false => format!("{path} -> {topic} ({})", settings.join(", ")),
        }
    }
}

fn path(source: &Source) -> &str {
    source.pattern.absolute()
}

fn differ(old: &Source, new: &Source) -> bool {
    let texts = |source: &Source| -> Vec<String> {
        let texts = source
            .exclude
            .iter()
            .map(|exclude| exclude.text().to_owned());
        texts.collect()
    };
    old.job.hash64() != new.job.hash64() || texts(old) != texts(new)
}

/// Takes those out of both lists that belong together.
fn pair<'a>(
    old: &mut Vec<&'a Source>,
    new: &mut Vec<&'a Source>,
    same: impl Fn(&Source, &Source) -> bool,
) -> Vec<(&'a Source, &'a Source)> {
    let mut pairs = Vec::new();
    old.retain(|one| {
        let Some(at) = new.iter().position(|other| same(one, other)) else {
            return true;
        };
        pairs.push((*one, new.remove(at)));
        false
    });
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FileConfig, read_value};

    fn sources(json: &str) -> Vec<Arc<Source>> {
        let config = FileConfig::bare("host".into());
        read_value("/k", json.as_bytes(), &config).unwrap().0
    }

    #[track_caller]
    fn told(old: &str, new: &str) -> (String, String) {
        let (old, new) = (sources(old), sources(new));
        let config = FileConfig::bare("host".into());
        let changes = Changes::between(&old, &new, config.line_bytes_max());
        let lines: Vec<_> = changes
            .describe(false)
            .lines()
            .map(str::trim)
            .map(str::to_owned)
            .collect();
        (changes.summary(), lines.join("|"))
    }

    #[test]
    fn entries_are_paired_by_path_and_topic_then_by_path() {
        let a = r#"{"path":"/l/a","topic":"a"}"#;
        let b = r#"{"path":"/l/b","topic":"b"}"#;
        let moved = r#"{"path":"/l/a","topic":"x"}"#;
        let json = r#"{"path":"/l/b","topic":"b","format":"json","exclude":["*.gz"]}"#;
        for (old, new, summary, lines) in [
            ("[]", format!("[{a}]"), "1 added", "+ /l/a -> a"),
            (
                &format!("[{a},{b}]"),
                format!("[{b}]"),
                "1 removed",
                "- /l/a -> a",
            ),
            (
                &format!("[{a},{b}]"),
                format!("[{b}, {a}]"),
                "no entry changes",
                "",
            ),
            (
                &format!("[{a}]"),
                format!("[{moved}]"),
                "1 changed",
                "~ /l/a -> x|was /l/a -> a",
            ),
            (
                &format!("[{a}]"),
                format!("[{moved},{a}]"),
                "1 added",
                "+ /l/a -> x",
            ),
            (
                &format!("[{b}]"),
                format!("[{json}]"),
                "1 changed",
                "~ /l/b -> b (exclude *.gz, format json)|was /l/b -> b",
            ),
        ] {
            let told = told(old, &new);
            assert_eq!(
                (told.0.as_str(), told.1.as_str()),
                (summary, lines),
                "{old} {new}"
            );
        }
    }
}
