"""The tutorial runs, on the embedded images, as it stands."""

from __future__ import annotations

import math
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The code cells, run from another folder."""
    notebook = nbformat.read(TUTORIAL, as_version=4)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    resources = {"metadata": {"path": str(elsewhere)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    assert list(elsewhere.iterdir()) == [], "nothing is written that was not asked for"
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell) -> dict[str, str]:
    """What a cell shows, by kind."""
    return {
        kind: text
        for output in cell.outputs
        for kind, text in (output.data if "data" in output else {"text/plain": output.text}).items()
    }


def test_git_has_no_outputs_of_it():
    notebook = nbformat.read(TUTORIAL, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 3
    assert not [cell for cell in code if cell.outputs or cell.execution_count]


def test_results_show_themselves_as_text_and_as_html(cells):
    for cell, name in ((cells[0], "vit"), (cells[2], "vit, mirrored")):
        said = shown(cell)
        assert name in said["text/plain"] and "spurious accuracy" in said["text/plain"]
        assert all(text in said["text/html"] for text in (name, "<table", "hummingbird"))


def test_the_frame_has_a_row_for_each_class(cells):
    said = shown(cells[1])
    assert said["text/html"].count("<tr") >= 1 + 6
    assert "flagpole" in said["text/plain"]


def test_the_comparison_has_a_difference_and_its_probability(cells):
    points, p = shown(cells[3])["text/plain"].split(" points, p = ")
    assert abs(float(points)) < 50
    assert 0 <= float(p) <= 1 and not math.isnan(float(points))
