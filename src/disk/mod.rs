//! Files that survive a power cut: replaced as a whole, or added to by the line.
//!
//! The only way to what a state directory holds, and a narrow one, so that tests
//! can cut the power at every step. What the files mean is not known here.

#[cfg(test)]
pub mod power;

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Only the owner reads what is remembered.
const MODE: u32 = 0o600;
/// Bytes read at once while an unfinished line is looked for.
const BLOCK_BYTES: usize = 64 << 10;

/// What remembering needs of a file system. No operation but `sync` and
/// `sync_directory` promises to survive a power cut.
pub trait Disk: Debug {
    /// An open file.
    type File: DiskFile;
    /// Everything in a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Makes a new, empty file, which takes the name from whoever has it: after a
    /// power cut that may be a file with another name as well, so it is not emptied.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file to write at its end, and makes it if need be.
    fn append(&self, path: &Path) -> io::Result<Self::File>;
    /// Gives a file another name, which is taken from whoever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Waits until names in a directory are as they are for good.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// True when there is something of this name.
    fn exists(&self, path: &Path) -> bool;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Write {
    /// Waits until its bytes are there for good.
    fn sync(&mut self) -> io::Result<()>;
    /// Bytes in it.
    fn size(&self) -> io::Result<u64>;
    /// Reads as many bytes as there are from an offset on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Takes off what comes after `size` bytes.
    fn cut(&mut self, size: u64) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// Puts bytes in the place of a file: after a power cut there is the old one or
/// the new one.
///
/// # Errors
/// What the disk says; then the old one is still there.
pub fn replace<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = write_unfinished(disk, path, bytes)?;
    put_in_place(disk, &unfinished, path)
}

/// The same, and the old one stays under the name `previous`. After a power cut
/// there is at least one of the two, whole.
///
/// # Errors
/// What the disk says; then the old one is still there under one of the names.
pub fn replace_keeping<D: Disk>(
    disk: &D,
    path: &Path,
    previous: &Path,
    bytes: &[u8],
) -> io::Result<()> {
    let unfinished = write_unfinished(disk, path, bytes)?;
    match disk.rename(path, previous) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    put_in_place(disk, &unfinished, path)
}

fn write_unfinished<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    let unfinished = PathBuf::from(unfinished);
    let mut file = disk.create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync()?;
    Ok(unfinished)
}

fn put_in_place<D: Disk>(disk: &D, unfinished: &Path, path: &Path) -> io::Result<()> {
    disk.rename(unfinished, path)?;
    disk.sync_directory(directory_of(path))
}

/// Adds a line, its end included, to a file; it is there for good when this
/// returns. What an earlier attempt left of one is taken off before.
///
/// # Errors
/// What the disk says; then the line is not there.
pub fn append_line<D: Disk>(disk: &D, path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = disk.append(path)?;
    let end = end_of_lines(&file)?;
    if end < file.size()? {
        file.cut(end)?;
    }
    let written = file.write_all(line).and_then(|()| file.sync());
    if written.is_err() {
        let _ = file.cut(end); // else the next one does it
    }
    written?;
    if end == 0 {
        disk.sync_directory(directory_of(path))?; // its name may be new
    }
    Ok(())
}

/// The last bytes of a file, at most so many; none of one that is not there. They
/// are there for good when this returns, though a process that was killed wrote them.
///
/// # Errors
/// What the disk says.
pub fn read_end<D: Disk>(disk: &D, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if !disk.exists(path) {
        return Ok(Vec::new());
    }
    let mut file = disk.append(path)?;
    file.sync()?;
    disk.sync_directory(directory_of(path))?;
    let size = file.size()?;
    let from = size.saturating_sub(bytes_max);
    let mut bytes = vec![0; (size - from) as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], from + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Where the last whole line of a file ends.
fn end_of_lines(file: &impl DiskFile) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut end = file.size()?;
    let mut want = end.min(1); // it nearly always ends with a line
    while end > 0 {
        let from = end - want;
        let read = file.read_at(&mut block[..want as usize], from)?;
        if let Some(at) = memchr::memrchr(b'\n', &block[..read]) {
            return Ok(from + at as u64 + 1);
        }
        end = from;
        want = end.min(BLOCK_BYTES as u64);
    }
    Ok(0)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

impl Disk for RealDisk {
    type File = fs::File;

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn create(&self, path: &Path) -> io::Result<fs::File> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        options.mode(MODE).open(path)
    }

    fn append(&self, path: &Path) -> io::Result<fs::File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        options.mode(MODE).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn exists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }
}

impl DiskFile for fs::File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

#[cfg(test)]
mod tests {
    use super::power::{PowerDisk, Survivors};
    use super::*;

    /// Every state a power cut can leave while `lines` are appended, with how many
    /// of them were said to be there for good.
    fn after_every_cut(lines: &[&[u8]], check: impl Fn(&PowerDisk, usize)) {
        let path = Path::new("/d/letters");
        for at in 0.. {
            let disk = PowerDisk::default();
            disk.cut_power_at(at);
            let promised = lines
                .iter()
                .take_while(|line| append_line(&disk, path, line).is_ok())
                .count();
            for survivors in Survivors::all(&disk) {
                check(&disk.after_power_cut(survivors), promised);
            }
            if disk.steps() < at {
                return;
            }
        }
    }

    #[test]
    fn a_line_that_was_appended_is_there_after_a_power_cut_whole_and_once() {
        let lines: [&[u8]; 3] = [b"one\n", b"two two\n", b"three\n"];
        let path = Path::new("/d/letters");
        after_every_cut(&lines, |disk, promised| {
            // Whoever was not promised anything comes again, and then all are there.
            let left = disk.read(path).unwrap_or_default();
            let whole = lines[..promised].concat();
            assert!(left.starts_with(&whole), "{promised} promised, {left:?}");
            append_line(disk, path, b"again\n").unwrap();
            let text = disk.read(path).unwrap();
            let rest = &text[whole.len()..];
            let expected = [
                b"again\n".to_vec(),
                [lines.get(promised).unwrap_or(&&b""[..]), &b"again\n"[..]].concat(),
            ];
            assert!(expected.iter().any(|text| text == rest), "{rest:?}");
        });
    }

    /// Whoever reads a line and goes on because it is there must not lose it.
    #[test]
    fn the_end_that_was_read_is_there_after_a_power_cut() {
        let disk = PowerDisk::default();
        let path = Path::new("/d/letters");
        assert_eq!(read_end(&disk, path, 4).unwrap(), b"");
        let mut file = disk.append(path).unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(read_end(&disk, path, 4).unwrap(), b"two\n");
        for survivors in Survivors::all(&disk) {
            let text = disk.after_power_cut(survivors).read(path).unwrap();
            assert_eq!(text, b"one\ntwo\n");
        }
    }

    /// A full disk takes part of a line, and the next letter must not be glued to it.
    #[test]
    fn what_a_failed_append_left_is_taken_off() {
        let disk = PowerDisk::default();
        let path = Path::new("/d/letters");
        append_line(&disk, path, b"one\n").unwrap();
        disk.fill_up_after(3);
        append_line(&disk, path, b"a long one\n").unwrap_err();
        assert_eq!(disk.read(path).unwrap(), b"one\n");
        disk.make_room();
        append_line(&disk, path, b"two\n").unwrap();
        assert_eq!(disk.read(path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn the_unfinished_line_of_a_crash_is_found_however_long_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("letters");
        for len in [
            1,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            3 * BLOCK_BYTES,
        ] {
            for before in ["", "whole\n"] {
                fs::write(&path, [before.as_bytes(), &vec![0; len]].concat()).unwrap();
                append_line(&RealDisk, &path, b"next\n").unwrap();
                let text = fs::read_to_string(&path).unwrap();
                assert_eq!(text, format!("{before}next\n"), "{len}");
            }
        }
    }

    /// A power cut may leave a file with both its temporary and its final name.
    #[test]
    fn a_file_that_is_made_leaves_other_names_of_the_one_before_alone() {
        let temp = tempfile::tempdir().unwrap();
        let (newest, unfinished) = (temp.path().join("a"), temp.path().join("a.tmp"));
        fs::write(&newest, "old").unwrap();
        fs::hard_link(&newest, &unfinished).unwrap();
        RealDisk.create(&unfinished).unwrap();
        assert_eq!(fs::read_to_string(&newest).unwrap(), "old");
    }

    #[test]
    fn a_replaced_file_is_the_old_or_the_new_one_after_a_power_cut() {
        let path = Path::new("/d/file");
        let old: &[u8] = b"old old old";
        for at in 0..12 {
            let disk = PowerDisk::default();
            replace(&disk, path, old).unwrap();
            disk.cut_power_at(disk.steps() + at);
            let promised = replace(&disk, path, b"new").is_ok();
            for survivors in Survivors::all(&disk) {
                let text = disk.after_power_cut(survivors).read(path).unwrap();
                assert!(
                    text == b"new" || (text == old && !promised),
                    "{at}: {text:?}"
                );
            }
        }
    }
}
