//! Owns the one way in which artifacts become Parquet: fixed writer properties, sorted metadata, no times, no machine.
//!
//! Invariant: the same rows and metadata give the same bytes (guarded by `tests::same_rows_give_the_same_bytes`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, cast::AsArray, types,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use bytes::Bytes;
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
        arrow_writer::ArrowWriterOptions,
    },
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{KeyValue, ParquetMetaData, RowGroupMetaData},
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};

/// Why a table could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The Parquet layer failed.
    #[error("not a readable Parquet table: {0}")]
    Parquet(#[from] ParquetError),
    /// The Arrow layer failed.
    #[error("columns do not make a table: {0}")]
    Arrow(#[from] ArrowError),
    /// A column is missing or of another type.
    #[error("column `{column}` is {found}, expected {expected}")]
    Column {
        /// Its name.
        column: String,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A metadata entry is missing or malformed.
    #[error("metadata `{key}` is missing or malformed{detail}")]
    Metadata {
        /// Its name.
        key: String,
        /// What is wrong with it, or nothing.
        detail: String,
    },
    /// Values are missing where the kind has none.
    #[error("column `{column}` has {null_n} nulls, where every value must be there")]
    Nulls {
        /// The column.
        column: String,
        /// How many.
        null_n: usize,
    },
    /// The rows of a column of rows are not of one length.
    #[error("column `{column}` has rows of unequal length")]
    Ragged {
        /// The column.
        column: String,
    },
    /// A codec that this program does not read.
    #[error("column `{column}` is compressed with {codec}; write the file with zstd, snappy or no compression")]
    Codec {
        /// The column.
        column: String,
        /// The codec's name.
        codec: String,
    },
    /// The table is of another kind or version.
    #[error("the table holds {found}, expected {expected}")]
    Kind {
        /// What the file says.
        found: String,
        /// What was asked for.
        expected: String,
    },
}

/// How a column is laid out in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Values as they are: fastest, for noise-like floats.
    Plain,
    /// Differences in packed bits: for samples and positions.
    Delta,
    /// Dictionary and zstd: for names and labels.
    Dictionary,
    /// zstd: for blobs.
    Compressed,
}

/// A table on its way into bytes: columns in order, then metadata.
pub struct TableWriter {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
    layouts: Vec<Layout>,
    metadata: BTreeMap<String, String>,
}

impl TableWriter {
    /// A table of a kind.
    #[must_use]
    pub fn new(kind: &str, version: u32) -> Self {
        let metadata = BTreeMap::from([("ecgpipe.kind".to_owned(), format!("{kind} v{version}"))]);
        Self { fields: Vec::new(), columns: Vec::new(), layouts: Vec::new(), metadata }
    }

    /// Adds a metadata entry, kept as JSON.
    #[must_use]
    pub fn meta(mut self, key: &str, value: &impl serde::Serialize) -> Self {
        let json = serde_json::to_value(value).expect("metadata is plain data");
        self.metadata.insert(key.to_owned(), json.to_string());
        self
    }

    /// States the unit of a column, for readers of the file.
    #[must_use]
    pub fn unit(mut self, column: &str, unit: &str) -> Self {
        self.metadata.insert(format!("unit.{column}"), unit.to_owned());
        self
    }

    /// Integers of 64 bits: positions, counts.
    #[must_use]
    pub fn i64(self, name: &str, values: impl IntoIterator<Item = i64>) -> Self {
        self.column(name, Arc::new(Int64Array::from_iter_values(values)), Layout::Delta, false)
    }

    /// Integers of 32 bits.
    #[must_use]
    pub fn i32(self, name: &str, values: Vec<i32>) -> Self {
        self.column(name, Arc::new(Int32Array::from(values)), Layout::Delta, false)
    }

    /// Integers of 32 bits of which those equal to `null` are stored as nulls.
    #[must_use]
    pub fn i32_nullable(self, name: &str, values: &[i32], null: i32) -> Self {
        let validity =
            values.contains(&null).then(|| values.iter().map(|&value| value != null).collect::<NullBuffer>());
        let nullable = validity.is_some();
        self.column(name, Arc::new(Int32Array::new(values.to_vec().into(), validity)), Layout::Delta, nullable)
    }

    /// Floats of 32 bits.
    #[must_use]
    pub fn f32(self, name: &str, values: Vec<f32>) -> Self {
        self.column(name, Arc::new(Float32Array::from(values)), Layout::Plain, false)
    }

    /// Floats of 64 bits.
    #[must_use]
    pub fn f64(self, name: &str, values: Vec<f64>) -> Self {
        self.column(name, Arc::new(Float64Array::from(values)), Layout::Plain, false)
    }

    /// Truth values.
    #[must_use]
    pub fn bool(self, name: &str, values: Vec<bool>) -> Self {
        self.column(name, Arc::new(BooleanArray::from(values)), Layout::Plain, false)
    }

    /// Texts.
    #[must_use]
    pub fn text<T: AsRef<str>>(self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        self.column(name, Arc::new(StringArray::from_iter_values(values)), Layout::Dictionary, false)
    }

    /// Texts that may be absent.
    #[must_use]
    pub fn optional_text<T: AsRef<str>>(self, name: &str, values: impl IntoIterator<Item = Option<T>>) -> Self {
        self.column(name, Arc::new(values.into_iter().collect::<StringArray>()), Layout::Dictionary, true)
    }

    /// Blobs.
    #[must_use]
    pub fn binary<'a>(self, name: &str, values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        self.column(name, Arc::new(BinaryArray::from_iter_values(values)), Layout::Compressed, false)
    }

    /// Rows of `width` floats each, row after row in `values`.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows: the caller checks its own invariant first.
    #[must_use]
    pub fn f32_rows(self, name: &str, width: usize, values: Vec<f32>) -> Self {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let width = i32::try_from(width).expect("a row is short");
        let list = FixedSizeListArray::new(item, width, Arc::new(Float32Array::from(values)), None);
        self.column(name, Arc::new(list), Layout::Plain, false)
    }

    /// The finished bytes.
    ///
    /// # Errors
    /// If the columns are not of one length.
    pub fn finish(self) -> Result<Vec<u8>, TableError> {
        let mut properties = WriterProperties::builder()
            .set_created_by("ecgpipe".to_owned())
            .set_max_row_group_row_count(Some(1 << 22))
            .set_data_page_row_count_limit(1 << 22)
            .set_data_page_size_limit(1 << 23)
            .set_write_batch_size(1 << 16)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            .set_dictionary_enabled(false)
            .set_compression(Compression::UNCOMPRESSED)
            .set_key_value_metadata(Some(
                self.metadata.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
            ));
        for (field, layout) in self.fields.iter().zip(&self.layouts) {
            let path = ColumnPath::from(field.name().as_str());
            let zstd = Compression::ZSTD(ZstdLevel::try_new(1)?);
            properties = match layout {
                Layout::Plain => properties,
                Layout::Delta => properties.set_column_encoding(path, Encoding::DELTA_BINARY_PACKED),
                Layout::Dictionary => {
                    properties.set_column_dictionary_enabled(path.clone(), true).set_column_compression(path, zstd)
                }
                Layout::Compressed => properties.set_column_compression(path, zstd),
            };
        }
        let schema = Arc::new(Schema::new(self.fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), self.columns)?;
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(Vec::new(), schema, options)?;
        writer.write(&batch)?;
        Ok(writer.into_inner()?)
    }

    fn column(mut self, name: &str, column: ArrayRef, layout: Layout, nullable: bool) -> Self {
        self.fields.push(Field::new(name, column.data_type().clone(), nullable));
        self.columns.push(column);
        self.layouts.push(layout);
        self
    }
}

/// A table out of bytes.
pub struct Table {
    batch: RecordBatch,
    metadata: BTreeMap<String, String>,
}

impl Table {
    /// Reads a whole table and checks that it is of this kind and version.
    ///
    /// # Errors
    /// If the bytes are no Parquet table, or one of another kind or version.
    pub fn read(bytes: &Bytes, kind: &str, version: u32) -> Result<Self, TableError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options)?;
        let file = builder.metadata().file_metadata();
        let metadata = entries(builder.metadata());
        let expected = format!("{kind} v{version}");
        let found = metadata.get("ecgpipe.kind").cloned().unwrap_or_else(|| "a table of no kind".to_owned());
        if found != expected {
            return Err(TableError::Kind { found, expected });
        }
        check_codecs(builder.metadata())?;
        let row_n = usize::try_from(file.num_rows()).unwrap_or_default();
        let schema = Arc::clone(builder.schema());
        // One batch holds the whole table: artifacts are read whole, and columns are then handed on without copies.
        let mut batches = builder.with_batch_size(row_n.max(1)).build()?;
        let batch = batches.next().transpose()?.unwrap_or_else(|| RecordBatch::new_empty(schema));
        if batch.num_rows() != row_n {
            let message = format!("it should have {row_n} rows, but {} can be read", batch.num_rows());
            return Err(TableError::Parquet(ParquetError::General(message)));
        }
        Ok(Self { batch, metadata })
    }

    /// How many rows there are.
    #[must_use]
    pub fn row_n(&self) -> usize {
        self.batch.num_rows()
    }

    /// A metadata entry.
    ///
    /// # Errors
    /// If it is missing or not of type `T`.
    pub fn meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T, TableError> {
        let missing = || TableError::Metadata { key: key.to_owned(), detail: String::new() };
        let json = self.metadata.get(key).ok_or_else(missing)?;
        serde_json::from_str(json)
            .map_err(|error| TableError::Metadata { key: key.to_owned(), detail: format!(" ({error})") })
    }

    /// A column of 64-bit integers.
    ///
    /// # Errors
    /// If there is no such column of that type; the same holds for the methods below.
    pub fn i64(&self, name: &str) -> Result<Vec<i64>, TableError> {
        let column = self.full_column(name, "64-bit integers")?;
        let typed = column.as_primitive_opt::<types::Int64Type>();
        Ok(typed.ok_or_else(|| mismatch(name, column, "64-bit integers"))?.values().to_vec())
    }

    /// A column of 32-bit integers.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn i32(&self, name: &str) -> Result<Vec<i32>, TableError> {
        self.full_column(name, "32-bit integers")?;
        self.i32_values(name)
    }

    fn i32_values(&self, name: &str) -> Result<Vec<i32>, TableError> {
        let column = self.column(name, "32-bit integers")?;
        let typed = column.as_primitive_opt::<types::Int32Type>();
        Ok(typed.ok_or_else(|| mismatch(name, column, "32-bit integers"))?.values().to_vec())
    }

    /// A column of 32-bit integers whose nulls become `null`.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn i32_nullable(&self, name: &str, null: i32) -> Result<Vec<i32>, TableError> {
        let mut values = self.i32_values(name)?;
        if let Some(validity) = self.column(name, "32-bit integers")?.nulls() {
            for (value, valid) in values.iter_mut().zip(validity) {
                if !valid {
                    *value = null;
                }
            }
        }
        Ok(values)
    }

    /// A column of 32-bit floats.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn f32(&self, name: &str) -> Result<Vec<f32>, TableError> {
        let column = self.full_column(name, "32-bit floats")?;
        let typed = column.as_primitive_opt::<types::Float32Type>();
        Ok(typed.ok_or_else(|| mismatch(name, column, "32-bit floats"))?.values().to_vec())
    }

    /// A column of 64-bit floats.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn f64(&self, name: &str) -> Result<Vec<f64>, TableError> {
        let column = self.full_column(name, "64-bit floats")?;
        let typed = column.as_primitive_opt::<types::Float64Type>();
        Ok(typed.ok_or_else(|| mismatch(name, column, "64-bit floats"))?.values().to_vec())
    }

    /// A column of truth values.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn bool(&self, name: &str) -> Result<Vec<bool>, TableError> {
        let column = self.full_column(name, "truth values")?;
        let typed = column.as_boolean_opt().ok_or_else(|| mismatch(name, column, "truth values"))?;
        Ok(typed.values().iter().collect())
    }

    /// A column of texts.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn text(&self, name: &str) -> Result<Vec<String>, TableError> {
        self.full_column(name, "texts")?;
        Ok(self.optional_text(name)?.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// A column of texts that may be absent.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn optional_text(&self, name: &str) -> Result<Vec<Option<String>>, TableError> {
        let column = self.column(name, "texts")?;
        let typed = column.as_string_opt::<i32>().ok_or_else(|| mismatch(name, column, "texts"))?;
        Ok(typed.iter().map(|text| text.map(str::to_owned)).collect())
    }

    /// A column of blobs.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn binary(&self, name: &str) -> Result<Vec<Vec<u8>>, TableError> {
        let column = self.full_column(name, "blobs")?;
        let typed = column.as_binary_opt::<i32>().ok_or_else(|| mismatch(name, column, "blobs"))?;
        Ok(typed.iter().map(|blob| blob.unwrap_or_default().to_vec()).collect())
    }

    /// A column of rows of floats, row after row.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn f32_rows(&self, name: &str) -> Result<Vec<f32>, TableError> {
        let column = self.full_column(name, "rows of 32-bit floats")?;
        let list: &ListArray = column.as_list_opt().ok_or_else(|| mismatch(name, column, "rows of 32-bit floats"))?;
        let values = list.values().as_primitive_opt::<types::Float32Type>();
        let values = values.ok_or_else(|| mismatch(name, column, "rows of 32-bit floats"))?;
        let offsets = list.value_offsets();
        // Offsets count from the first row's; a table that was read whole starts at 0.
        let (start, end) = (offsets.first().copied().unwrap_or(0), offsets.last().copied().unwrap_or(0));
        let width = offsets.windows(2).next().map_or(0, |row| row[1] - row[0]);
        if offsets.windows(2).any(|row| row[1] - row[0] != width) {
            return Err(TableError::Ragged { column: name.to_owned() });
        }
        if values.null_count() > 0 {
            return Err(TableError::Nulls { column: name.to_owned(), null_n: values.null_count() });
        }
        Ok(values.values()[start as usize..end as usize].to_vec())
    }

    /// A column in which every value must be there. Tools outside mark columns as nullable that have no nulls, which is
    /// harmless; a null that became a 0 would not be.
    fn full_column(&self, name: &str, expected: &'static str) -> Result<&ArrayRef, TableError> {
        let column = self.column(name, expected)?;
        match column.null_count() {
            0 => Ok(column),
            null_n => Err(TableError::Nulls { column: name.to_owned(), null_n }),
        }
    }

    fn column(&self, name: &str, expected: &'static str) -> Result<&ArrayRef, TableError> {
        self.batch.column_by_name(name).ok_or_else(|| TableError::Column {
            column: name.to_owned(),
            found: "missing".to_owned(),
            expected,
        })
    }
}

/// What a table says of itself without its rows: the names of its columns, and its metadata.
///
/// # Errors
/// If the bytes are no Parquet table.
pub fn outline(bytes: &Bytes) -> Result<(BTreeSet<String>, BTreeMap<String, String>), TableError> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options)?;
    let columns = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    Ok((columns, entries(builder.metadata())))
}

fn entries(file: &ParquetMetaData) -> BTreeMap<String, String> {
    let entries = file.file_metadata().key_value_metadata().map(Vec::as_slice).unwrap_or_default();
    entries.iter().filter_map(|entry| Some((entry.key.clone(), entry.value.clone()?))).collect()
}

/// Says which codec is in the way before a page is read: the reader itself would name a feature of its own build.
fn check_codecs(file: &ParquetMetaData) -> Result<(), TableError> {
    for column in file.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let codec = column.compression();
        if !matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::ZSTD(_)) {
            let codec = format!("{codec:?}");
            let codec = codec.split('(').next().unwrap_or_default().to_lowercase();
            return Err(TableError::Codec { column: column.column_path().string(), codec });
        }
    }
    Ok(())
}

fn mismatch(name: &str, column: &ArrayRef, expected: &'static str) -> TableError {
    TableError::Column { column: name.to_owned(), found: column.data_type().to_string(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> TableWriter {
        TableWriter::new("thing", 1)
            .meta("list", &[1, 2, 3])
            .unit("position", "samples")
            .i64("position", [5, 7, 1 << 40])
            .i32_nullable("sample", &[1, i32::MIN, 3], i32::MIN)
            .f32_rows("window", 2, vec![0.0, 0.5, 1.0, -1.0, 2.0, 3.0])
            .optional_text("symbol", [Some("N"), None, Some("V")])
            .bool("flag", vec![true, false, true])
            .binary("blob", [&b"ab"[..], b"", b"c"])
    }

    #[test]
    fn same_rows_give_the_same_bytes() {
        assert_eq!(sample().finish().expect("valid table"), sample().finish().expect("valid table"));
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let bytes = Bytes::from(sample().finish().expect("valid table"));
        let table = Table::read(&bytes, "thing", 1).expect("own table");
        assert_eq!(table.meta::<Vec<i32>>("list").expect("entry"), [1, 2, 3]);
        assert_eq!(table.i64("position").expect("column"), [5, 7, 1 << 40]);
        assert_eq!(table.i32_nullable("sample", -9).expect("column"), [1, -9, 3]);
        assert_eq!(table.f32_rows("window").expect("column"), [0.0, 0.5, 1.0, -1.0, 2.0, 3.0]);
        assert_eq!(table.optional_text("symbol").expect("column"), [Some("N".to_owned()), None, Some("V".to_owned())]);
        assert_eq!(table.bool("flag").expect("column"), [true, false, true]);
        assert_eq!(table.binary("blob").expect("column"), [b"ab".to_vec(), Vec::new(), b"c".to_vec()]);
    }

    #[test]
    fn says_what_is_wrong_with_a_table() {
        let bytes = Bytes::from(sample().finish().expect("valid table"));
        let message = |result: Result<Table, TableError>| result.err().expect("an error").to_string();
        assert_eq!(message(Table::read(&bytes, "other", 2)), "the table holds thing v1, expected other v2");
        assert!(
            message(Table::read(&bytes.slice(..bytes.len() - 3), "thing", 1)).starts_with("not a readable Parquet")
        );
        let table = Table::read(&bytes, "thing", 1).expect("own table");
        let error = table.i64("nothing").expect_err("no such column").to_string();
        assert_eq!(error, "column `nothing` is missing, expected 64-bit integers");
        let error = table.f32("position").expect_err("another type").to_string();
        assert_eq!(error, "column `position` is Int64, expected 32-bit floats");
    }

    /// A table as other programs write it: every column nullable, two row groups, a codec of their choice.
    fn foreign(columns: Vec<(&str, ArrayRef)>, codec: Compression) -> Bytes {
        let fields: Vec<Field> =
            columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let arrays = columns.into_iter().map(|(_, column)| column).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).expect("columns of one length");
        let kind = KeyValue::new("ecgpipe.kind".to_owned(), "thing v1".to_owned());
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_max_row_group_row_count(Some(2))
            .set_key_value_metadata(Some(vec![kind]));
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties.build())).expect("a writer");
        writer.write(&batch).expect("a valid batch");
        writer.into_inner().expect("a file").into()
    }

    fn rows(rows: Vec<Option<Vec<Option<f32>>>>) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<types::Float32Type, _, _>(rows))
    }

    #[test]
    fn what_other_programs_write_is_read_when_it_says_the_same() {
        for codec in [Compression::SNAPPY, Compression::UNCOMPRESSED, Compression::ZSTD(ZstdLevel::default())] {
            let large: ArrayRef = Arc::new(arrow_array::LargeStringArray::from(vec!["x", "y", "x"]));
            let window = rows(vec![Some(vec![Some(0.5), Some(1.0)]); 3]);
            let columns: Vec<(&str, ArrayRef)> =
                vec![("position", Arc::new(Int64Array::from(vec![5, 7, 9]))), ("name", large), ("window", window)];
            let table = Table::read(&foreign(columns, codec), "thing", 1).expect("a table");
            assert_eq!(table.i64("position").expect("column"), [5, 7, 9]);
            assert_eq!(table.text("name").expect("column"), ["x", "y", "x"]);
            assert_eq!(table.f32_rows("window").expect("column"), [0.5, 1.0, 0.5, 1.0, 0.5, 1.0]);
        }
    }

    #[test]
    fn what_other_programs_write_is_refused_when_it_says_something_else() {
        let window = |rows| foreign(vec![("window", rows)], Compression::SNAPPY);
        let error = |bytes: Bytes| {
            let table = Table::read(&bytes, "thing", 1)?;
            table.f32_rows("window").map(|_| String::new())
        };
        let message = |bytes: Bytes| error(bytes).expect_err("it is refused").to_string();
        let ragged = rows(vec![Some(vec![Some(0.5)]), Some(vec![Some(0.5); 3]), Some(vec![Some(0.5); 2])]);
        assert_eq!(message(window(ragged)), "column `window` has rows of unequal length");
        let hole = rows(vec![Some(vec![Some(0.5), None]), Some(vec![Some(0.5); 2])]);
        assert_eq!(message(window(hole)), "column `window` has 1 nulls, where every value must be there");
        let missing = rows(vec![Some(vec![Some(0.5)]), None]);
        assert_eq!(message(window(missing)), "column `window` has 1 nulls, where every value must be there");
        let nulls: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let table = Table::read(&foreign(vec![("position", nulls)], Compression::SNAPPY), "thing", 1).expect("a table");
        let error = table.i64("position").expect_err("a null").to_string();
        assert_eq!(error, "column `position` has 1 nulls, where every value must be there");
        let narrow: ArrayRef = Arc::new(arrow_array::Int16Array::from(vec![1, 2]));
        let table = Table::read(&foreign(vec![("sample", narrow)], Compression::SNAPPY), "thing", 1).expect("a table");
        let error = table.i32("sample").expect_err("another size").to_string();
        assert_eq!(error, "column `sample` is Int16, expected 32-bit integers");
    }

    #[test]
    fn an_outline_has_columns_and_metadata() {
        let (columns, metadata) = outline(&Bytes::from(sample().finish().expect("valid table"))).expect("a table");
        assert_eq!(columns.len(), 6);
        assert_eq!(metadata["unit.position"], "samples");
    }

    #[test]
    fn an_empty_table_reads_back() {
        let bytes = TableWriter::new("thing", 1).i64("position", []).f32_rows("window", 3, Vec::new()).finish();
        let table = Table::read(&Bytes::from(bytes.expect("valid table")), "thing", 1).expect("own table");
        assert_eq!((table.row_n(), table.f32_rows("window").expect("column").len()), (0, 0));
    }
}
