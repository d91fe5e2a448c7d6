"""Parquet as ``datasets`` writes it, a row group at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

GROUP_BYTES = 32_000_000
"""Of encoded images in a row group, about: what is in memory at once, to write and to read."""

GROUP_ROWS = 1_000

CHUNKING = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
"""Where pages end is by their content, so that storage that deduplicates finds what it has."""


class ParquetWriter:
    """Writes rows as they come; at most one row group of them is in memory.

    Types and metadata are those that ``datasets`` gives a file, and so are the bytes of a file of
    one row group.

    Attributes:
        image_bytes: of the encoded images so far.
        data_bytes: of the rows so far in memory (Arrow).
    """

    def __init__(self, writer: pq.ParquetWriter) -> None:
        """Go on in a file; see :func:`writing`."""
        self.image_bytes = self.data_bytes = 0
        self._writer = writer
        self._rows: list[Mapping[str, Any]] = []
        self._held = 0

    def add(self, columns: Mapping[str, Any], image: bytes = b"") -> None:
        """Add a row.

        Args:
            columns: by name.
            image: the encoded image among them.
        """
        if self._held + len(image) > GROUP_BYTES or len(self._rows) == GROUP_ROWS:
            self.flush()
        self._rows.append(columns)
        self._held += len(image)
        self.image_bytes += len(image)

    def flush(self) -> None:
        """Write the rows that are held, if any, as a row group."""
        if not self._rows:
            return
        table = pa.Table.from_pylist(self._rows, schema=self._writer.schema)
        self._rows.clear()
        self._held = 0
        self._writer.write_table(table)
        self.data_bytes += table.nbytes


@contextmanager
def writing(path: Path, kinds: datasets.Features) -> Iterator[ParquetWriter]:
    """Yield what writes a new file; it is whole when the block succeeds.

    Args:
        path: the file.
        kinds: of the columns, in order.
    """
    schema = kinds.arrow_schema
    plain = [leaf for field in schema if field.name != "image" for leaf in _leaves(field)]
    with pq.ParquetWriter(
        path,
        schema,
        # Encoded images are compressed as they are, and no two are the same.
        compression=dict.fromkeys(plain, "snappy"),
        use_dictionary=plain,
        column_encoding={leaf: "PLAIN" for f in schema if f.name == "image" for leaf in _leaves(f)},
        use_content_defined_chunking=CHUNKING,
        write_page_index=True,
    ) as file:
        writer = ParquetWriter(file)
        yield writer
        writer.flush()
        file.add_key_value_metadata({"content_defined_chunking": json.dumps(CHUNKING)})


def _leaves(field: pa.Field, within: str = "") -> list[str]:
    """What parquet calls the columns that a field is stored as."""
    name = f"{within}{field.name}"
    if pa.types.is_struct(field.type):
        return [leaf for inner in field.type.fields for leaf in _leaves(inner, f"{name}.")]
    if pa.types.is_list(field.type):
        return _leaves(field.type.value_field.with_name("element"), f"{name}.list.")
    return [name]
