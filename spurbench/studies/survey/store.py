"""The server's answers: an SQLite file that loses nothing it has confirmed.

A row is a rater's number, a position in the rater's order, a grade and a revision: no time, no
address, nothing else of anyone.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field

from spurbench.core.documents import Document
from spurbench.core.errors import SpurbenchError
from spurbench.studies.survey.design import Grade

FILE = "answers.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS survey (id TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS answers (
  rater INTEGER NOT NULL, position INTEGER NOT NULL,
  grade INTEGER NOT NULL CHECK (grade BETWEEN 1 AND 5), revision INTEGER NOT NULL,
  PRIMARY KEY (rater, position)
) STRICT, WITHOUT ROWID;
"""

_NAME = "INSERT INTO survey SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM survey)"

_SAVE = """
INSERT INTO answers (rater, position, grade, revision) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET grade = excluded.grade, revision = excluded.revision
WHERE excluded.revision > revision
"""


class Answer(Document):
    """A grade for what a rater saw at a position.

    Of two answers to one position that with the higher revision counts, and of two with the same
    the one that came first: sent twice, or late, it changes nothing.
    """

    position: Annotated[int, Field(strict=True, ge=0, lt=100_000)]
    grade: Grade
    revision: Annotated[int, Field(strict=True, ge=1, lt=2**31)]


Request = tuple[int, Sequence[Answer]]
"""A rater's number, from 0 on, and answers."""


class Store:
    """The answers to one survey.

    Several threads may use it, and several processes the file.
    """

    def __init__(self, path: Path, survey: str) -> None:
        """Open the file, or make it.

        Args:
            path: in a folder that is there.
            survey: the id that the file is, or will be, of.

        Raises:
            SpurbenchError: if it can't be opened, or is of another survey.
        """
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            # Write-ahead log: readers don't wait. FULL: what is committed outlives a power cut.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            self._connection.execute(_NAME, (survey,))
            ids = [row[0] for row in self._connection.execute("SELECT id FROM survey")]
        except sqlite3.Error as error:
            raise SpurbenchError(
                f"{path} can't be opened: {error}; it must be writable, and of a survey"
            ) from None
        if ids != [survey]:
            raise SpurbenchError(f"{path} holds answers to another survey; put it back to that one")

    def save(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """Commit answers in one transaction.

        Returns:
            Of each request, what now stands at its positions.

        Raises:
            sqlite3.Error: if they are not saved; then none is.
        """
        with self._lock, self._transaction():
            for rater, answers in requests:
                rows = [(rater, a.position, a.grade, a.revision) for a in answers]
                self._connection.executemany(_SAVE, rows)
            return [
                [stored for a in answers for stored in self._select(rater, a.position)]
                for rater, answers in requests
            ]

    def of(self, rater: int) -> dict[int, tuple[int, int]]:
        """A rater's answers: grade and revision by position."""
        with self._lock:
            return {a.position: (a.grade, a.revision) for a in self._select(rater)}

    def everything(self) -> dict[int, list[Answer]]:
        """All answers, by rater."""
        with self._lock:
            raters = self._connection.execute("SELECT DISTINCT rater FROM answers").fetchall()
            return {rater: list(self._select(rater)) for (rater,) in raters}

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _select(self, rater: int, position: int | None = None) -> Iterator[Answer]:
        where = "rater = ?1 AND (?2 IS NULL OR position = ?2)"
        query = f"SELECT position, grade, revision FROM answers WHERE {where}"
        for row in self._connection.execute(query, (rater, position)):
            yield Answer(position=row[0], grade=row[1], revision=row[2])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


class Committer:
    """Commits together what arrives while the last commit is under way.

    A commit waits for the disk; five hundred raters must not wait for as many commits.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Request, asyncio.Future[list[Answer]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def save(self, rater: int, answers: Sequence[Answer]) -> list[Answer]:
        """As :meth:`Store.save`, for one request; it returns after the commit."""
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._waiting.append(((rater, answers), future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                saved = await asyncio.to_thread(self._store.save, [request for request, _ in batch])
            except Exception as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), answers in zip(batch, saved, strict=True):
                    if not future.done():
                        future.set_result(answers)


def read(path: Path, survey: str) -> Mapping[int, Sequence[Answer]]:
    """All answers in the file, by rater; none where there is no file.

    Raises:
        SpurbenchError: as :class:`Store`.
    """
    if not path.is_file():
        return {}
    store = Store(path, survey)
    try:
        return store.everything()
    finally:
        store.close()
