//! Glob patterns for paths.
//!
//! A pattern says which paths it matches and where to look for them. It looks at
//! no directory itself.

use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

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
    absolute: String,
    base: PathBuf,
    matcher: GlobMatcher,
    literal: Option<PathBuf>,
    /// What every match begins with.
    prefix: Vec<u8>,
    depth_max: usize,
    hidden: bool,
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
            .map_err(|error| glob_problem(&error))?
            .compile_matcher();
        let (base, rest) = split_base(&absolute);
        let last = rest.last().map_or("", String::as_str);
        let variable = absolute.contains(META) || absolute.contains('\\');
        Ok(Pattern {
            text: text.to_owned(),
            absolute: absolute.clone(),
            prefix: absolute
                .bytes()
                .take_while(|byte| !(META.contains(&char::from(*byte)) || *byte == b'\\'))
                .collect(),
            literal: (!variable).then(|| PathBuf::from(&absolute)),
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

    /// The same from the root on, without what says nothing.
    pub fn absolute(&self) -> &str {
        &self.absolute
    }

    /// The one path that it matches, if there is nothing variable in it.
    pub fn literal(&self) -> Option<&Path> {
        self.literal.as_deref()
    }

    /// True for a path that it matches, and that a search finds.
    pub fn is_match(&self, path: &Path) -> bool {
        let below = || path.strip_prefix(&self.base).unwrap_or(path);
        self.fits(path) && (self.literal.is_some() || self.hidden || !has_hidden(below()))
    }

    /// True for a path with a fitting name, also where a search passes it over.
    pub fn fits(&self, path: &Path) -> bool {
        match &self.literal {
            Some(literal) => literal.as_os_str() == path.as_os_str(),
            None => {
                // Most paths fail here, at a fraction of the matcher's cost.
                let begins = path
                    .as_os_str()
                    .as_encoded_bytes()
                    .starts_with(&self.prefix);
                begins && self.matcher.is_match(path)
            }
        }
    }

    /// The directory from which on paths vary.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// How many directories below and including the base may hold matches.
    pub fn depth_max(&self) -> usize {
        self.depth_max
    }

    /// True when names that begin with a dot may match.
    pub fn matches_hidden(&self) -> bool {
        self.hidden
    }
}

/// True when a name in a path begins with a dot.
fn has_hidden(path: &Path) -> bool {
    let mut names = path.components().map(Component::as_os_str);
    names.any(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// What is wrong with a pattern.
pub fn glob_problem(error: &globset::Error) -> String {
    error.kind().to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_pattern_is_refused() {
        for text in ["[", "{a", "a[b-"] {
            assert!(Pattern::new(text, Path::new("/")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_without_anything_variable_is_one_path() {
        let literal = |text| {
            Pattern::new(text, Path::new("/here"))
                .unwrap()
                .literal()
                .map(Path::to_owned)
        };
        assert_eq!(literal("/a/./b.log"), Some(PathBuf::from("/a/b.log")));
        assert_eq!(literal("b.log"), Some(PathBuf::from("/here/b.log")));
        assert_eq!(literal("/a/*.log"), None);
        assert_eq!(literal(r"/a/\*.log"), None);
    }
}
