//! Finds the files that patterns match, now and later.
//!
//! It walks directories and tells of paths nobody tails yet. It opens no file.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use globset::{GlobBuilder, GlobMatcher};

use crate::text::shown;
use crate::thread::Stop;

use super::registry::Registry;

/// Characters that make a path a pattern.
const META: &[char] = &['*', '?', '[', '{'];
/// Directories below which a `**` does not look.
const DEPTH_MAX: usize = 64;

/// A glob pattern for paths: `*` and `?` within a name, `**` over directories,
/// `[...]` and `{a,b}`. Names that begin with a dot are matched only by a
/// pattern whose last component begins with one, as in a shell.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    base: PathBuf,
    matcher: GlobMatcher,
    depth_max: usize,
    hidden: bool,
}

/// A path that matches and has no tailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The path.
    pub path: PathBuf,
    /// It was there at the first look.
    pub first: bool,
}

impl Pattern {
    /// True when a path holds characters that mean something in a pattern.
    pub fn is_pattern(text: &str) -> bool {
        text.contains(META)
    }

    /// Parses a pattern; a relative one is taken from `directory`.
    pub fn new(text: &str, directory: &Path) -> Result<Pattern, String> {
        let absolute = if text.starts_with('/') {
            text.to_owned()
        } else {
            let here = directory
                .to_str()
                .ok_or("the current directory is not UTF-8: give an absolute pattern")?;
            format!("{}/{text}", globset::escape(here).trim_end_matches('/'))
        };
        // Doubled slashes and '.' say nothing, and match no path as it is walked.
        let parts = absolute.split('/').filter(|part| !["", "."].contains(part));
        let absolute: String = parts.flat_map(|part| ["/", part]).collect();
        let matcher = GlobBuilder::new(&absolute)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| error.kind().to_string())?
            .compile_matcher();
        let (base, rest) = split_base(&absolute);
        let last = rest.last().map_or("", String::as_str);
        Ok(Pattern {
            text: text.to_owned(),
            base,
            matcher,
            depth_max: if rest.iter().any(|part| part.contains("**")) {
                DEPTH_MAX
            } else {
                rest.len()
            },
            hidden: last.starts_with('.'),
        })
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All regular files that match, sorted; symlinks to files count. A directory
    /// that cannot be read is passed to `trouble`.
    pub fn matches(&self, trouble: &mut dyn FnMut(&Path, &io::Error)) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.walk(&self.base, 1, &mut found, trouble);
        found.sort();
        found
    }

    fn walk(
        &self,
        directory: &Path,
        depth: usize,
        found: &mut Vec<PathBuf>,
        trouble: &mut dyn FnMut(&Path, &io::Error),
    ) {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return trouble(directory, &error),
        };
        for entry in entries.flatten() {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if hidden && !self.hidden {
                continue;
            }
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let path = entry.path();
            if kind.is_dir() {
                if depth < self.depth_max {
                    self.walk(&path, depth + 1, found, trouble);
                }
                continue;
            }
            // A link to a directory is not followed: it could lead in a circle.
            let is_file = || {
                kind.is_file()
                    || (kind.is_symlink() && fs::metadata(&path).is_ok_and(|m| m.is_file()))
            };
            if self.matcher.is_match(&path) && is_file() {
                found.push(path);
            }
        }
    }
}

/// The directory where a pattern begins to vary, and its components from there.
fn split_base(absolute: &str) -> (PathBuf, Vec<String>) {
    let mut base = PathBuf::from("/");
    let mut rest = Vec::new();
    let parts = Path::new(absolute).components();
    for part in parts.filter(|part| *part != Component::RootDir) {
        let text = part.as_os_str().to_string_lossy();
        if rest.is_empty() && !text.contains(META) && !text.contains('\\') {
            base.push(&*text);
        } else {
            rest.push(text.into_owned());
        }
    }
    if rest.is_empty() {
        // No meta character at all: the last name is what varies.
        let last = base
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        base.pop();
        rest.extend(last);
    }
    (base, rest)
}

/// Looks for new files, again and again.
#[derive(Debug)]
pub struct Discovery {
    patterns: Vec<Pattern>,
    registry: Registry,
    topic: Arc<str>,
    first: bool,
    told: HashSet<PathBuf>,
}

impl Discovery {
    /// A discovery for these patterns, all for one topic.
    pub fn new(patterns: Vec<Pattern>, registry: Registry, topic: Arc<str>) -> Discovery {
        Discovery {
            patterns,
            registry,
            topic,
            first: true,
            told: HashSet::new(),
        }
    }

    /// One look: the paths that match and have no tailer.
    pub fn scan(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        for at in 0..self.patterns.len() {
            let mut troubles = Vec::new();
            let paths = self.patterns[at].matches(&mut |path, error| {
                troubles.push((path.to_owned(), error.to_string()));
            });
            for (path, error) in troubles {
                if self.told.insert(path.clone()) {
                    log::warn!("cannot read directory={} error={error}", shown(&path));
                }
            }
            for path in paths {
                if self.is_new(&path) {
                    let first = self.first;
                    found.push(Found { path, first });
                }
            }
        }
        self.first = false;
        found.dedup();
        found
    }

    fn is_new(&mut self, path: &Path) -> bool {
        if self.registry.has_path(path) {
            return false;
        }
        let Ok(meta) = fs::metadata(path) else {
            return false;
        };
        let key = (meta.dev(), meta.ino(), Arc::clone(&self.topic));
        let Some(holder) = self.registry.holder(&key) else {
            return true;
        };
        // A renamed file that its tailer still holds is no news; one that stands
        // under both names is.
        let twice = fs::metadata(&holder)
            .is_ok_and(|held| (held.dev(), held.ino()) == (meta.dev(), meta.ino()));
        if twice && self.told.insert(path.to_owned()) {
            log::warn!(
                "{} is the same file as {}, and is tailed once",
                shown(path),
                shown(&holder)
            );
        }
        false
    }

    /// The body of the discovery thread.
    pub fn run(mut self, every: Duration, found: &Sender<Found>, stop: &Stop) {
        while !stop.requested() {
            stop.sleep(every);
            for new in self.scan() {
                if found.send(new).is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path, pattern: &str) -> Vec<String> {
        let mut none = |path: &Path, error: &io::Error| panic!("{path:?}: {error}");
        Pattern::new(pattern, root)
            .unwrap()
            .matches(&mut none)
            .iter()
            .map(|path| path.strip_prefix(root).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn patterns_match_like_a_shells() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::create_dir_all(root.join("[x]")).unwrap();
        for name in [
            "1.log",
            "2.log",
            ".hidden.log",
            "a/3.log",
            "a/b/c/4.log",
            "[x]/5.log",
        ] {
            fs::write(root.join(name), "").unwrap();
        }
        assert_eq!(names(root, "*.log"), ["1.log", "2.log"]);
        assert_eq!(names(root, "./?.log"), ["1.log", "2.log"]);
        assert_eq!(names(root, ".//a/./b//c/*.log"), ["a/b/c/4.log"]);
        assert_eq!(names(root, "*/*.log"), ["[x]/5.log", "a/3.log"]);
        assert_eq!(names(root, "a/**/*.log"), ["a/3.log", "a/b/c/4.log"]);
        assert_eq!(names(root, "{1,9}.log"), ["1.log"]);
        assert_eq!(names(root, ".h*"), [".hidden.log"]);
        assert_eq!(names(&root.join("[x]"), "*.log"), ["5.log"]);
        assert_eq!(names(root, "none*"), Vec::<String>::new());
    }

    #[test]
    fn a_malformed_pattern_is_refused() {
        for text in ["[", "{a", "a[b-"] {
            assert!(Pattern::new(text, Path::new("/")).is_err(), "{text}");
        }
    }
}
