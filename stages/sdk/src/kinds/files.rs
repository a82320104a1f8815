//! The `files` and `raw_record` kinds: bundles of named files.

use bytes::Bytes;

use super::table_error;
use crate::{
    kind::{Kind, KindError, NamedFile},
    table::{Table, TableWriter},
};

/// Files made to be published: figures, reports, samples. Published one by one into a folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Files {
    /// The files, sorted by name.
    pub files: Vec<NamedFile>,
}

/// The WFDB files of one record as bytes: header, signals, annotations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawRecord {
    /// The files, sorted by name.
    pub files: Vec<NamedFile>,
}

impl Files {
    /// A bundle; sorts the files by name.
    #[must_use]
    pub fn new(mut files: Vec<NamedFile>) -> Self {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Self { files }
    }
}

impl RawRecord {
    /// A bundle; sorts the files by name.
    #[must_use]
    pub fn new(files: Vec<NamedFile>) -> Self {
        Self { files: Files::new(files).files }
    }

    /// The content of one file.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|file| file.name == name).map(|file| file.bytes.as_slice())
    }
}

fn encode<K: Kind>(files: &[NamedFile]) -> Result<Vec<u8>, KindError> {
    for pair in files.windows(2) {
        if pair[0].name >= pair[1].name {
            let message = format!("files `{}` and `{}` are not sorted or have one name", pair[0].name, pair[1].name);
            return Err(KindError::Invalid { kind: K::NAME, message });
        }
    }
    let leaves_folder = |name: &str| name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']);
    if let Some(file) = files.iter().find(|file| leaves_folder(&file.name)) {
        let message = format!("`{}` is not a plain file name", file.name);
        return Err(KindError::Invalid { kind: K::NAME, message });
    }
    TableWriter::new(K::NAME, K::VERSION)
        .text("name", files.iter().map(|file| &file.name))
        .binary("bytes", files.iter().map(|file| file.bytes.as_slice()))
        .finish()
        .map_err(table_error::<K>)
}

fn decode<K: Kind>(bytes: &Bytes) -> Result<Vec<NamedFile>, KindError> {
    let read = || {
        let table = Table::read(bytes, K::NAME, K::VERSION)?;
        let rows = table.text("name")?.into_iter().zip(table.binary("bytes")?);
        Ok(rows.map(|(name, bytes)| NamedFile { name, bytes }).collect())
    };
    read().map_err(table_error::<K>)
}

impl Kind for Files {
    const NAME: &'static str = "files";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "a bundle of files to publish: figures, reports, samples";

    const FROM_FILES: Option<fn(Vec<NamedFile>) -> Self> = Some(Self::new);

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        encode::<Self>(&self.files)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        Ok(Self { files: decode::<Self>(bytes)? })
    }

    fn files(&self) -> Option<Vec<NamedFile>> {
        Some(self.files.clone())
    }
}

impl Kind for RawRecord {
    const NAME: &'static str = "raw_record";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "the WFDB files of one record as bytes (.hea, .dat, .atr)";

    const FROM_FILES: Option<fn(Vec<NamedFile>) -> Self> = Some(Self::new);

    fn encode(&self) -> Result<Vec<u8>, KindError> {
        encode::<Self>(&self.files)
    }

    fn decode(bytes: &Bytes) -> Result<Self, KindError> {
        Ok(Self { files: decode::<Self>(bytes)? })
    }

    fn files(&self) -> Option<Vec<NamedFile>> {
        Some(self.files.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> NamedFile {
        NamedFile { name: name.to_owned(), bytes: name.as_bytes().to_vec() }
    }

    #[test]
    fn round_trips_sorted() {
        super::super::check_round_trip(&Files::new(vec![file("b.svg"), file("a.png")]));
        super::super::check_round_trip(&RawRecord::new(vec![file("p1.hea"), file("p1.dat")]));
    }

    #[test]
    fn refuses_names_that_leave_the_folder_and_doubles() {
        for names in [&["../a"][..], &[""], &["a/b"], &[".hidden"], &["a", "a"]] {
            assert!(Files::new(names.iter().map(|name| file(name)).collect()).encode().is_err(), "{names:?}");
        }
    }
}
