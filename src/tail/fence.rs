//! Which files a source from etcd may read.
//!
//! A path is tried where it really is: symbolic links and `..` are followed
//! first. Nothing is opened.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use super::pattern::Pattern;

/// What no remote config may read, unless `allowed_paths` names it or something
/// in it: secrets, and files that are no logs at all.
const USUALLY_DENIED: &[&str] = &[
    "/etc/shadow*",
    "/etc/gshadow*",
    "/etc/sudoers*",
    "/etc/sudoers.d/**",
    "/etc/ssh/ssh_host_*",
    "/etc/ssl/private/**",
    "/etc/kubernetes/**",
    "/root/.*",
    "/root/.*/**",
    "/home/*/.*",
    "/home/*/.*/**",
    "/proc/**",
    "/sys/**",
    "/dev/**",
    "/run/secrets/**",
    "/var/lib/docker/**",
    "/var/lib/kubelet/**",
    "/var/lib/etcd/**",
];

/// Decides whether a file may be read. Two that were made of the same patterns
/// decide alike.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    allowed: Vec<Area>,
    denied: Vec<Area>,
    usually_denied: Vec<Area>,
}

/// The files that a pattern matches, and what is below a path that is one.
#[derive(Debug, Clone)]
struct Area {
    pattern: Pattern,
}

impl Fence {
    /// A fence around `allowed` (empty: everything), without `denied`, which
    /// holds what always stays out too.
    pub fn new(allowed: Vec<Pattern>, denied: Vec<Pattern>) -> Fence {
        let area = |pattern| Area { pattern };
        let usually = USUALLY_DENIED
            .iter()
            .filter_map(|text| Pattern::new(text, Path::new("/")).ok());
        Fence {
            allowed: allowed.into_iter().map(area).collect(),
            denied: denied.into_iter().map(area).collect(),
            usually_denied: usually.map(area).collect(),
        }
    }

    /// True when nothing says what is allowed.
    pub fn is_open(&self) -> bool {
        self.allowed.is_empty()
    }

    /// True when the file that a path leads to now may be read. To be asked when
    /// a file is found, and again when its identity changes; a path that leads
    /// nowhere may not be read.
    pub fn permits(&self, path: &Path) -> bool {
        fs::canonicalize(path).is_ok_and(|resolved| self.permits_resolved(&resolved))
    }

    /// Says why a pattern is refused as a whole: where it begins is outside.
    ///
    /// Files that it matches later must be asked for one by one all the same.
    ///
    /// # Errors
    /// What is wrong, a fragment that follows the pattern.
    pub fn check(&self, pattern: &Pattern) -> Result<(), String> {
        let up = |path: &Path| path.components().any(|part| part == Component::ParentDir);
        if up(Path::new(pattern.text())) {
            return Err("leads upwards with '..': write the path without it".to_owned());
        }
        if let Some(path) = pattern.literal() {
            let resolved = resolve(path);
            return match self.permits_resolved(&resolved) {
                true => Ok(()),
                false => Err(self.outside(path, &resolved)),
            };
        }
        let base = resolve(pattern.base());
        let inside = self.allowed.is_empty() || self.allowed.iter().any(|area| area.reaches(&base));
        // Whatever stands in the directory: is it denied?
        let probe = base.join("x");
        let named = |area: &Area| area.holds(&probe) || area.reaches(&probe);
        if inside && !self.denies(&probe, &named) {
            Ok(())
        } else {
            Err(self.outside(pattern.base(), &base))
        }
    }

    fn texts(&self) -> impl Iterator<Item = Option<&str>> {
        let (allowed, denied) = (self.allowed.iter(), self.denied.iter());
        allowed
            .map(Area::text)
            .chain([None])
            .chain(denied.map(Area::text))
    }

    /// The same for a file that is open, whatever stands at its path by now.
    pub fn permits_open(&self, file: &File) -> bool {
        let name = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        fs::read_link(name).is_ok_and(|resolved| self.permits_resolved(&resolved))
    }

    fn permits_resolved(&self, path: &Path) -> bool {
        let inside = self.allowed.is_empty() || self.allowed.iter().any(|area| area.holds(path));
        inside && !self.denies(path, &|area| area.holds(path))
    }

    /// What is usually denied is not where `holds` is true of an area that begins in it.
    fn denies(&self, path: &Path, holds: &dyn Fn(&Area) -> bool) -> bool {
        let named = |denied: &Area| {
            let within =
                |area: &&Area| denied.holds(area.top()) || denied.holds(&area.top().join("x"));
            self.allowed.iter().filter(within).any(holds)
        };
        self.denied.iter().any(|area| area.holds(path))
            || self
                .usually_denied
                .iter()
                .any(|area| area.holds(path) && !named(area))
    }

    fn outside(&self, path: &Path, resolved: &Path) -> String {
        let whereto = if path == resolved {
            String::new()
        } else {
            format!("leads to {}, which ", crate::text::shown(resolved))
        };
        if self.allowed.is_empty() {
            format!(
                "{whereto}is denied: a remote config may not read it unless etcd.allowed_paths names it"
            )
        } else {
            format!("{whereto}is outside of etcd.allowed_paths, or in etcd.denied_paths")
        }
    }
}

impl PartialEq for Fence {
    fn eq(&self, other: &Fence) -> bool {
        self.texts().eq(other.texts())
    }
}

impl Eq for Fence {}

impl Hash for Fence {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.texts().for_each(|text| text.hash(state));
    }
}

impl Area {
    fn text(&self) -> Option<&str> {
        Some(self.pattern.absolute())
    }

    /// Where it begins: the path that it is, or the directory it varies in.
    fn top(&self) -> &Path {
        self.pattern
            .literal()
            .unwrap_or_else(|| self.pattern.base())
    }

    /// A resolved path as it would be below this pattern's own spelling, which
    /// may go through links too.
    fn spelled(&self, path: &Path) -> PathBuf {
        let base = self.pattern.base();
        match fs::canonicalize(base)
            .ok()
            .as_deref()
            .map(|real| path.strip_prefix(real))
        {
            Some(Ok(rest)) => base.join(rest).components().collect(),
            _ => path.to_owned(),
        }
    }

    /// True for a resolved path that is in it.
    fn holds(&self, path: &Path) -> bool {
        let path = self.spelled(path);
        match self.pattern.literal() {
            Some(literal) => path.starts_with(literal),
            None => self.pattern.fits(&path),
        }
    }

    /// True for a resolved directory in which, or below which, it may hold files.
    fn reaches(&self, directory: &Path) -> bool {
        let directory = self.spelled(directory);
        if let Some(literal) = self.pattern.literal() {
            return directory.starts_with(literal);
        }
        if !directory.starts_with(self.pattern.base()) {
            return false;
        }
        let depth = directory.components().count() - 1;
        let text = self.pattern.text();
        let parts: Vec<&str> = text
            .split('/')
            .filter(|part| !["", "."].contains(part))
            .collect();
        if parts.iter().take(depth).any(|part| part.contains("**")) || !text.starts_with('/') {
            return true; // Its files are asked for one by one.
        }
        if depth >= parts.len() {
            return false;
        }
        let beginning: String = parts[..depth].iter().flat_map(|part| ["/", part]).collect();
        Pattern::new(&beginning, Path::new("/")).map_or(true, |pattern| pattern.fits(&directory))
    }
}

/// Where a path leads: links are followed as far as there is something, the rest
/// is as it was written.
fn resolve(path: &Path) -> PathBuf {
    for there in path.ancestors() {
        if let Ok(real) = fs::canonicalize(there) {
            let rest = path.strip_prefix(there).unwrap_or(Path::new(""));
            return real.join(rest).components().collect();
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn fence(root: &Path, allowed: &[&str], denied: &[&str]) -> Fence {
        let patterns = |texts: &[&str]| -> Vec<Pattern> {
            let pattern =
                |text: &&str| Pattern::new(&root.join(text).display().to_string(), root).unwrap();
            texts.iter().map(pattern).collect()
        };
        Fence::new(patterns(allowed), patterns(denied))
    }

    fn world() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        for dir in ["log/app", "log/secret", "other"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in [
            "log/a.log",
            "log/app/b.log",
            "log/secret/c.log",
            "other/d.log",
        ] {
            fs::write(root.join(file), "").unwrap();
        }
        (temp, root)
    }

    #[test]
    fn a_file_inside_is_permitted_and_one_outside_is_not() {
        let (_temp, root) = world();
        let fence = fence(&root, &["log/**"], &["log/secret/**"]);
        for (path, permitted) in [
            ("log/a.log", true),
            ("log/app/b.log", true),
            ("log/secret/c.log", false),
            ("other/d.log", false),
            ("log/none.log", false),
            ("log/../other/d.log", false),
            ("other/../log/a.log", true),
            ("log/app/../secret/c.log", false),
        ] {
            assert_eq!(fence.permits(&root.join(path)), permitted, "{path}");
        }
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let (_temp, root) = world();
        symlink(root.join("other/d.log"), root.join("log/link.log")).unwrap();
        symlink(root.join("other"), root.join("log/dir")).unwrap();
        symlink(root.join("log/a.log"), root.join("other/in.log")).unwrap();
        let fence = fence(&root, &["log/**"], &[]);
        assert!(!fence.permits(&root.join("log/link.log")));
        assert!(!fence.permits(&root.join("log/dir/d.log")));
        assert!(fence.permits(&root.join("other/in.log")));
        let check = |text: &str| fence.check(&Pattern::new(text, &root).unwrap());
        assert!(check(&format!("{}/log/dir/*.log", root.display())).is_err());
        assert!(check(&format!("{}/log/link.log", root.display())).is_err());
    }

    /// On many systems /var/log, or what is above it, is a link itself.
    #[test]
    fn what_is_allowed_may_be_spelled_with_links() {
        let (_temp, root) = world();
        symlink(root.join("log"), root.join("var")).unwrap();
        let fence = fence(&root, &["var/**"], &["var/secret"]);
        assert!(fence.permits(&root.join("log/a.log")));
        assert!(fence.permits(&root.join("var/app/b.log")));
        assert!(!fence.permits(&root.join("var/secret/c.log")));
        assert!(!fence.permits(&root.join("other/d.log")));
    }

    #[test]
    fn a_pattern_that_begins_outside_is_refused_as_a_whole() {
        let (_temp, root) = world();
        let fence = fence(
            &root,
            &["log/**", "other/*.log", "deep/x*/y/*"],
            &["log/secret/**"],
        );
        for (text, good) in [
            ("log/*.log", true),
            ("log/**", true),
            ("log/new/dir/*.log", true),
            ("log/later.log", true),
            ("other/*", true),
            ("other/deep/*", false),
            ("deep/x1/y/*.log", true),
            ("deep/z1/y/*.log", false),
            ("**/*.log", false),
            ("log/secret/*.log", false),
            ("log/secret/c.log", false),
            ("log/../other/*.log", false),
            ("log/*/../../other/d.log", false),
        ] {
            let pattern = Pattern::new(&format!("{}/{text}", root.display()), &root).unwrap();
            assert_eq!(fence.check(&pattern).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn secrets_are_denied_unless_they_are_named() {
        let (_temp, root) = world();
        let check = |fence: &Fence, text: &str| {
            fence
                .check(&Pattern::new(text, Path::new("/")).unwrap())
                .is_ok()
        };
        let open = fence(&root, &[], &["other"]);
        assert!(open.is_open());
        for (text, good) in [
            ("/var/log/*.log", true),
            ("/srv/**/*.log", true),
            ("/etc/shadow", false),
            ("/etc/shadow-", false),
            ("/proc/*/environ", false),
            ("/proc/self/environ", false),
            ("/dev/*", false),
            ("/root/.ssh/*", false),
            ("/home/me/.aws/credentials", false),
            ("/run/secrets/*", false),
        ] {
            assert_eq!(check(&open, text), good, "{text}");
        }
        assert!(!open.permits(Path::new("/proc/self/environ")));
        assert!(!open.permits(&root.join("other/d.log")));
        assert!(open.permits(&root.join("log/a.log")));

        let everything = fence(&root, &["/**"], &[]);
        assert!(!check(&everything, "/proc/self/environ"));
        let named = fence(&root, &["/dev/shm/**", "/**"], &[]);
        assert!(check(&named, "/dev/shm/*.log"));
        assert!(!check(&named, "/dev/*"));
    }
}
