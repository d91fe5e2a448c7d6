"""The page that a rater sees: one for the server and for opening from disk.

All text is escaped by the template; the page's policy lets no script run but its own file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.core.templates import html_templates
from spurbench.studies.survey.design import GRADES, IMAGES, Survey

if TYPE_CHECKING:
    from jinja2 import Template

FOLDER = Path(str(files("spurbench") / "studies" / "survey" / "page"))

PARTS = ("survey.css", "survey.js", "icon.svg")
"""The files that a page loads, beside its images."""

POLICY = (
    "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy of the page without a server: it can't send anything anywhere."""

SERVED_POLICY = f"{POLICY}; connect-src 'self'; frame-ancestors 'none'"
"""Content-Security-Policy of the page that the server sends."""

GRADE_NAMES: Mapping[int, str] = dict(
    zip(
        GRADES,
        ("not natural at all", "hardly natural", "half natural", "mostly natural", "fully natural"),
        strict=True,
    )
)


def page(
    survey: Survey,
    rater: int,
    token: str,
    *,
    root: str,
    send: str | None,
    answers: Mapping[int, tuple[int, int]],
) -> str:
    """One rater's page.

    Args:
        survey: the design.
        rater: the rater's number, from 0 on.
        token: the rater's.
        root: where images, script and style are, from the page.
        send: where answers go, from the page; None: into a file that the rater sends.
        answers: grade and revision by position, which the server has.
    """
    return _template("survey.html.jinja").render(
        survey=survey.id,
        contact=survey.contact,
        token=token,
        root=root,
        send=send,
        policy=None if send else POLICY,
        images=[f"{root}{IMAGES}/{survey.items[item].image}.jpg" for item in survey.orders[rater]],
        answers={str(position): list(answer) for position, answer in answers.items()},
        grades=GRADE_NAMES,
    )


def static(survey: Survey, tokens: Sequence[str]) -> dict[str, str]:
    """By name, the files of the pages without a server, but for the images."""
    made = {
        f"{token}.html": page(survey, rater, token, root="", send=None, answers={})
        for rater, token in enumerate(tokens)
    }
    # A host would list the folder, and with it everyone's pages, where there is no such file.
    made["index.html"] = front()
    return made | {name: part(name) for name in PARTS}


def front() -> str:
    """What there is to see without a link."""
    return _template("front.html.jinja").render()


@cache
def part(name: str) -> str:
    """One of :data:`PARTS`."""
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> Template:
    return html_templates(FOLDER).get_template(name)
