//! How a file is recognised when its name or inode no longer tells: by what it holds up to a position.
//!
//! Inodes are given out anew, `copytruncate` empties a file under its inode, backups and `rsync` change it. The bytes
//! that were read do not change: the first [`HEAD`] of them and the last [`TAIL`] before the position are
//! remembered as checksums.

use std::fmt;
use std::fs::File;
use std::io;
use std::str::FromStr;

use crc_fast::CrcAlgorithm::Crc64Nvme;

/// How many bytes from the beginning count.
pub const HEAD: usize = 1024;
/// How many bytes before the position count.
pub const TAIL: usize = 256;

/// Checksums (CRC-64/NVME) of a file's beginning and of what stands before a position in it. In text it is
/// `<bytes>:<checksum>,<bytes>:<checksum>`, for head and tail, the checksums in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    head: (usize, u64),
    tail: (usize, u64),
}

impl Fingerprint {
    /// The fingerprint of a file that begins with `head` and holds `tail` before the position. Of both only what
    /// counts is taken.
    pub fn of(head: &[u8], tail: &[u8]) -> Self {
        let head = &head[..head.len().min(HEAD)];
        let tail = &tail[tail.len().saturating_sub(TAIL)..];
        let sum = |bytes: &[u8]| (bytes.len(), crc_fast::checksum(Crc64Nvme, bytes));
        Self {
            head: sum(head),
            tail: sum(tail),
        }
    }

    /// The fingerprint of `file` at `position`; none where the file is shorter.
    pub fn read(file: &File, position: u64) -> io::Result<Option<Self>> {
        Ok(read_around(file, position)?.map(|(head, tail)| Self::of(&head, &tail)))
    }

    /// Whether `file` holds the same up to `position`, as far as this fingerprint can tell.
    pub fn matches(&self, file: &File, position: u64) -> io::Result<bool> {
        Ok(Self::read(file, position)?.as_ref() == Some(self))
    }

    /// Whether nothing had been read: then every file matches.
    pub fn is_empty(&self) -> bool {
        self.head.0 == 0
    }

    /// Whether a match is proof enough without the inode or a telling name.
    pub fn is_strong(&self) -> bool {
        self.head.0 >= 64
    }
}

/// The bytes that count for a fingerprint of `file` at `position`: its head up to there and the tail before it. None
/// where the file is shorter.
pub fn read_around(file: &File, position: u64) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let head_length = position.min(HEAD as u64);
    let tail_length = position.min(TAIL as u64);
    let mut head = vec![0; head_length as usize];
    let mut tail = vec![0; tail_length as usize];
    let whole = read_exactly(file, &mut head, 0)? && read_exactly(file, &mut tail, position - tail_length)?;
    Ok(whole.then_some((head, tail)))
}

/// Fills `buffer` from `offset`; false where the file ends before.
pub fn read_exactly(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<bool> {
    while !buffer.is_empty() {
        match rustix::io::pread(file, &mut *buffer, offset) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((head, head_sum), (tail, tail_sum)) = (self.head, self.tail);
        write!(f, "{head}:{head_sum:016x},{tail}:{tail_sum:016x}")
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let part = |text: &str| {
            let (length, sum) = text.split_once(':')?;
            Some((length.parse().ok()?, u64::from_str_radix(sum, 16).ok()?))
        };
        let (head, tail) = text.split_once(',').ok_or(())?;
        Ok(Self {
            head: part(head).ok_or(())?,
            tail: part(tail).ok_or(())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn text_and_back() {
        let fingerprint = Fingerprint::of(&[7; 2000], b"tail");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert!("1024:xyz".parse::<Fingerprint>().is_err());
    }

    #[test]
    fn tells_head_tail_and_length_apart() -> io::Result<()> {
        let mut file = tempfile::tempfile()?;
        let content: Vec<u8> = (0..5000u32).map(|n| (n * n % 251) as u8).collect();
        file.write_all(&content)?;
        let fingerprint = Fingerprint::of(&content, &content[..4000]);
        assert!(fingerprint.matches(&file, 4000)?);
        assert!(!fingerprint.matches(&file, 3999)?);
        rustix::io::pwrite(&file, b"?", 3999)?;
        assert!(!fingerprint.matches(&file, 4000)?, "another tail");
        rustix::io::pwrite(&file, &content[3999..4000], 3999)?;
        rustix::io::pwrite(&file, b"??", 0)?;
        assert!(!fingerprint.matches(&file, 4000)?, "another head");
        file.set_len(3999)?;
        assert!(!fingerprint.matches(&file, 4000)?, "too short");
        Ok(())
    }
}
