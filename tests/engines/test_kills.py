"""Builds of the embedded world by worker processes that are killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 12

SETTINGS = (
    *("finetune.steps=6", "finetune.checkpoint_every=2", "sample.images=4", "sample.steps=4"),
    *("sample.batch_size=2", "prior.images=6", "prior.steps=4", "prior.batch_size=2"),
    *("positives.images=0",),
)


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = ["-c", "from spurbench.cli.main import main; main()", "build"]
    command += ["--classes", "hummingbird,koala,flagpole"]
    options = [f"--set={setting}" for setting in SETTINGS]
    return subprocess.Popen(
        [sys.executable, *command, *options, "--workers", "2", "--output", folder / "dataset"],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("ab"),
    )


def workers_of(lead: subprocess.Popen[bytes]) -> list[int]:
    children = Path(f"/proc/{lead.pid}/task/{lead.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def published(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.glob("dataset/data/*.parquet"))}


@pytest.mark.slow
def test_killed_workers_and_leads_leave_no_trace_in_what_is_made(tmp_path):
    rng = random.Random(0)
    (tmp_path / "undisturbed").mkdir()
    begun = time.monotonic()
    assert start(tmp_path / "undisturbed").wait() == 0
    whole = time.monotonic() - begun
    expected = published(tmp_path / "undisturbed")
    assert len(expected) > 2
    kills = {"worker": 0, "lead": 0}
    for attempt in range(KILLS):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        lead = start(folder)
        time.sleep(rng.uniform(0.1, 0.9) * whole)
        if lead.poll() is None and attempt % 2 and (workers := workers_of(lead)):
            os.kill(rng.choice(workers), signal.SIGKILL)
            kills["worker"] += 1
        elif lead.poll() is None:
            lead.kill()
            lead.wait()
            kills["lead"] += 1
            lead = start(folder)
        assert lead.wait() == 0, (folder / "log").read_text()[-2000:]
        assert published(folder) == expected
        assert not list(folder.rglob("*.partial"))
    print(kills)  # noqa: T201
    assert sum(kills.values()) >= KILLS - 2
