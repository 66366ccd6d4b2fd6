//! The files that should have arrived, read wherever a record points.
//!
//! Nothing is written or locked, and of a file no more is in memory than one
//! buffer and one line.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use memchr::memrchr;

use super::Error;
use super::lines::{Line, Rules};

/// Files that are open at once.
pub const OPEN_MAX: usize = 64;
/// Read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// What compressed files begin with: gzip, zstd, xz, bzip2.
const PACKED: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"];

/// A file as it was at the start.
#[derive(Debug)]
pub struct Subject {
    /// Where it stands.
    pub path: PathBuf,
    /// Its device number.
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
    /// Its size.
    pub size: u64,
    /// The byte after its last line that should have arrived.
    pub end: u64,
    /// NUL bytes at its beginning, as a writer leaves them who goes on at its
    /// old place after a truncation. They need not arrive.
    pub hole: u64,
}

/// The files, and those of them that are open.
#[derive(Debug)]
pub struct Files {
    all: Vec<Subject>,
    by_inode: HashMap<u64, Vec<usize>>,
    /// The one that was used last is the first.
    open: Vec<Reader>,
    /// How lines become records.
    pub rules: Rules,
    line: Line,
}

#[derive(Debug)]
struct Reader {
    of: usize,
    input: BufReader<File>,
    at: u64,
}

impl Files {
    /// Looks at all of them; the same file under several names is one.
    ///
    /// # Errors
    /// If one cannot be read, or is compressed.
    pub fn new(paths: &[PathBuf], rules: Rules) -> Result<Files, Error> {
        let mut files = Files {
            all: Vec::new(),
            by_inode: HashMap::new(),
            open: Vec::new(),
            rules,
            line: Line::default(),
        };
        for path in paths {
            let subject = Subject::new(path, files.rules.once).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?;
            if files.find(Some(subject.device), subject.inode).is_none() {
                let of_inode = files.by_inode.entry(subject.inode).or_default();
                of_inode.push(files.all.len());
                files.all.push(subject);
            }
        }
        Ok(files)
    }

    /// All of them.
    pub fn all(&self) -> &[Subject] {
        &self.all
    }

    /// The one with these numbers.
    pub fn find(&self, device: Option<u64>, inode: u64) -> Option<usize> {
        let same = |&&file: &&usize| device.is_none_or(|device| self.all[file].device == device);
        self.by_inode.get(&inode)?.iter().find(same).copied()
    }

    /// Those that may be copies of what stood at a path, by their names:
    /// `app.log.1` or `app-20261127.log` of `app.log`.
    pub fn copies_of(&self, path: &Path) -> Vec<usize> {
        let stem = path.file_stem().unwrap_or_default().as_encoded_bytes();
        let fits = |subject: &Subject| {
            let name = subject.path.file_name().unwrap_or_default();
            subject.path.parent() == path.parent() && name.as_encoded_bytes().starts_with(stem)
        };
        (0..self.all.len())
            .filter(|&file| fits(&self.all[file]))
            .collect()
    }

    /// The line that begins at this byte, if one does.
    ///
    /// # Errors
    /// If the file cannot be read, or is another one by now.
    pub fn line_at(&mut self, file: usize, from: u64) -> Result<Option<(&Rules, &Line)>, Error> {
        let (subject, rules) = (&self.all[file], &self.rules);
        if from >= subject.size {
            return Ok(None);
        }
        let line = &mut self.line;
        let found = reader(&mut self.open, file, subject).and_then(|reader| {
            let starts = from == subject.hole || reader.is_behind_a_line(from)?;
            Ok(starts && reader.read(from, line, rules.kept_max())?)
        });
        match found {
            Ok(found) => Ok(found.then_some((rules, &*line))),
            Err(source) => Err(subject.failed(source)),
        }
    }

    /// Reads the lines from `from` to `to`, where lines begin.
    ///
    /// # Errors
    /// As above, and if the file ends before; and those of `each`, which gets the
    /// line's first byte, too.
    pub fn lines(
        &mut self,
        file: usize,
        (from, to): (u64, u64),
        mut each: impl FnMut(u64, &Line, &Rules) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (subject, rules) = (&self.all[file], &self.rules);
        let mut at = from;
        while at < to {
            let read = reader(&mut self.open, file, subject)
                .and_then(|reader| reader.read(at, &mut self.line, rules.kept_max()));
            if !read.map_err(|source| subject.failed(source))? {
                let problem = "it became shorter meanwhile: try again";
                return Err(subject.failed(io::Error::other(problem)));
            }
            each(at, &self.line, rules)?;
            at += self.line.bytes();
        }
        Ok(())
    }
}

impl Subject {
    fn new(path: &Path, once: bool) -> io::Result<Subject> {
        let mut file = File::open(path)?;
        let meta = file.metadata()?;
        let size = meta.len();
        let mut head = Vec::new();
        file.by_ref().take(6).read_to_end(&mut head)?;
        if PACKED.iter().any(|magic| head.starts_with(magic)) {
            let problem = "it is compressed: unpack it, or leave it out";
            return Err(io::Error::other(problem));
        }
        let hole = match head.first() {
            Some(0) => count_nuls(&mut file)?,
            _ => 0,
        };
        Ok(Subject {
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            size,
            end: if once { size } else { last_end(&file, size)? },
            hole,
        })
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File {
            path: self.path.clone(),
            source,
        }
    }
}

impl Reader {
    fn is_behind_a_line(&mut self, at: u64) -> io::Result<bool> {
        if at == 0 {
            return Ok(true);
        }
        self.seek(at - 1)?;
        let byte = self.input.fill_buf()?.first().copied();
        Ok(byte == Some(b'\n'))
    }

    /// False at the end of the file.
    fn read(&mut self, at: u64, line: &mut Line, kept_max: usize) -> io::Result<bool> {
        self.seek(at)?;
        let read = line.read(&mut self.input, kept_max)?;
        self.at += line.bytes();
        Ok(read)
    }

    /// What is in the buffer stays there.
    fn seek(&mut self, to: u64) -> io::Result<()> {
        self.input.seek_relative(to.wrapping_sub(self.at) as i64)?;
        self.at = to;
        Ok(())
    }
}

/// The open file; one more may be opened, and another one closed for it.
fn reader<'a>(
    open: &'a mut Vec<Reader>,
    file: usize,
    subject: &Subject,
) -> io::Result<&'a mut Reader> {
    let reader = match open.iter().position(|reader| reader.of == file) {
        Some(0) => return Ok(&mut open[0]),
        Some(at) => open.remove(at),
        None => {
            let input = File::open(&subject.path)?;
            let meta = input.metadata()?;
            if (meta.dev(), meta.ino()) != (subject.device, subject.inode) {
                return Err(io::Error::other("it was rotated meanwhile: try again"));
            }
            open.truncate(OPEN_MAX - 1);
            Reader {
                of: file,
                input: BufReader::with_capacity(BUFFER_BYTES, input),
                at: 0,
            }
        }
    };
    open.insert(0, reader);
    Ok(&mut open[0])
}

/// The byte after the last line end.
fn last_end(file: &File, size: u64) -> io::Result<u64> {
    let mut block = vec![0; BUFFER_BYTES];
    let mut to = size;
    while to > 0 {
        let from = to.saturating_sub(BUFFER_BYTES as u64);
        let block = &mut block[..(to - from) as usize];
        file.read_exact_at(block, from)?;
        if let Some(at) = memrchr(b'\n', block) {
            return Ok(from + at as u64 + 1);
        }
        to = from;
    }
    Ok(0)
}

fn count_nuls(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut input = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut nuls = 0;
    loop {
        let block = input.fill_buf()?;
        let count = block.iter().take_while(|&&byte| byte == 0).count();
        let over = count < block.len() || count == 0;
        nuls += count as u64;
        input.consume(count);
        if over {
            return Ok(nuls);
        }
    }
}
