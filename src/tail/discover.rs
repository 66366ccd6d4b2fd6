//! Finds the files that patterns match, now and later, and wakes those that sleep.
//!
//! It asks directories and sleeping files whether they changed, and tells of paths
//! nobody tails yet. It opens no file.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, select};
use globset::{GlobBuilder, GlobMatcher};

use crate::text::{as_value, shown};
use crate::thread::{Stop, fault_point};

use super::Job;
use super::input::created_ns;
use super::listing::Listings;
use super::pattern::{Pattern, glob_problem};
use super::registry::Registry;
use super::sleeper::Sleeper;
use super::tailer::{check_file, stands_at};
use super::tree::{Kind, Tree};

/// How often sleeping files are looked at while that costs little: bounds how
/// late a rotation of one is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Files, or directories of files, that are looked at so often at most.
const LOOKS_MAX: usize = 256;
/// Paths about which something was told once, at most.
const TOLD_MAX: usize = 10_000;

/// Files to be tailed, and what is done with their lines. Two that look for the
/// same and do the same with it are equal.
#[derive(Debug)]
pub struct Source {
    /// Which files.
    pub pattern: Pattern,
    /// Which of them not.
    pub exclude: Vec<Exclude>,
    /// What is done with their lines.
    pub job: Arc<Job>,
    /// Where it was configured, for people: a file, an etcd key.
    pub origin: Arc<str>,
    /// It came from etcd: when it is taken away, its files are drained first.
    pub remote: bool,
    /// Files that matched at the last look.
    pub matched: AtomicUsize,
}

/// A pattern for files that are left alone: without a slash for their names,
/// with one for their whole path.
#[derive(Debug, Clone)]
pub struct Exclude {
    text: String,
    matcher: GlobMatcher,
    whole_path: bool,
}

/// A path that matches and has no tailer.
#[derive(Debug, Clone)]
pub struct Found {
    /// The path.
    pub path: PathBuf,
    /// What it matches.
    pub source: Arc<Source>,
    /// It was there at the first look for this source.
    pub first: bool,
    /// Device and inode of what stands there, and when that was created.
    pub inode: Option<(u64, u64, Option<u64>)>,
    /// When it was not there yet.
    pub missing_at: Option<SystemTime>,
}

/// What is told to whoever starts tailers.
#[derive(Debug)]
pub enum News {
    /// A path has no tailer.
    Found(Found),
    /// A sleeping path is not what it was, or its source has changed.
    Woken(Box<Sleeper>),
}

/// What a discovery is told.
#[derive(Debug)]
pub enum Request {
    /// This path sleeps from now on.
    Watch(Box<Sleeper>),
    /// Look for these from now on, this often.
    Follow(Vec<Arc<Source>>, Duration),
}

impl Exclude {
    /// Parses a pattern; a relative one with a slash is taken from `directory`.
    pub fn new(text: &str, directory: &Path) -> Result<Exclude, String> {
        let whole_path = text.contains('/');
        let absolute = if whole_path && !text.starts_with('/') {
            let here = directory.to_str().ok_or("give an absolute pattern")?;
            format!("{}/{text}", globset::escape(here).trim_end_matches('/'))
        } else {
            text.to_owned()
        };
        let glob = GlobBuilder::new(&absolute)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| glob_problem(&error))?;
        Ok(Exclude {
            text: text.to_owned(),
            matcher: glob.compile_matcher(),
            whole_path,
        })
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True for a path that is left alone.
    pub fn matches(&self, path: &Path) -> bool {
        if self.whole_path {
            self.matcher.is_match(path)
        } else {
            path.file_name()
                .is_some_and(|name| self.matcher.is_match(name))
        }
    }
}

impl Source {
    /// A source of the files that match a pattern.
    pub fn new(pattern: Pattern, job: Arc<Job>) -> Source {
        Source {
            pattern,
            exclude: Vec::new(),
            job,
            origin: Arc::from(""),
            remote: false,
            matched: AtomicUsize::new(0),
        }
    }

    /// True for a path that is to be tailed.
    pub fn wants(&self, path: &Path) -> bool {
        self.pattern.is_match(path) && !self.excludes(path)
    }

    fn excludes(&self, path: &Path) -> bool {
        self.exclude.iter().any(|exclude| exclude.matches(path))
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        let texts = |source: &Source| -> Vec<String> {
            source
                .exclude
                .iter()
                .map(|exclude| exclude.text.clone())
                .collect()
        };
        self.pattern.text() == other.pattern.text()
            && texts(self) == texts(other)
            && (self.remote, &self.origin) == (other.remote, &other.origin)
            && self.job.hash64() == other.job.hash64()
    }
}

/// A source and what was found for it.
#[derive(Debug)]
struct Watched {
    source: Arc<Source>,
    /// It was never looked for.
    first: bool,
    /// When it was looked for last, and before that: a look may fall between a rename and
    /// the next file, and find nothing where something was all the time.
    looked: [Option<SystemTime>; 2],
    /// The registry's count of changes when all matches were last looked up in it.
    compared: Option<u64>,
    /// The directories that were walked, and which version of each.
    walked: Vec<(PathBuf, u64)>,
    matches: Vec<(PathBuf, Kind)>,
}

/// Looks for new files, again and again, and after those that sleep.
#[derive(Debug)]
pub struct Discovery {
    watched: Vec<Watched>,
    tree: Tree,
    registry: Registry,
    told: HashSet<PathBuf>,
    /// Directories that could not be read, and why.
    unreadable: Vec<(PathBuf, io::Error)>,
    sleepers: Sleepers,
    /// Its thread runs: there is nobody else to tell what was not found.
    running: bool,
}

impl Discovery {
    /// A discovery for these sources.
    pub fn new(sources: Vec<Arc<Source>>, registry: Registry) -> Discovery {
        let mut discovery = Discovery {
            watched: Vec::new(),
            tree: Tree::default(),
            registry,
            told: HashSet::new(),
            unreadable: Vec::new(),
            sleepers: Sleepers::default(),
            running: false,
        };
        discovery.follow(sources);
        discovery
    }

    /// One that takes the place of another: it is not the first to look.
    pub fn again(sources: Vec<Arc<Source>>, registry: Registry) -> Discovery {
        let mut discovery = Discovery::new(sources, registry);
        for watched in &mut discovery.watched {
            watched.first = false;
        }
        discovery
    }

    /// Looks for these sources from now on. One that is as it was keeps what is
    /// known of it.
    fn follow(&mut self, sources: Vec<Arc<Source>>) {
        let mut known: Vec<Watched> = std::mem::take(&mut self.watched);
        let watch = |source: Arc<Source>| {
            let same = |old: &Watched| {
                old.source.pattern.text() == source.pattern.text()
                    && old.source.job.topic == source.job.topic
            };
            let old = known.iter().position(same).map(|at| known.swap_remove(at));
            Watched {
                source,
                first: old.as_ref().is_none_or(|old| old.first),
                looked: old.map_or([None; 2], |old| old.looked),
                compared: None,
                walked: Vec::new(),
                matches: Vec::new(),
            }
        };
        self.watched = sources.into_iter().map(watch).collect();
    }

    /// One look: the paths that match and have no tailer.
    pub fn scan(&mut self) -> Vec<Found> {
        self.tree.begin_round();
        let now = SystemTime::now();
        let mut found = Vec::new();
        let mut watched = std::mem::take(&mut self.watched);
        for one in &mut watched {
            let changes = self.registry.changes(); // first: what comes after is seen next time
            let refreshed = self.refresh(one);
            let compared = one.compared.replace(changes) == Some(changes);
            let first = std::mem::take(&mut one.first);
            let looked = match first {
                true => [None; 2],
                false => one.looked,
            };
            one.looked = [Some(now), looked[0]];
            let mut any = false;
            for (path, kind) in &one.matches {
                // Where a link leads may change without its directory changing.
                let link = *kind == Kind::Link;
                if compared && !refreshed && !link {
                    continue;
                }
                if link && !fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
                    continue;
                }
                any = true;
                if fs::metadata(path).is_err() {
                    one.looked = looked; // between a rename and the next file: not seen yet
                }
                if self.is_new(path, &one.source.job.topic) && self.is_permitted(path, &one.source)
                {
                    found.push(Found {
                        path: path.clone(),
                        source: Arc::clone(&one.source),
                        first,
                        inode: inode_at(path),
                        missing_at: looked[1].or(looked[0]),
                    });
                }
            }
            if first && !any && self.running {
                self.tell_of_nothing(&one.source, false);
            }
        }
        self.watched = watched;
        self.tree.end_round();
        found
    }

    /// The sources for which nothing was found at the last look.
    pub fn without_files(&self) -> impl Iterator<Item = &Arc<Source>> {
        let empty = |one: &&Watched| one.source.matched.load(Ordering::Relaxed) == 0;
        self.watched.iter().filter(empty).map(|one| &one.source)
    }

    /// The directories that could not be read, and why.
    pub fn unreadable(self) -> Vec<(PathBuf, io::Error)> {
        self.unreadable
    }

    /// Looks which files match, if a directory has changed since the last look.
    /// False when none has.
    fn refresh(&mut self, one: &mut Watched) -> bool {
        if let Some(path) = one.source.pattern.literal() {
            // A link may lead to what is no file: then there is nothing to tail.
            let is_file = fs::metadata(path).is_ok_and(|meta| meta.is_file());
            let there = is_file && !one.source.excludes(path);
            one.matches.clear();
            if there {
                one.matches.push((path.to_owned(), Kind::File));
            }
        } else {
            let tree = &mut self.tree;
            let mut same =
                |(directory, version): &(PathBuf, u64)| tree.version(directory) == *version;
            if !one.walked.is_empty() && one.walked.iter().all(&mut same) {
                return false;
            }
            one.walked.clear();
            one.matches.clear();
            walk(tree, one, one.source.pattern.base().to_owned(), 1);
            one.matches.sort();
            for (path, error) in self.tree.troubles() {
                if self.is_news(&path) {
                    log::warn!("cannot read directory={} error={error}", as_value(&path));
                    self.unreadable.push((path, error));
                }
            }
        }
        one.source
            .matched
            .store(one.matches.len(), Ordering::Relaxed);
        true
    }

    /// Says that nothing was found for a source, `once` and for all or yet.
    pub fn tell_of_nothing(&self, source: &Source, once: bool) {
        let text = shown(source.pattern.text());
        let literal = source.pattern.literal();
        match literal.and_then(|path| check_file(path).err()) {
            Some(problem) => log::warn!("cannot tail {text}: {problem} (trying again)"),
            None if once => log::warn!("no file matches '{text}'"),
            None => log::info!("no file matches '{text}' yet"),
        }
    }

    /// True the first time that something is to be told about a path.
    fn is_news(&mut self, path: &Path) -> bool {
        self.told.len() < TOLD_MAX && self.told.insert(path.to_owned())
    }

    /// Asked before anybody opens it, so that it is told once.
    fn is_permitted(&mut self, path: &Path, source: &Source) -> bool {
        let Some(fence) = &source.job.fence else {
            return true;
        };
        let permitted = fence.permits(path);
        if !permitted && self.is_news(path) {
            log::warn!(
                "{} is outside of what may be read for {}: see etcd.allowed_paths and etcd.denied_paths",
                shown(path),
                source.origin
            );
        }
        permitted
    }

    fn is_new(&mut self, path: &Path, topic: &Arc<str>) -> bool {
        if self
            .registry
            .has_path(&(path.to_owned(), Arc::clone(topic)))
        {
            return false;
        }
        let Ok(meta) = fs::metadata(path) else {
            return false;
        };
        let key = (meta.dev(), meta.ino(), Arc::clone(topic));
        let Some(holder) = self.registry.holder(&key) else {
            return true;
        };
        // A renamed file that its tailer still holds is no news; one that stands
        // under both names is.
        if stands_at(&meta, &holder) && self.is_news(path) {
            log::warn!(
                "{} is the same file as {}, and is tailed once",
                shown(path),
                shown(&holder)
            );
        }
        false
    }

    /// The body of the discovery thread.
    pub fn run(
        mut self,
        mut every: Duration,
        listings: &Listings,
        requests: &Receiver<Request>,
        news: &Sender<News>,
        stop: &Stop,
    ) {
        let mut next_scan = Instant::now() + every;
        self.running = true;
        loop {
            fault_point("discover");
            let next = if self.sleepers.is_empty() {
                next_scan
            } else {
                next_scan.min(Instant::now() + LOOK_EVERY)
            };
            select! {
                recv(requests) -> request => match request {
                    Ok(Request::Watch(sleeper)) => self.sleepers.add(*sleeper),
                    Ok(Request::Follow(sources, interval)) => {
                        (every, next_scan) = (interval, Instant::now());
                        self.follow(sources);
                        let disturbed = self.sleepers.whose_source_changed(&self.watched);
                        if !send_all(news, disturbed) {
                            return;
                        }
                    }
                    Err(_) => return,
                },
                recv(stop.signal()) -> _ => return,
                default(next.saturating_duration_since(Instant::now())) => {
                    let scanning = Instant::now() >= next_scan;
                    let disturbed = self.sleepers.look(scanning, listings);
                    if !send_all(news, disturbed) {
                        return;
                    }
                    if scanning {
                        for found in self.scan() {
                            if news.send(News::Found(found)).is_err() {
                                return;
                            }
                        }
                        next_scan = Instant::now() + every;
                    }
                }
            }
        }
    }
}

fn inode_at(path: &Path) -> Option<(u64, u64, Option<u64>)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), created_ns(&meta)))
}

/// Walks a directory, and those below it as far as the pattern reaches.
fn walk(tree: &mut Tree, one: &mut Watched, directory: PathBuf, depth: usize) {
    let (version, names) = tree.list(&directory);
    one.walked.push((directory.clone(), version));
    let source = Arc::clone(&one.source);
    let pattern = &source.pattern;
    for (name, kind) in names.iter() {
        if name.as_encoded_bytes().starts_with(b".") && !pattern.matches_hidden() {
            continue;
        }
        match kind {
            // A link to a directory is not followed: it could lead in a circle.
            Kind::Directory if depth < pattern.depth_max() => {
                walk(tree, one, directory.join(name), depth + 1);
            }
            Kind::File | Kind::Link => {
                let path = directory.join(name);
                if source.wants(&path) {
                    one.matches.push((path, *kind));
                }
            }
            Kind::Directory | Kind::Other => {}
        }
    }
}

fn send_all(news: &Sender<News>, woken: Vec<Sleeper>) -> bool {
    let mut woken = woken.into_iter();
    woken.all(|sleeper| news.send(News::Woken(Box::new(sleeper))).is_ok())
}

/// The sleeping files, by directory: a rotation shows in its directory.
#[derive(Debug, Default)]
struct Sleepers {
    rooms: HashMap<PathBuf, Room>,
    count: usize,
}

#[derive(Debug, Default)]
struct Room {
    changed: Option<(i64, i64)>,
    sleepers: Vec<Sleeper>,
}

impl Sleepers {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, sleeper: Sleeper) {
        let directory = sleeper.path().parent().unwrap_or(Path::new("/"));
        let room = self.rooms.entry(directory.to_owned()).or_default();
        room.sleepers.push(sleeper);
        self.count += 1;
    }

    /// Takes out those whose path is not what it was. Unless `all` are to be
    /// looked at, or there are few, only those of changed directories are.
    fn look(&mut self, all: bool, listings: &Listings) -> Vec<Sleeper> {
        let every_file = all || self.count <= LOOKS_MAX;
        if !every_file && self.rooms.len() > LOOKS_MAX {
            return Vec::new();
        }
        let mut woken = Vec::new();
        for (directory, room) in &mut self.rooms {
            if !every_file {
                let meta = fs::metadata(directory).ok();
                let changed = meta.map(|meta| (meta.mtime(), meta.mtime_nsec()));
                if std::mem::replace(&mut room.changed, changed) == changed {
                    continue;
                }
            }
            woken.extend(
                room.sleepers
                    .extract_if(.., |sleeper| sleeper.is_disturbed(listings)),
            );
        }
        self.forget(woken.len());
        woken
    }

    /// Takes out those that a source wants differently, or none wants.
    fn whose_source_changed(&mut self, watched: &[Watched]) -> Vec<Sleeper> {
        let mut woken = Vec::new();
        let stays = |sleeper: &Sleeper| {
            let job = &sleeper.target().job;
            let mut wanting = watched
                .iter()
                .filter(|one| one.source.wants(sleeper.path()));
            wanting.any(|one| one.source.job == *job)
        };
        for room in self.rooms.values_mut() {
            woken.extend(room.sleepers.extract_if(.., |sleeper| !stays(sleeper)));
        }
        self.forget(woken.len());
        woken
    }

    fn forget(&mut self, count: usize) {
        self.count -= count;
        if count > 0 {
            self.rooms.retain(|_, room| !room.sleepers.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Format, Partitioning, Shape};
    use crate::tail::{ReadFrom, WhenFull};

    fn job(topic: &str) -> Arc<Job> {
        let shape = Shape {
            format: Format::Raw,
            key: None,
            partitioning: Partitioning::File,
            labels: std::collections::BTreeMap::new(),
            headers: false,
            line_bytes_max: 1,
            skip_empty: false,
        };
        Arc::new(Job {
            topic: topic.into(),
            read_from: ReadFrom::Beginning,
            when_full: WhenFull::Wait,
            shape: Arc::new(shape),
            fence: None,
        })
    }

    fn discovery(root: &Path, pattern: &str, exclude: &[&str]) -> Discovery {
        let pattern = Pattern::new(pattern, root).unwrap();
        let exclude = exclude.iter().map(|text| Exclude::new(text, root).unwrap());
        let source = Source {
            exclude: exclude.collect(),
            ..Source::new(pattern, job("t"))
        };
        Discovery::new(vec![Arc::new(source)], Registry::default())
    }

    fn names(discovery: &mut Discovery, root: &Path) -> Vec<String> {
        let name = |found: Found| found.path.strip_prefix(root).unwrap().display().to_string();
        discovery.scan().into_iter().map(name).collect()
    }

    /// The first files of a path went without a word when a look fell between a rename and
    /// the next file: nothing had stood there, it seemed, until then.
    #[test]
    fn a_look_between_a_rename_and_the_next_file_is_not_one_that_found_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("app.log");
        let mut discovery = discovery(temp.path(), "app.log", &[]);
        assert!(discovery.scan().is_empty());
        let before = SystemTime::now();
        fs::write(&path, "generation 0").unwrap();
        fs::rename(&path, temp.path().join("app.log.1")).unwrap();
        assert!(discovery.scan().is_empty());
        fs::write(&path, "generation 1").unwrap();
        let found = discovery.scan().remove(0);
        assert!(found.missing_at.is_some_and(|at| at <= before));
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
        let names = |root: &Path, pattern: &str| names(&mut discovery(root, pattern, &[]), root);
        assert_eq!(names(root, "*.log"), ["1.log", "2.log"]);
        assert_eq!(names(root, "./?.log"), ["1.log", "2.log"]);
        assert_eq!(names(root, ".//a/./b//c/*.log"), ["a/b/c/4.log"]);
        assert_eq!(names(root, "*/*.log"), ["[x]/5.log", "a/3.log"]);
        assert_eq!(names(root, "a/**/*.log"), ["a/3.log", "a/b/c/4.log"]);
        assert_eq!(names(root, "{1,9}.log"), ["1.log"]);
        assert_eq!(names(root, ".h*"), [".hidden.log"]);
        assert_eq!(names(&root.join("[x]"), "*.log"), ["5.log"]);
        assert_eq!(names(root, "none*"), Vec::<String>::new());
        assert_eq!(names(root, "2.log"), ["2.log"]);
        assert_eq!(names(root, "a"), Vec::<String>::new());
    }

    #[test]
    fn an_exclude_without_a_slash_is_for_names_and_one_with_a_slash_for_paths() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        for name in ["1.log", "2.log.gz", "a/3.log", "a/b/4.log"] {
            fs::write(root.join(name), "").unwrap();
        }
        let names = |exclude: &[&str]| names(&mut discovery(root, "**", exclude), root);
        assert_eq!(names(&["*.gz"]), ["1.log", "a/3.log", "a/b/4.log"]);
        assert_eq!(names(&["*.gz", "a/*"]), ["1.log", "a/b/4.log"]);
        assert_eq!(names(&["*.gz", "a/**"]), ["1.log"]);
        let absolute = format!("{}/*", root.display());
        assert_eq!(names(&[&absolute]), ["a/3.log", "a/b/4.log"]);
    }

    /// What is cached of a directory must not hide what comes later, however soon.
    #[test]
    fn files_and_directories_that_appear_between_two_looks_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let mut discovery = discovery(root, "**/*.log", &[]);
        assert_eq!(names(&mut discovery, root), Vec::<String>::new());
        for n in 0..50 {
            fs::create_dir(root.join(format!("d{n}"))).unwrap();
            fs::write(root.join(format!("d{n}/a.log")), "").unwrap();
            let found = names(&mut discovery, root);
            assert!(found.contains(&format!("d{n}/a.log")), "{n}: {found:?}");
        }
    }
}
