"""The answers to a survey, from the server's file and from files that raters sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError
from spurbench.studies.survey import store
from spurbench.studies.survey.design import Survey, Token, read_tokens
from spurbench.studies.survey.store import FILE, Answer


class AnswersFile(Document):
    """What a page without a server saves, for its rater to send."""

    schema_version: Literal["spurbench.survey.answers/1"] = Field(alias="schema")
    survey: Token
    token: Token
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Grades:
    """Who gave what.

    Attributes:
        raters: (R,) numbers, from 0 on, of those who answered anything.
        first: (R, I) each item's grade when it was first shown; NaN where there is none.
        again: (R, I) its grade when it was shown again; NaN likewise.
        asked: (R,) how many answers each was asked for.
    """

    raters: NDArray[np.intp]
    first: NDArray[np.float64]
    again: NDArray[np.float64]
    asked: NDArray[np.intp]

    def only(self, kept: NDArray[np.bool_]) -> Grades:
        """Some of the raters; ``kept`` is (R,)."""
        return Grades(self.raters[kept], self.first[kept], self.again[kept], self.asked[kept])


def read_answers(folder: Path, survey: Survey, sent: Iterable[Path]) -> dict[int, list[Answer]]:
    """All answers, by rater; where there are several to one position, the last.

    Args:
        folder: of the survey, with the server's answers, if there are any.
        survey: the design.
        sent: files that raters sent, and folders of them.

    Raises:
        SpurbenchError: if a file is damaged, or is of another survey.
    """
    gathered = {rater: list(answers) for rater, answers in _served(folder, survey).items()}
    tokens = read_tokens(folder, survey)
    for path in _files(sent):
        document = validated(AnswersFile, read_json(path), str(path))
        if document.survey != survey.id or document.token not in tokens:
            raise SpurbenchError(f"{path} is of no rater of the survey in {folder}; leave it out")
        rater = tokens[document.token]
        if any(a.position >= len(survey.orders[rater]) for a in document.answers):
            raise SpurbenchError(f"{path} answers what its rater was not asked; leave it out")
        gathered.setdefault(rater, []).extend(document.answers)
    return {rater: _last(answers) for rater, answers in sorted(gathered.items()) if answers}


def grades(survey: Survey, answers: Mapping[int, Sequence[Answer]]) -> Grades:
    """Answers by item.

    Raises:
        SpurbenchError: if there is none.
    """
    if not answers:
        raise SpurbenchError("nobody has answered yet; name the files that raters sent, if any")
    raters = np.array(sorted(answers))
    first = np.full((len(raters), len(survey.items)), np.nan)
    again = first.copy()
    for row, rater in enumerate(raters):
        order = survey.orders[rater]
        for answer in answers[int(rater)]:
            item = order[answer.position]
            repeated = item in order[: answer.position]
            (again if repeated else first)[row, item] = answer.grade
    asked = np.array([len(survey.orders[rater]) for rater in raters])
    return Grades(raters, first, again, asked)


def _served(folder: Path, survey: Survey) -> Mapping[int, Sequence[Answer]]:
    answers = store.read(folder / FILE, survey.id)
    for rater, given in answers.items():
        if rater >= len(survey.orders) or any(
            a.position >= len(survey.orders[rater]) for a in given
        ):
            raise SpurbenchError(f"{folder / FILE} answers what nobody was asked; it is damaged")
    return answers


def _last(answers: Iterable[Answer]) -> list[Answer]:
    last: dict[int, Answer] = {}
    for answer in answers:
        if answer.position not in last or answer.revision > last[answer.position].revision:
            last[answer.position] = answer
    return [last[position] for position in sorted(last)]


def _files(sent: Iterable[Path]) -> list[Path]:
    files = []
    for path in sent:
        if path.is_dir():
            found = sorted(path.glob("*.json"))
            if not found:
                raise SpurbenchError(f"no answers in {path}: no file that ends in .json")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise SpurbenchError(f"no file at {path}; name what raters sent")
    return files
