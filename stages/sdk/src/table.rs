//! Owns the one way in which artifacts become Parquet: fixed writer properties, sorted metadata, no times, no machine.
//!
//! A table that is too large for memory is written piece by piece ([`TableStream`]) and read column by column, some rows at
//! a time ([`StoredTable`]).
//!
//! Invariant: the same rows and metadata give the same bytes (guarded by `tests::same_rows_give_the_same_bytes`), in
//! whatever pieces they were written (guarded by `tests::pieces_do_not_matter`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    ops::Range,
    sync::Arc,
};

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, RecordBatch, StringArray, cast::AsArray, types,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
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

use crate::content::Content;

/// Most rows in a row group: what is read of a column at a time.
pub const GROUP_ROW_N: usize = 1 << 20;

/// Most bytes that a column of rows takes in a row group.
const GROUP_LIST_BYTE_N: usize = 4 << 20;

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

    /// Integers of 32 bits of which those equal to `null` are stored as nulls. The column is nullable only if there is one.
    #[must_use]
    pub fn i32_nullable(self, name: &str, values: &[i32], null: i32) -> Self {
        if values.contains(&null) {
            return self.i32_piece_with_nulls(name, values, null);
        }
        self.i32(name, values.to_vec())
    }

    /// As [`TableWriter::i32_nullable`], but the column is nullable whatever these rows hold: for one piece of a table.
    #[must_use]
    pub fn i32_piece_with_nulls(self, name: &str, values: &[i32], null: i32) -> Self {
        let validity =
            values.contains(&null).then(|| values.iter().map(|&value| value != null).collect::<NullBuffer>());
        self.column(name, Arc::new(Int32Array::new(values.to_vec().into(), validity)), Layout::Delta, true)
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
        self.stream(Vec::new())?.finish()
    }

    /// Begins a table of several pieces, of which this is the first; it may be without rows. The metadata is that of the whole.
    ///
    /// # Errors
    /// If the columns are not of one length, or the sink cannot be written.
    pub fn stream<W: Write + Send>(self, sink: W) -> Result<TableStream<W>, TableError> {
        let mut properties = WriterProperties::builder()
            .set_created_by("ecgpipe".to_owned())
            .set_max_row_group_row_count(None)
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
        let group_row_n = self.fields.iter().map(|field| group_row_n(field.data_type())).min().unwrap_or(GROUP_ROW_N);
        let schema = Arc::new(Schema::new(self.fields));
        let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(sink, Arc::clone(&schema), options)?;
        let mut stream = TableStream { writer, schema, group_row_n, open_row_n: 0 };
        stream.write(self.columns)?;
        Ok(stream)
    }

    fn column(mut self, name: &str, column: ArrayRef, layout: Layout, nullable: bool) -> Self {
        self.fields.push(Field::new(name, column.data_type().clone(), nullable));
        self.columns.push(column);
        self.layouts.push(layout);
        self
    }
}

fn group_row_n(data_type: &DataType) -> usize {
    match data_type {
        DataType::FixedSizeList(_, width) => {
            let row_byte_n = usize::try_from(*width).unwrap_or(1).max(1) * size_of::<f32>();
            (GROUP_LIST_BYTE_N / row_byte_n).clamp(1, GROUP_ROW_N)
        }
        _ => GROUP_ROW_N,
    }
}

/// A table on its way into a file, piece by piece.
pub struct TableStream<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: SchemaRef,
    group_row_n: usize,
    /// Rows in the row group that is being written.
    open_row_n: usize,
}

impl<W: Write + Send> TableStream<W> {
    /// Appends rows: the columns of the first piece, in its order and of its types. Metadata and units are not looked at.
    ///
    /// # Errors
    /// If columns differ from those of the first piece, or the sink cannot be written.
    pub fn append(&mut self, piece: TableWriter) -> Result<(), TableError> {
        self.write(piece.columns)
    }

    /// Ends the table and gives the sink back.
    ///
    /// # Errors
    /// If the sink cannot be written.
    pub fn finish(self) -> Result<W, TableError> {
        Ok(self.writer.into_inner()?)
    }

    fn write(&mut self, columns: Vec<ArrayRef>) -> Result<(), TableError> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let mut written_n = 0;
        while written_n < batch.num_rows() {
            let piece_n = (self.group_row_n - self.open_row_n).min(batch.num_rows() - written_n);
            self.writer.write(&batch.slice(written_n, piece_n))?;
            written_n += piece_n;
            self.open_row_n += piece_n;
            if self.open_row_n == self.group_row_n {
                self.writer.flush()?;
                self.open_row_n = 0;
            }
        }
        Ok(())
    }
}

/// A table that stays where it is; rows of a column are read when they are asked for.
#[derive(Clone, Debug)]
pub struct StoredTable {
    content: Content,
    file: ArrowReaderMetadata,
    metadata: BTreeMap<String, String>,
}

impl StoredTable {
    /// Reads what the table says of itself, and checks that it is of this kind and version.
    ///
    /// # Errors
    /// If the content is no Parquet table, or one of another kind or version.
    pub fn open(content: &Content, kind: &str, version: u32) -> Result<Self, TableError> {
        let table = Self::open_any(content)?;
        let expected = format!("{kind} v{version}");
        let found = table.metadata.get("ecgpipe.kind").cloned().unwrap_or_else(|| "a table of no kind".to_owned());
        if found != expected {
            return Err(TableError::Kind { found, expected });
        }
        check_codecs(table.file.metadata())?;
        Ok(table)
    }

    fn open_any(content: &Content) -> Result<Self, TableError> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let file = ArrowReaderMetadata::load(content, options)?;
        let metadata = entries(file.metadata());
        Ok(Self { content: content.clone(), file, metadata })
    }

    /// All rows and columns, brought into memory.
    ///
    /// # Errors
    /// If the content cannot be read.
    pub fn load(&self) -> Result<Table, TableError> {
        let row_n = self.row_n();
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.content.clone(), self.file.clone());
        let schema = Arc::clone(builder.schema());
        // One batch holds the whole table: artifacts are read whole, and columns are then handed on without copies.
        let mut batches = builder.with_batch_size(row_n.max(1)).build()?;
        let batch = batches.next().transpose()?.unwrap_or_else(|| RecordBatch::new_empty(schema));
        if batch.num_rows() != row_n {
            return Err(short(row_n, batch.num_rows()));
        }
        Ok(Table { batch, metadata: self.metadata.clone() })
    }

    /// How many rows there are.
    #[must_use]
    pub fn row_n(&self) -> usize {
        usize::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or_default()
    }

    /// A metadata entry.
    ///
    /// # Errors
    /// If it is missing or not of type `T`.
    pub fn meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T, TableError> {
        metadata_entry(&self.metadata, key)
    }

    /// The type of a column, checked as [`StoredTable::i32_nullable`] will find it.
    ///
    /// # Errors
    /// If there is no such column of 32-bit integers.
    pub fn check_i32(&self, name: &str) -> Result<(), TableError> {
        const EXPECTED: &str = "32-bit integers";
        let missing = TableError::Column { column: name.to_owned(), found: "missing".to_owned(), expected: EXPECTED };
        let (_, field) = self.file.schema().column_with_name(name).ok_or(missing)?;
        match field.data_type() {
            DataType::Int32 => Ok(()),
            other => Err(TableError::Column { column: name.to_owned(), found: other.to_string(), expected: EXPECTED }),
        }
    }

    /// Some rows of a column of 32-bit integers whose nulls become `null`. Row groups outside the range are not read.
    ///
    /// # Errors
    /// If there is no such column of that type, or the content cannot be read.
    ///
    /// # Panics
    /// If the range is not within the table, as slicing does.
    pub fn i32_nullable(&self, name: &str, rows: Range<usize>, null: i32) -> Result<Vec<i32>, TableError> {
        assert!(rows.start <= rows.end && rows.end <= self.row_n(), "rows {rows:?} of {}", self.row_n());
        self.check_i32(name)?;
        let mut groups = Vec::new();
        let (mut group_start, mut first_start) = (0, 0);
        for (group_idx, group) in self.file.metadata().row_groups().iter().enumerate() {
            let group_end = group_start + usize::try_from(group.num_rows()).unwrap_or_default();
            if group_start < rows.end && rows.start < group_end {
                first_start = if groups.is_empty() { group_start } else { first_start };
                groups.push(group_idx);
            }
            group_start = group_end;
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.content.clone(), self.file.clone());
        let projection = ProjectionMask::columns(builder.parquet_schema(), [name]);
        let reader = builder
            .with_projection(projection)
            .with_row_groups(groups)
            .with_offset(rows.start - first_start)
            .with_limit(rows.len())
            .with_batch_size(rows.len().clamp(1, 1 << 16))
            .build()?;
        let mut values = Vec::with_capacity(rows.len());
        for batch in reader {
            let column = Arc::clone(batch?.column(0));
            let typed = column.as_primitive_opt::<types::Int32Type>();
            append_with_nulls(&mut values, typed.ok_or_else(|| mismatch(name, &column, "32-bit integers"))?, null);
        }
        if values.len() != rows.len() {
            return Err(short(rows.len(), values.len()));
        }
        Ok(values)
    }
}

fn append_with_nulls(values: &mut Vec<i32>, array: &Int32Array, null: i32) {
    let first = values.len();
    values.extend_from_slice(array.values());
    if let Some(validity) = array.nulls() {
        for (value, valid) in values[first..].iter_mut().zip(validity) {
            if !valid {
                *value = null;
            }
        }
    }
}

fn short(expected_n: usize, found_n: usize) -> TableError {
    let message = format!("it should have {expected_n} rows, but {found_n} can be read");
    TableError::Parquet(ParquetError::General(message))
}

fn metadata_entry<T: serde::de::DeserializeOwned>(
    metadata: &BTreeMap<String, String>,
    key: &str,
) -> Result<T, TableError> {
    let missing = || TableError::Metadata { key: key.to_owned(), detail: String::new() };
    let json = metadata.get(key).ok_or_else(missing)?;
    serde_json::from_str(json)
        .map_err(|error| TableError::Metadata { key: key.to_owned(), detail: format!(" ({error})") })
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
        StoredTable::open(&Content::Memory(bytes.clone()), kind, version)?.load()
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
        metadata_entry(&self.metadata, key)
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
        self.i32_nullable(name, 0)
    }

    /// A column of 32-bit integers whose nulls become `null`.
    ///
    /// # Errors
    /// See [`Table::i64`].
    pub fn i32_nullable(&self, name: &str, null: i32) -> Result<Vec<i32>, TableError> {
        let column = self.column(name, "32-bit integers")?;
        let typed = column.as_primitive_opt::<types::Int32Type>();
        let mut values = Vec::with_capacity(column.len());
        append_with_nulls(&mut values, typed.ok_or_else(|| mismatch(name, column, "32-bit integers"))?, null);
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

/// One way in which two tables differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableDifference {
    /// A metadata entry has another value, or only one table has it.
    Metadata {
        /// Its name.
        key: String,
    },
    /// The tables have other numbers of rows.
    Rows {
        /// Of the first.
        first_n: usize,
        /// Of the second.
        second_n: usize,
    },
    /// A column is of another type, or only one table has it.
    Column {
        /// Its name.
        column: String,
    },
    /// Some values of a column differ.
    Values {
        /// Its name.
        column: String,
        /// In how many rows.
        row_n: usize,
        /// The first of these rows, from 0.
        first_row_idx: usize,
    },
}

impl std::fmt::Display for TableDifference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Metadata { key } => write!(formatter, "the metadata `{key}` differs"),
            Self::Rows { first_n, second_n } => write!(formatter, "{first_n} rows against {second_n}"),
            Self::Column { column } => write!(formatter, "column `{column}` is of another type or in one table only"),
            Self::Values { column, row_n, first_row_idx } => {
                write!(formatter, "column `{column}` differs in {row_n} rows, first in row {first_row_idx}")
            }
        }
    }
}

/// In what two tables of any kind differ: metadata, then columns by name; rows are compared one with one, by their bits.
///
/// # Errors
/// If one of them is no Parquet table.
pub fn table_differences(first: &Bytes, second: &Bytes) -> Result<Vec<TableDifference>, TableError> {
    let load = |bytes: &Bytes| StoredTable::open_any(&Content::Memory(bytes.clone()))?.load();
    let (first, second) = (load(first)?, load(second)?);
    let keys: BTreeSet<&String> = first.metadata.keys().chain(second.metadata.keys()).collect();
    let metadata = keys.into_iter().filter(|key| first.metadata.get(*key) != second.metadata.get(*key));
    let mut found: Vec<_> = metadata.map(|key| TableDifference::Metadata { key: key.clone() }).collect();
    let (first_n, second_n) = (first.row_n(), second.row_n());
    if first_n != second_n {
        found.push(TableDifference::Rows { first_n, second_n });
    }
    let names = |table: &Table| -> BTreeSet<String> {
        table.batch.schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    for column in names(&first).union(&names(&second)) {
        match (first.batch.column_by_name(column), second.batch.column_by_name(column)) {
            (Some(a), Some(b)) if a.data_type() == b.data_type() => {
                let differs = |row_idx: &usize| *a.slice(*row_idx, 1) != *b.slice(*row_idx, 1);
                let rows: Vec<usize> = (0..first_n.min(second_n)).filter(differs).collect();
                if let Some(&first_row_idx) = rows.first() {
                    let (column, row_n) = (column.clone(), rows.len());
                    found.push(TableDifference::Values { column, row_n, first_row_idx });
                }
            }
            _ => found.push(TableDifference::Column { column: column.clone() }),
        }
    }
    Ok(found)
}

/// What a table says of itself without its rows: the names of its columns, and its metadata.
///
/// # Errors
/// If the bytes are no Parquet table.
pub fn outline(bytes: &Bytes) -> Result<(BTreeSet<String>, BTreeMap<String, String>), TableError> {
    let table = StoredTable::open_any(&Content::Memory(bytes.clone()))?;
    let columns = table.file.schema().fields().iter().map(|field| field.name().clone()).collect();
    Ok((columns, table.metadata))
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
    fn differences_name_metadata_rows_columns_and_values() {
        let differences = |first: TableWriter, second: TableWriter| -> Vec<String> {
            let [first, second] = [first, second].map(|table| Bytes::from(table.finish().expect("valid table")));
            table_differences(&first, &second).expect("two tables").iter().map(ToString::to_string).collect()
        };
        let table = |values: [i64; 4]| TableWriter::new("thing", 1).i64("position", values);
        assert!(differences(sample(), sample()).is_empty());
        let changed = differences(table([1, 2, 3, 4]), table([1, 9, 3, 9]));
        assert_eq!(changed, ["column `position` differs in 2 rows, first in row 1"]);
        let other = table([1, 2, 3, 4]).meta("rate", &360);
        let longer = TableWriter::new("thing", 1).i64("position", [1, 2, 3, 4, 5]).bool("flag", vec![true; 5]);
        let expected = [
            "the metadata `rate` differs",
            "4 rows against 5",
            "column `flag` is of another type or in one table only",
        ];
        assert_eq!(differences(other, longer), expected);
        assert!(table_differences(&Bytes::from_static(b"text"), &Bytes::new()).is_err());
    }

    /// Rows over three row groups, the samples with nulls in the second.
    fn long(rows: Range<usize>) -> TableWriter {
        let samples: Vec<i32> =
            rows.clone().map(|row| if row == GROUP_ROW_N + 5 { -1 } else { row as i32 % 977 }).collect();
        TableWriter::new("thing", 1)
            .i64("position", rows.clone().map(|row| 3 * row as i64))
            .i32_piece_with_nulls("sample", &samples, -1)
            .optional_text("symbol", rows.map(|row| (row % 7 == 0).then_some("N")))
    }

    #[test]
    fn pieces_do_not_matter() {
        let row_n = 2 * GROUP_ROW_N + 1000;
        let whole = long(0..row_n).finish().expect("valid table");
        for piece_n in [GROUP_ROW_N - 1, 300_007] {
            let mut stream = long(0..0).stream(Vec::new()).expect("a sink");
            for start in (0..row_n).step_by(piece_n) {
                stream.append(long(start..(start + piece_n).min(row_n))).expect("the same columns");
            }
            assert!(stream.finish().expect("a sink") == whole, "pieces of {piece_n}");
        }
        // Groups of a table with rows of floats are shorter.
        let wide = |rows: Range<usize>| {
            let values: Vec<f32> = (rows.start * 1024..rows.end * 1024).map(|value| value as f32).collect();
            TableWriter::new("thing", 1).i64("position", rows.map(|row| row as i64)).f32_rows("window", 1024, values)
        };
        let whole = wide(0..2100).finish().expect("valid table");
        let mut stream = wide(0..5).stream(Vec::new()).expect("a sink");
        for rows in [5..1500, 1500..1500, 1500..2100] {
            stream.append(wide(rows)).expect("the same columns");
        }
        assert!(stream.finish().expect("a sink") == whole);
        let table = Table::read(&Bytes::from(whole), "thing", 1).expect("own table");
        assert_eq!(table.f32_rows("window").expect("column")[2_099 * 1024], 2_099.0 * 1024.0);
    }

    #[test]
    fn rows_of_a_stored_column_are_read_by_range() {
        let row_n = 2 * GROUP_ROW_N + 1000;
        let content = Content::from(long(0..row_n).finish().expect("valid table"));
        let table = StoredTable::open(&content, "thing", 1).expect("own table");
        assert_eq!(table.row_n(), row_n);
        let expected = |row: usize| if row == GROUP_ROW_N + 5 { -9 } else { row as i32 % 977 };
        let ranges = [0..0, 0..10, 5..GROUP_ROW_N + 10, GROUP_ROW_N - 1..row_n, row_n - 1..row_n, row_n..row_n];
        for rows in ranges.into_iter().chain([GROUP_ROW_N..2 * GROUP_ROW_N, 0..row_n]) {
            let found = table.i32_nullable("sample", rows.clone(), -9).expect("a column");
            assert!(found == rows.clone().map(expected).collect::<Vec<_>>(), "{rows:?}");
        }
        let error = table.i32_nullable("position", 0..1, -9).expect_err("another type").to_string();
        assert_eq!(error, "column `position` is Int64, expected 32-bit integers");
        let error = table.i32_nullable("nothing", 0..1, -9).expect_err("no such column").to_string();
        assert_eq!(error, "column `nothing` is missing, expected 32-bit integers");
    }

    #[test]
    fn an_empty_table_reads_back() {
        let bytes = TableWriter::new("thing", 1).i64("position", []).f32_rows("window", 3, Vec::new()).finish();
        let table = Table::read(&Bytes::from(bytes.expect("valid table")), "thing", 1).expect("own table");
        assert_eq!((table.row_n(), table.f32_rows("window").expect("column").len()), (0, 0));
    }
}
