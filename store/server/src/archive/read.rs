//! From the file of an archive back to its manifest and its state.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{BLOCK, CHECKSUM_BYTES, FORMAT, MANIFEST, Manifest, STATE};

/// Why a file cannot be used as a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It is something else.
    #[error("{path}: not a snapshot: {reason}")]
    NotASnapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It was cut, or copied from somewhere without its checksum.
    #[error("{path}: snapshot without a checksum")]
    NoChecksum {
        /// The file.
        path: PathBuf,
    },
    /// Its bytes are not those that were sent.
    #[error("{path}: checksum {found}, expected {expected}: the snapshot is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the file says.
        expected: String,
        /// What its bytes say.
        found: String,
    },
}

/// A snapshot's file.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    manifest: Manifest,
    bytes: u64,
}

impl Archive {
    /// Reads the manifest.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let refuse = |reason: &str| ArchiveError::NotASnapshot {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let file = within(path, File::open(path))?;
        let bytes = within(path, file.metadata())?.len();
        let mut tar = tar::Archive::new(BufReader::new(file));
        let mut entries = within(path, tar.entries())?;
        let no_manifest = || refuse("it does not begin with a manifest");
        let mut first = entries.next().and_then(Result::ok).ok_or_else(no_manifest)?;
        if first.path().map_or(true, |name| name != Path::new(MANIFEST)) {
            return Err(no_manifest());
        }
        let mut text = Vec::new();
        within(path, first.read_to_end(&mut text))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| refuse(&error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(refuse(&format!("its format is {}", manifest.format)));
        }
        Ok(Self { path: path.to_owned(), manifest, bytes })
    }

    /// What the snapshot says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file's size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Compares the bytes with the checksum at their end, which it gives back.
    pub fn verify(&self) -> Result<[u8; 32], ArchiveError> {
        if self.bytes % BLOCK != CHECKSUM_BYTES {
            return Err(ArchiveError::NoChecksum { path: self.path.clone() });
        }
        let mut file = BufReader::new(within(&self.path, File::open(&self.path))?);
        let mut hash = Sha256::new();
        let mut content = (&mut file).take(self.bytes - CHECKSUM_BYTES);
        within(&self.path, io::copy(&mut content, &mut hash))?;
        let mut expected = [0; 32];
        within(&self.path, file.read_exact(&mut expected))?;
        let found: [u8; 32] = hash.finalize().into();
        if found != expected {
            let (path, expected, found) = (self.path.clone(), hex(&expected), hex(&found));
            return Err(ArchiveError::Damaged { path, expected, found });
        }
        Ok(found)
    }

    /// Writes the state's files into the new folder `dir`.
    pub fn unpack(&self, dir: &Path) -> Result<(), ArchiveError> {
        within(dir, std::fs::create_dir_all(dir))?;
        let file = within(&self.path, File::open(&self.path))?;
        let mut tar = tar::Archive::new(BufReader::new(file));
        for entry in within(&self.path, tar.entries())? {
            let mut entry = within(&self.path, entry)?;
            let name = within(&self.path, entry.path())?.into_owned();
            if name == Path::new(MANIFEST) {
                continue;
            }
            let target = dir.join(self.file_name(&name)?);
            let mut out = within(&target, File::create(&target))?;
            within(&target, io::copy(&mut entry, &mut out))?;
            within(&target, out.sync_all())?;
        }
        within(dir, File::open(dir).and_then(|dir| dir.sync_all()))
    }

    /// `state/FILE`, and nothing that points elsewhere.
    fn file_name<'a>(&self, name: &'a Path) -> Result<&'a Path, ArchiveError> {
        let refuse = || ArchiveError::NotASnapshot {
            path: self.path.clone(),
            reason: format!("it holds {}", name.display()),
        };
        let file = name.strip_prefix(STATE).map_err(|_| refuse())?;
        let mut parts = file.components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(_)), None) => Ok(file),
            _ => Err(refuse()),
        }
    }
}

fn within<T>(path: &Path, result: io::Result<T>) -> Result<T, ArchiveError> {
    result.map_err(|source| ArchiveError::Io { path: path.to_owned(), source })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
