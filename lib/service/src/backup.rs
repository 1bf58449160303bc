//! Backup files: the cluster's state at one revision, written and read from beginning to end.
//!
//! A file is [`MAGIC`], then records (`tidegate.v1.BackupRecord`), each behind its length as a varint: a header, entries
//! in order of their keys, and a trailer with their count and the SHA-256 of all that comes before it. So a file that was
//! cut off, or changed anywhere, is told from a whole one, and no more than one entry is ever in memory.
//!
//! Invariant: [`Reader`] says that a file has ended only when it is whole and sound. Until then nothing read from it may
//! be acted on.
//!
//! Not here: where entries come from and what they mean (`tidegate-auth`), files and folders (`tgctl`).

use std::io::{self, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};
use prost::Message as _;
use tidegate_proto::{
    convert,
    v1::{BackupEntry, BackupHeader, BackupRecord, BackupTrailer, backup_record::Record},
};

/// What a backup file begins with.
pub const MAGIC: &[u8] = b"tidegate backup\n";
/// The shape of files that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Largest record; the state store takes no value of half that size.
pub const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of a varint that can be a record's length.
const LENGTH_BYTES_MAX: usize = 5;

/// Why a backup file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The digest is not that of what was read.
    #[error("the backup is damaged: its content does not have the SHA-256 that its end tells")]
    Altered,
    /// Something follows the trailer.
    #[error("the backup is damaged: something follows its end")]
    Continues,
    /// The trailer tells another number of entries.
    #[error("the backup is damaged: it has {found} entries, and its end tells of {told}")]
    Count {
        /// As counted.
        found: u64,
        /// As the trailer has it.
        told: u64,
    },
    /// A record makes no sense where it is.
    #[error("the backup is damaged at byte {at}: {problem}")]
    Malformed {
        /// Where the record begins.
        at: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// A newer program wrote it.
    #[error(
        "the backup has format {found}, and this program reads up to {FORMAT}: use the program that made it, version \
         {program}, or a newer one"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// The version of the program that made it.
        program: String,
    },
    /// It does not begin like one.
    #[error("this is not a backup of Tidegate")]
    NoBackup,
    /// The system failed.
    #[error("cannot read or write the backup")]
    Io(#[source] io::Error),
    /// It ends too early.
    #[error("the backup is cut off after {bytes} bytes and {entries} entries")]
    Truncated {
        /// Bytes that are there.
        bytes: u64,
        /// Entries that are there.
        entries: u64,
    },
}

/// Writes a backup.
pub struct Writer<W> {
    to: W,
    digest: Context,
    entries: u64,
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a file; its format is set here.
    ///
    /// # Errors
    ///
    /// What the destination says.
    pub fn new(to: W, header: BackupHeader) -> io::Result<Self> {
        let mut writer = Self {
            to,
            digest: Context::new(&SHA256),
            entries: 0,
        };
        writer.digest.update(MAGIC);
        writer.to.write_all(MAGIC)?;
        let header = BackupHeader {
            format: FORMAT,
            ..header
        };
        writer.hashed(Record::Header(header))?;
        Ok(writer)
    }

    /// Writes the next entry; keys must come in order.
    ///
    /// # Errors
    ///
    /// What the destination says.
    pub fn entry(&mut self, entry: BackupEntry) -> io::Result<()> {
        self.entries += 1;
        self.hashed(Record::Entry(entry))
    }

    /// Ends the file, and gives back where it was written to.
    ///
    /// # Errors
    ///
    /// What the destination says.
    pub fn finish(mut self) -> io::Result<W> {
        let trailer = BackupTrailer {
            entries: self.entries,
            sha256: self.digest.finish().as_ref().to_vec(),
        };
        self.to.write_all(&encoded(Record::Trailer(trailer)))?;
        self.to.flush()?;
        Ok(self.to)
    }

    /// Where it is written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.to
    }

    fn hashed(&mut self, record: Record) -> io::Result<()> {
        let bytes = encoded(record);
        self.digest.update(&bytes);
        self.to.write_all(&bytes)
    }
}

fn encoded(record: Record) -> Vec<u8> {
    BackupRecord {
        record: Some(record),
    }
    .encode_length_delimited_to_vec()
}

/// Reads a backup.
pub struct Reader<R> {
    from: R,
    header: BackupHeader,
    digest: Context,
    bytes: u64,
    entries: u64,
    last_key: Vec<u8>,
    sha256: Option<Vec<u8>>,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("header", &self.header)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header; `from` should be buffered.
    ///
    /// # Errors
    ///
    /// [`BackupError`]: it is no backup, one of a newer program, or damaged.
    pub fn open(from: R) -> Result<Self, BackupError> {
        let mut reader = Self {
            from,
            header: BackupHeader::default(),
            digest: Context::new(&SHA256),
            bytes: 0,
            entries: 0,
            last_key: Vec::new(),
            sha256: None,
        };
        let mut magic = vec![0; MAGIC.len()];
        match reader.from.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                return Err(BackupError::Io(error));
            }
            _ => return Err(BackupError::NoBackup),
        }
        reader.bytes = MAGIC.len() as u64;
        reader.digest.update(MAGIC);
        let at = reader.bytes;
        let Record::Header(header) = reader.record()? else {
            let problem = "it does not begin with a header";
            return Err(BackupError::Malformed { at, problem });
        };
        if header.format > FORMAT {
            return Err(BackupError::Newer {
                found: header.format,
                program: header.program,
            });
        }
        reader.header = header;
        Ok(reader)
    }

    /// What the file says of itself.
    pub const fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// Entries read so far.
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// The file's digest, once its end was read.
    pub fn sha256(&self) -> Option<&[u8]> {
        self.sha256.as_deref()
    }

    /// The next entry; `None` once the end was reached and all of the file is sound.
    ///
    /// # Errors
    ///
    /// [`BackupError`]: it is cut off or damaged.
    pub fn next_entry(&mut self) -> Result<Option<BackupEntry>, BackupError> {
        if self.sha256.is_some() {
            return Ok(None);
        }
        let at = self.bytes;
        let malformed = |problem| Err(BackupError::Malformed { at, problem });
        match self.record()? {
            Record::Header(_) => malformed("a second header"),
            Record::Entry(entry) if self.entries > 0 && entry.key <= self.last_key => {
                malformed("its keys are not in order")
            }
            Record::Entry(entry)
                if entry
                    .expires_at
                    .is_some_and(|at| convert::instant(&at).is_err()) =>
            {
                malformed("the end of an entry is no time")
            }
            Record::Entry(entry) => {
                self.entries += 1;
                self.last_key.clone_from(&entry.key);
                Ok(Some(entry))
            }
            Record::Trailer(trailer) => self.end(trailer).map(|()| None),
        }
    }

    fn end(&mut self, trailer: BackupTrailer) -> Result<(), BackupError> {
        if self.digest.clone().finish().as_ref() != trailer.sha256.as_slice() {
            return Err(BackupError::Altered);
        }
        if trailer.entries != self.entries {
            return Err(BackupError::Count {
                found: self.entries,
                told: trailer.entries,
            });
        }
        if self.from.read(&mut [0]).map_err(BackupError::Io)? != 0 {
            return Err(BackupError::Continues);
        }
        self.sha256 = Some(trailer.sha256);
        Ok(())
    }

    /// The next record. All but a trailer counts for the digest.
    fn record(&mut self) -> Result<Record, BackupError> {
        let at = self.bytes;
        let malformed = |problem| BackupError::Malformed { at, problem };
        let (prefix, length) = self.length()?;
        if length > RECORD_BYTES_MAX {
            return Err(malformed("a record is larger than any may be"));
        }
        // Read as it comes: what the length says is not believed before the bytes are there.
        let mut body = Vec::new();
        let read = (&mut self.from).take(length as u64).read_to_end(&mut body);
        self.bytes += read.map_err(BackupError::Io)? as u64;
        if body.len() < length {
            return Err(self.truncated());
        }
        let decoded = BackupRecord::decode(body.as_slice());
        let record = decoded.map_err(|_| malformed("a record cannot be decoded"))?;
        let record = record.record;
        let record = record.ok_or_else(|| malformed("a record of a kind that is not known"))?;
        if !matches!(record, Record::Trailer(_)) {
            self.digest.update(&prefix);
            self.digest.update(&body);
        }
        Ok(record)
    }

    /// The length of the next record, and how it was written.
    fn length(&mut self) -> Result<(Vec<u8>, usize), BackupError> {
        let at = self.bytes;
        let mut prefix = Vec::with_capacity(LENGTH_BYTES_MAX);
        loop {
            let mut byte = [0];
            match self.from.read_exact(&mut byte) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.truncated());
                }
                Err(error) => return Err(BackupError::Io(error)),
            }
            self.bytes += 1;
            prefix.push(byte[0]);
            if byte[0] < 0x80 {
                break;
            }
            if prefix.len() == LENGTH_BYTES_MAX {
                let problem = "a record's length cannot be";
                return Err(BackupError::Malformed { at, problem });
            }
        }
        let length = prost::decode_length_delimiter(prefix.as_slice());
        let problem = "a record's length cannot be";
        let length = length.map_err(|_| BackupError::Malformed { at, problem })?;
        Ok((prefix, length))
    }

    const fn truncated(&self) -> BackupError {
        BackupError::Truncated {
            bytes: self.bytes,
            entries: self.entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: &str, value: &[u8]) -> BackupEntry {
        BackupEntry {
            key: key.as_bytes().to_vec(),
            value: value.to_vec(),
            expires_at: None,
        }
    }

    fn header() -> BackupHeader {
        BackupHeader {
            cluster: "tidegate.test".to_owned(),
            revision: 7,
            ..BackupHeader::default()
        }
    }

    fn written(entries: &[BackupEntry]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), header()).unwrap();
        for entry in entries {
            writer.entry(entry.clone()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(file: &[u8]) -> Result<Vec<BackupEntry>, BackupError> {
        let mut reader = Reader::open(file)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            entries.push(entry);
        }
        assert!(reader.next_entry()?.is_none());
        Ok(entries)
    }

    fn some() -> Vec<BackupEntry> {
        vec![entry("/a", b"1"), entry("/b", &[7; 300]), entry("/c", b"")]
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(read(&written(&some())).unwrap(), some());
        assert_eq!(read(&written(&[])).unwrap(), []);
        let file = written(&[]);
        let reader = Reader::open(file.as_slice()).unwrap();
        assert_eq!(
            (reader.header().format, reader.header().revision),
            (FORMAT, 7)
        );
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_refused() {
        let file = written(&some());
        for length in 0..file.len() {
            let refused = read(&file[..length]).unwrap_err();
            if length < MAGIC.len() {
                assert!(matches!(refused, BackupError::NoBackup), "{length}");
            } else {
                let is_truncated = matches!(refused, BackupError::Truncated { .. });
                assert!(is_truncated, "{length}: {refused}");
            }
        }
    }

    #[test]
    fn a_file_that_is_changed_anywhere_is_refused() {
        let file = written(&some());
        for place in 0..file.len() {
            for bit in 0..8 {
                let mut changed = file.clone();
                changed[place] ^= 1 << bit;
                assert!(read(&changed).is_err(), "byte {place}, bit {bit}");
            }
        }
        let mut longer = file;
        longer.push(b'\n');
        assert!(matches!(read(&longer), Err(BackupError::Continues)));
    }

    #[test]
    fn keys_that_repeat_or_go_back_are_refused() {
        for second in ["/a", "/A"] {
            let file = written(&[entry("/a", b"1"), entry(second, b"2")]);
            let refused = read(&file).unwrap_err();
            assert!(
                matches!(refused, BackupError::Malformed { .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_newer_format_names_the_program_that_reads_it() {
        let newer = BackupHeader {
            format: FORMAT + 1,
            program: "9.9.9".to_owned(),
            ..header()
        };
        let file = [MAGIC, &encoded(Record::Header(newer))].concat();
        let refused = Reader::open(file.as_slice()).unwrap_err().to_string();
        assert!(refused.contains("9.9.9"), "{refused}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            tail in proptest::collection::vec(any::<u8>(), 0..200),
            is_backup in any::<bool>(),
        ) {
            let head: &[u8] = if is_backup { MAGIC } else { b"" };
            prop_assert!(read(&[head, &tail].concat()).is_err());
        }
    }
}
