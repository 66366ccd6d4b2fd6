//! Files that are small if they are the right ones: secrets, certificates, configs.
//!
//! Whatever stands at the path, reading it ends: a device is read up to a limit, and a
//! pipe is waited for only as long as its writer may need.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// How long what is no file may take until it has said all.
const PIPE_TIMEOUT: Duration = Duration::from_secs(2);

const PAUSE: Duration = Duration::from_millis(5);

/// Opens what may be read, without waiting for a pipe's writer.
///
/// # Errors
/// Nothing is there, it is a directory, or reading it is not permitted.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if file.metadata()?.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    Ok(file)
}

/// The first `limit` bytes at most.
///
/// # Errors
/// Those of [`open`]; it cannot be read; a pipe whose writer does not come to an end.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = open(path)?.take(limit);
    let deadline = Instant::now() + PIPE_TIMEOUT;
    let mut bytes = Vec::new();
    loop {
        match file.read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if Instant::now() < deadline => sleep(PAUSE),
            Err(_) => {
                let problem = "it is a pipe, and its writer does not come to an end";
                return Err(io::Error::new(ErrorKind::TimedOut, problem));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_file_is_read_to_its_end_or_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read(&pipe, 9).unwrap(), b"", "it has no writer");
        assert_eq!(read(Path::new("/dev/zero"), 9).unwrap(), [0; 9]);
        assert!(read(directory.path(), 9).is_err());

        let keeps = OpenOptions::new().read(true).write(true).open(&pipe);
        let mut keeps = keeps.unwrap();
        keeps.write_all(b"secret").unwrap();
        let error = read(&pipe, 9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
