//! Files that were left behind: remembered, tailed by nobody, and no longer at their
//! path.
//!
//! It looks for them by inode and size, and says for which a tailer is to be started.
//! It opens none: the tailer does, which finds them as it finds any renamed file.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::ledger::{Entry, Origin};

use super::Context;
use super::input::created_ns;
use super::listing::{Listing, Stamp};
use super::rotated;
use super::tailer::is_reachable;
use super::wanted::Wanted;

/// Directories that are not read again while they do not change.
const LOOKED_MAX: usize = 1_000;

/// Where files were looked for that are left behind.
#[derive(Debug, Default)]
pub struct Left {
    /// Directories in which no file had anything for a tailer, as they were then.
    looked: HashMap<PathBuf, Stamp>,
}

impl Left {
    /// Something else is wanted by now: everything is looked for again.
    pub fn look_again(&mut self) {
        self.looked.clear();
    }

    /// Files of which something is known to be unread, or that have grown elsewhere. Costs
    /// a stat for a directory, and reads it once, for all of its files, when it has changed.
    pub fn look(&mut self, context: &Context) -> Vec<Origin> {
        self.looked
            .retain(|directory, then| Stamp::of(directory) == Some(*then));
        let is_news = |entry: &Entry| {
            let origin = &entry.origin;
            let key = || (origin.path.clone(), Arc::clone(&origin.topic));
            let looked = || self.looked.contains_key(directory_of(origin));
            (entry.has_unread() || !looked()) && !context.registry.has_path(&key())
        };
        let mut more = Vec::new();
        let mut by_directory: HashMap<PathBuf, Vec<Entry>> = HashMap::new();
        for entry in context.ledger.left(&is_news) {
            if !entry.has_unread() {
                let directory = directory_of(&entry.origin).to_owned();
                by_directory.entry(directory).or_default().push(entry);
            // A volume that is not mounted yet has lost nothing.
            } else if is_reachable(near(&entry.origin), Some(entry.origin.device)) {
                more.push(entry.origin);
            }
        }
        for (directory, entries) in by_directory {
            more.extend(self.look_in(directory, entries, context));
        }
        more
    }

    fn look_in(
        &mut self,
        directory: PathBuf,
        mut entries: Vec<Entry>,
        context: &Context,
    ) -> impl Iterator<Item = Origin> {
        // First the time, then the names: what comes in between shows next time.
        let settled = Stamp::of(&directory).filter(Stamp::is_settled);
        let listing = context.listings.of(&directory);
        entries.retain(|entry| is_for_a_tailer(entry, &listing, &context.wanted));
        if let Some(settled) = settled
            && entries.is_empty()
            && self.looked.len() < LOOKED_MAX
        {
            self.looked.insert(directory, settled);
        }
        entries.into_iter().map(|entry| entry.origin)
    }
}

/// True for a file whose path is wanted and empty, and that has grown under another
/// name. What is tailed by that name has its tailer, and what is gone is in nobody's way:
/// all that was known of it was shipped.
fn is_for_a_tailer(entry: &Entry, listing: &Listing, wanted: &Wanted) -> bool {
    let origin = &entry.origin;
    let is_wanted = |path: &Path| wanted.of_topic(path, &origin.topic).is_some();
    let found = rotated::with_inode(listing, origin.device, origin.inode);
    let then = origin.created_ns;
    // Another file may have its inode by now.
    let is_other = |now| matches!((then, now), (Some(then), Some(now)) if then != now);
    let found = found.filter(|(_, meta)| !is_other(created_ns(meta)));
    let grown = found.is_some_and(|(path, meta)| meta.len() > entry.position && !is_wanted(&path));
    grown && is_wanted(&origin.path) && is_empty(&origin.path)
}

/// True when nothing stands at a path.
fn is_empty(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Where the file itself stood.
fn near(origin: &Origin) -> &Path {
    origin.real.as_deref().unwrap_or(&origin.path)
}

fn directory_of(origin: &Origin) -> &Path {
    near(origin).parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::MetadataExt;
    use std::time::SystemTime;

    use crate::record::Shape;
    use crate::tail::{Job, Pattern, ReadFrom, Source, WhenFull};

    /// A directory whose `*.log` are wanted.
    struct Scene {
        temp: tempfile::TempDir,
        context: Context,
        left: Left,
    }

    impl Scene {
        fn new() -> Scene {
            let temp = tempfile::tempdir().unwrap();
            let job = Job {
                topic: "t".into(),
                read_from: ReadFrom::Beginning,
                when_full: WhenFull::Wait,
                shape: Arc::new(Shape::default()),
                fence: None,
            };
            let pattern = Pattern::new("*.log", temp.path()).unwrap();
            let context = Context::of_nothing();
            let source = Source::new(pattern, Arc::new(job));
            context.wanted.change(vec![Arc::new(source)]);
            let left = Left::default();
            Scene {
                temp,
                context,
                left,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.temp.path().join(name)
        }

        /// A file that stood at `path` when it was empty, and stands at `now` with this
        /// content.
        fn stood(&self, path: &str, now: &str, content: &str) -> Origin {
            fs::write(self.path(now), content).unwrap();
            let meta = fs::metadata(self.path(now)).unwrap();
            let origin = Origin {
                path: self.path(path),
                real: None,
                topic: "t".into(),
                device: meta.dev(),
                inode: meta.ino(),
                generation: 0,
                created_ns: created_ns(&meta),
            };
            self.context.ledger.remember_unread(origin.clone(), 0);
            origin
        }

        /// Names in the directory were last changed long ago.
        fn settle(&self) {
            let directory = fs::File::open(self.temp.path()).unwrap();
            directory.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        }

        /// The names of paths that a tailer is to be started for.
        fn look(&mut self) -> Vec<String> {
            let name = |origin: Origin| origin.path.file_name()?.to_str().map(str::to_owned);
            let left = self.left.look(&self.context);
            left.into_iter().filter_map(name).collect()
        }
    }

    #[test]
    fn only_what_has_grown_under_another_name_is_for_a_tailer() {
        for (path, now, content, expected) in [
            ("a.log", "a.log.1", "more", true),
            ("a.log", "a.log.1", "", false),     // nothing more
            ("a.log", "a.log", "more", false),   // it is where it was
            ("a.log", "b.log", "more", false),   // tailed by that name
            ("a.txt", "a.txt.1", "more", false), // not wanted
        ] {
            let mut scene = Scene::new();
            scene.stood(path, now, content);
            let expected: Vec<&str> = expected.then_some(path).into_iter().collect();
            assert_eq!(scene.look(), expected, "{path} {now} {content}");
        }
    }

    #[test]
    fn one_that_is_gone_or_whose_path_or_inode_another_has_is_left_alone() {
        let mut scene = Scene::new();
        scene.stood("gone.log", "gone.log.1", "more");
        fs::remove_file(scene.path("gone.log.1")).unwrap();
        assert_eq!(scene.look(), [""; 0]);

        let mut scene = Scene::new();
        scene.stood("taken.log", "taken.log.1", "more");
        fs::create_dir(scene.path("taken.log")).unwrap();
        assert_eq!(scene.look(), [""; 0]);

        let mut scene = Scene::new();
        let mut other = scene.stood("other.log", "secret", "more");
        scene.context.ledger.forget(u64::MAX, 0);
        other.created_ns = Some(1);
        scene.context.ledger.remember_unread(other, 0);
        assert_eq!(scene.look(), [""; 0]);
    }

    #[test]
    fn a_directory_is_read_again_when_it_has_changed_or_something_else_is_wanted() {
        let mut scene = Scene::new();
        scene.stood("a.log", "a.log.1", "");
        scene.settle();
        assert_eq!(scene.look(), [""; 0]);
        fs::write(scene.path("a.log.1"), "more").unwrap();
        assert_eq!(scene.look(), [""; 0]);
        scene.left.look_again();
        assert_eq!(scene.look(), ["a.log"]);

        fs::write(scene.path("a.log.1"), "").unwrap();
        scene.settle();
        assert_eq!(scene.look(), [""; 0]);
        fs::write(scene.path("a.log.1"), "more").unwrap();
        fs::rename(scene.path("a.log.1"), scene.path("a.log.2")).unwrap();
        assert_eq!(scene.look(), ["a.log"]);
    }

    #[test]
    fn known_unread_bytes_and_a_volume_that_is_away_are_told_apart() {
        let mut scene = Scene::new();
        let mut origin = scene.stood("a.log", "a.log.1", "");
        scene.settle();
        assert_eq!(scene.look(), [""; 0]);
        scene.context.ledger.forget(u64::MAX, 0);
        scene.context.ledger.remember_unread(origin.clone(), 5);
        assert_eq!(scene.look(), ["a.log"]);
        for size in [0, 5] {
            scene.context.ledger.forget(u64::MAX, 0);
            origin.device += 1;
            scene.context.ledger.remember_unread(origin.clone(), size);
            assert_eq!(scene.look(), [""; 0]);
        }
    }
}
