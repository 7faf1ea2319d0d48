"""Parquet files."""

from collections.abc import Iterator, Sequence

from bertlab.data.tables.rows import PIECE, FileFormat, Rows, class_names, pick
from bertlab.errors import DataError, first_line


class Parquet(FileFormat):
    """Columns with types of their own; only the wanted ones are read."""

    def column_names(self) -> list[str]:
        """See `FileFormat`."""
        import pyarrow
        import pyarrow.parquet

        try:
            return list(pyarrow.parquet.read_schema(self.file).names)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.file}: cannot be read as Parquet ({first_line(error)})") from error

    def pieces(self, wanted: Sequence[str]) -> Iterator[Rows]:
        """See `FileFormat`."""
        import pyarrow
        import pyarrow.parquet
        from datasets import Features

        try:
            with pyarrow.parquet.ParquetFile(self.file) as source:
                schema = source.schema_arrow
                pick({name: [] for name in schema.names}, wanted, self.keys, self.file)
                declared = class_names(Features.from_arrow_schema(schema))
                for batch in source.iter_batches(batch_size=PIECE, columns=list(wanted)):
                    yield Rows(batch.to_pydict(), declared)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.file}: cannot be read as Parquet ({first_line(error)})") from error
