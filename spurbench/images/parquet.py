"""Encoded images in parquet files, read when they are asked for, some at a time."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    import pyarrow as pa

KEPT = 2
"""Row groups in memory at once, of all files together: threads that read in the order of the rows
are in one group, or on the way from it to the next."""


class ParquetImages:
    """The encoded images of a dataset's parquet file.

    Whoever reads them in the order of the rows reads each row group once, and what is in memory
    does not depend on how many there are: it is at most :data:`KEPT` groups.
    """

    def __init__(self, path: Path) -> None:
        """Look up where the rows are; no image is read.

        Args:
            path: ``data/NAME.parquet`` in the dataset's folder.

        Raises:
            SpurbenchError: if it can't be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowException, OSError):
            raise self._damaged() from None
        groups = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        self._starts = [0, *accumulate(groups)]

    def read(self, row: int) -> bytes:
        """The encoded image of a row of the file, from 0 on; that it is the published one is the
        caller's to check.

        Raises:
            SpurbenchError: if it can't be read, or is null.
        """
        import pyarrow as pa

        group = bisect_right(self._starts, row) - 1
        try:
            with _reading:
                images = _group(self, group)
            data = images[row - self._starts[group]].as_py()
        # The others are what damaged pages end in, and a column that holds no images.
        except (pa.ArrowException, OSError, ValueError, OverflowError, LookupError, AttributeError):
            raise self._damaged() from None
        if not isinstance(data, bytes):
            raise SpurbenchError(f"{self.path}, row {row}: image.bytes is null; build it again")
        return data

    def _damaged(self) -> SpurbenchError:
        return SpurbenchError(
            f"{self.path} is damaged; `spurbench verify {self.path.parents[1]}` names every file "
            "that is"
        )


_reading = Lock()
"""Held while a group is read, so that no two threads read the same one."""


@lru_cache(KEPT)
def _group(images: ParquetImages, number: int) -> pa.ChunkedArray:
    """The encoded images of a row group.

    Kept by the opening of a file, not by its path: what is there now may be another file.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(images.path) as file:
        table = file.read_row_group(number, columns=["image.bytes"], use_threads=False)
    return pc.struct_field(table.column("image"), "bytes")
