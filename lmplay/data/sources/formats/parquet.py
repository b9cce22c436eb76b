"""Parquet, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmplay.data.sources.formats.reader import BUFFER_BYTES, FileReader
from lmplay.data.text.documents import Row, no_column
from lmplay.utils.errors import LMPlayError


class ParquetReader(FileReader):
    """Row groups of a Parquet file, of which only the needed columns are read."""

    def rows(self) -> Iterator[Row]:
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
                known = file.schema_arrow.names
                for name in self._columns:
                    if name not in known:
                        raise LMPlayError(f"{self.path}: {no_column(name, known)}")
                yield from self._groups(file)
        except pyarrow.ArrowException as error:
            raise LMPlayError(f"{self.path} is no readable Parquet file: {_first_line(error)}") from error
        except OSError as error:
            raise LMPlayError(f"{self.path} can't be read: {_first_line(error)}") from error

    def _groups(self, file: Any) -> Iterator[Row]:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        size_on_disk = self.path.stat().st_size
        before = 0
        for group, size in enumerate(sizes):
            skipped = self.cursor.row - before
            before += size
            if skipped >= size:
                continue
            for batch in file.iter_batches(batch_size=64, row_groups=[group], columns=list(self._columns)):
                if skipped >= batch.num_rows:
                    skipped -= batch.num_rows
                    continue
                for values in batch.slice(skipped).to_pylist():
                    self.position = size_on_disk * self.cursor.row // max(1, file.metadata.num_rows)
                    yield self._row(values)
                skipped = 0


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
