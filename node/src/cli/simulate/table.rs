//! Rows for other programs: CSV and Parquet.
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use branchline_simulations::capacity::HostResult;
use parquet::{
    basic::{ConvertedType, Repetition, Type as Physical},
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::types::Type,
};

use super::error::CommandError;

/// Rows that are made and written at a time, so that ten million hosts do not take their memory twice.
const ROWS_AT_A_TIME: usize = 500_000;

/// The values of one column.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Whole numbers.
    Whole(Vec<i64>),
    /// Numbers; some may be missing.
    Numbers(Vec<Option<f64>>),
    /// Words.
    Words(Vec<String>),
    /// Yes or no.
    Flags(Vec<bool>),
}

/// Columns of equal length.
pub type Table = Vec<(String, Values)>;

/// The table of some hosts.
pub fn hosts(hosts: &[HostResult]) -> Table {
    let whole = |of: fn(&HostResult) -> u32| Values::Whole(hosts.iter().map(|host| i64::from(of(host))).collect());
    let times = |of: fn(&HostResult) -> Option<f64>| Values::Numbers(hosts.iter().map(of).collect());
    let columns = [
        ("entry", whole(|host| host.entry)),
        ("site", whole(|host| host.site)),
        ("host", whole(|host| host.host)),
        ("arrived_seconds", times(|host| host.arrived_seconds)),
        ("ready_seconds", times(|host| host.ready_seconds)),
        ("started_seconds", times(|host| host.started_seconds)),
        ("ended_seconds", times(|host| host.ended_seconds)),
        ("completed", Values::Flags(hosts.iter().map(|host| host.completed).collect())),
    ];
    columns.into_iter().map(|(name, values)| (name.to_owned(), values)).collect()
}

/// All hosts, in tables of a bearable length; one empty table where there are none, for its columns.
pub fn hosts_in_parts(all: &[HostResult]) -> Box<dyn Iterator<Item = Table> + '_> {
    if all.is_empty() { Box::new(std::iter::once(hosts(all))) } else { Box::new(all.chunks(ROWS_AT_A_TIME).map(hosts)) }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Whole(values) => values.len(),
            Self::Numbers(values) => values.len(),
            Self::Words(values) => values.len(),
            Self::Flags(values) => values.len(),
        }
    }

    /// One value as CSV; nothing where it is missing.
    fn write_field(&self, row: usize, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Whole(values) => write!(to, "{}", values[row]),
            Self::Numbers(values) => values[row].map_or(Ok(()), |value| write!(to, "{value}")),
            Self::Words(values) => write!(to, "{}", quoted(&values[row])),
            Self::Flags(values) => write!(to, "{}", values[row]),
        }
    }

    fn column(&self, name: &str) -> Result<Type, ParquetError> {
        let (physical, repetition, converted) = match self {
            Self::Whole(_) => (Physical::INT64, Repetition::REQUIRED, ConvertedType::NONE),
            Self::Numbers(_) => (Physical::DOUBLE, Repetition::OPTIONAL, ConvertedType::NONE),
            Self::Words(_) => (Physical::BYTE_ARRAY, Repetition::REQUIRED, ConvertedType::UTF8),
            Self::Flags(_) => (Physical::BOOLEAN, Repetition::REQUIRED, ConvertedType::NONE),
        };
        Type::primitive_type_builder(name, physical).with_repetition(repetition).with_converted_type(converted).build()
    }

    fn write_column<W: Write + Send>(&self, to: &mut SerializedRowGroupWriter<'_, W>) -> Result<(), ParquetError> {
        let Some(mut column) = to.next_column()? else {
            return Err(ParquetError::General("a table has more columns than its file".to_owned()));
        };
        match self {
            Self::Whole(values) => column.typed::<Int64Type>().write_batch(values, None, None)?,
            Self::Numbers(values) => {
                let present: Vec<f64> = values.iter().flatten().copied().collect();
                let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
                column.typed::<DoubleType>().write_batch(&present, Some(&levels), None)?
            }
            Self::Words(values) => {
                let words: Vec<ByteArray> = values.iter().map(|word| ByteArray::from(word.as_str())).collect();
                column.typed::<ByteArrayType>().write_batch(&words, None, None)?
            }
            Self::Flags(values) => column.typed::<BoolType>().write_batch(values, None, None)?,
        };
        column.close()
    }
}

/// A field of RFC 4180.
fn quoted(word: &str) -> String {
    if word.contains([',', '"', '\n', '\r']) { format!("\"{}\"", word.replace('"', "\"\"")) } else { word.to_owned() }
}

/// Writes tables of the same columns below one header.
///
/// # Errors
/// The file cannot be written.
pub fn write_csv(path: &Path, tables: impl Iterator<Item = Table>) -> Result<(), CommandError> {
    let write = || {
        let mut to = BufWriter::new(File::create(path)?);
        for (part, table) in tables.enumerate() {
            if part == 0 {
                let names: Vec<String> = table.iter().map(|(name, _)| quoted(name)).collect();
                writeln!(to, "{}", names.join(","))?;
            }
            for row in 0..table.first().map_or(0, |(_, values)| values.len()) {
                for (index, (_, values)) in table.iter().enumerate() {
                    if index > 0 {
                        to.write_all(b",")?;
                    }
                    values.write_field(row, &mut to)?;
                }
                to.write_all(b"\n")?;
            }
        }
        to.flush()
    };
    write().map_err(|source| CommandError::Write { path: path.to_owned(), source })
}

/// Writes tables of the same columns as row groups, compressed with Snappy.
///
/// # Errors
/// The file cannot be written.
pub fn write_parquet(path: &Path, tables: impl Iterator<Item = Table>) -> Result<(), CommandError> {
    let write = || -> Result<(), ParquetError> {
        let mut tables = tables.peekable();
        let Some(first) = tables.peek() else { return Ok(()) };
        let columns = first.iter().map(|(name, values)| values.column(name).map(Arc::new));
        let schema = Type::group_type_builder("row").with_fields(columns.collect::<Result<_, _>>()?).build()?;
        let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
        let to = BufWriter::new(File::create(path)?);
        let mut file = SerializedFileWriter::new(to, Arc::new(schema), Arc::new(properties))?;
        for table in tables {
            let mut group = file.next_row_group()?;
            for (_, values) in &table {
                values.write_column(&mut group)?;
            }
            group.close()?;
        }
        file.close()?;
        Ok(())
    };
    write().map_err(|error| CommandError::Write { path: path.to_owned(), source: cause(error) })
}

fn cause(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(inner) => io::Error::other(inner),
        },
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use parquet::{
        file::reader::{FileReader, SerializedFileReader},
        record::RowAccessor,
    };

    use super::*;

    fn two_hosts() -> Vec<HostResult> {
        let complete = HostResult {
            entry: 1,
            site: 7,
            host: 0,
            arrived_seconds: Some(0.0),
            ready_seconds: Some(12.5),
            started_seconds: Some(12.5),
            ended_seconds: Some(100.125),
            completed: true,
        };
        let absent = HostResult {
            host: 1,
            ready_seconds: None,
            started_seconds: None,
            ended_seconds: None,
            completed: false,
            ..complete
        };
        vec![complete, absent]
    }

    #[test]
    fn hosts_are_written_as_csv() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts.csv");
        write_csv(&path, hosts_in_parts(&two_hosts())).unwrap();
        insta::assert_snapshot!(std::fs::read_to_string(&path).unwrap(), @r"
        entry,site,host,arrived_seconds,ready_seconds,started_seconds,ended_seconds,completed
        1,7,0,0,12.5,12.5,100.125,true
        1,7,1,0,,,,false
        ");
        write_csv(&path, hosts_in_parts(&[])).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1, "the header alone");
    }

    #[test]
    fn words_are_quoted_where_csv_needs_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("points.csv");
        let words = Values::Words(vec!["{ range = [1, 2] }".to_owned(), "say \"x\"".to_owned(), "80".to_owned()]);
        write_csv(&path, std::iter::once(vec![("hosts".to_owned(), words)])).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hosts\n\"{ range = [1, 2] }\"\n\"say \"\"x\"\"\"\n80\n");
    }

    #[test]
    fn what_is_written_as_parquet_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts.parquet");
        let parts = two_hosts();
        write_parquet(&path, parts.chunks(1).map(hosts)).unwrap();
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(reader.metadata().num_row_groups(), 2);
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].get_long(1).unwrap(), rows[1].get_long(2).unwrap()), (7, 1));
        assert_eq!(rows[0].get_double(6).unwrap(), 100.125);
        assert!(rows[1].get_double(6).is_err(), "nothing is there");
        assert_eq!((rows[0].get_bool(7).unwrap(), rows[1].get_bool(7).unwrap()), (true, false));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("no/such/hosts.parquet");
        for error in
            [write_parquet(&path, hosts_in_parts(&[])).unwrap_err(), write_csv(&path, hosts_in_parts(&[])).unwrap_err()]
        {
            assert_eq!(error.exit_code(), 1);
            assert!(error.to_string().contains("hosts.") && error.to_string().contains("No such file"), "{error}");
        }
    }
}
