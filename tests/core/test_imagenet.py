from __future__ import annotations

import subprocess
import sys

import pytest
from timm.data import ImageNetInfo

from spurbench.core.imagenet import HEADS, head_wnids, imagenet_lemmas, imagenet_wnids


@pytest.mark.parametrize(("width", "head"), HEADS.items())
def test_the_tables_are_timms(width, head):
    assert list(head_wnids(head)) == ImageNetInfo(head).label_names()
    assert len(head_wnids(head)) == width


def test_the_names_are_timms():
    descriptions = ImageNetInfo("imagenet-1k").label_descriptions()
    assert [", ".join(lemmas) for lemmas in imagenet_lemmas()] == descriptions
    assert imagenet_wnids()[94] == "n01833805"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_tables_are_read_at_once_and_without_anything_heavy():
    said = run(
        "import sys, time\n"
        "from spurbench.core import imagenet\n"
        "start = time.process_time()\n"
        "imagenet.imagenet_wnids(), imagenet.imagenet_names()\n"
        "print(time.process_time() - start < 0.05, 'timm' in sys.modules, 'torch' in sys.modules)"
    )
    assert said == "True False False"


@pytest.mark.parametrize(
    "module",
    [
        "spurbench.images.sources",
        "spurbench.classifiers.load",
        "spurbench.classifiers.info",
        "spurbench.core.hub",
        "spurbench.evaluation.members",
    ],
)
def test_what_checks_inputs_imports_nothing_heavy(module):
    heavy = ("torch", "timm", "torchvision", "datasets", "pyarrow", "pandas", "diffusers")
    assert run(f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])") == "[]"
