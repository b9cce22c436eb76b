"""The formats of local files as rows, a bounded piece at a time. Called by `lmplay.data.sources.files`.

A reader starts at a cursor and holds one row and a buffer in memory, whatever the size of the file.
"""

from collections.abc import Mapping

from lmplay.data.sources.formats.csv_rows import CSVReader
from lmplay.data.sources.formats.json_rows import JSONReader
from lmplay.data.sources.formats.parquet import ParquetReader
from lmplay.data.sources.formats.reader import Cursor, FileReader
from lmplay.data.sources.formats.text import TextReader

__all__ = ["READERS", "Cursor", "FileReader"]

READERS: Mapping[str, type[FileReader]] = {
    "text": TextReader,
    "json": JSONReader,
    "csv": CSVReader,
    "parquet": ParquetReader,
}
