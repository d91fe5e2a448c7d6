"""From what people ask for to an engine."""

from __future__ import annotations

import pytest
import torch

from spurbench.core.errors import SpurbenchError
from spurbench.engines import choose
from spurbench.engines.choose import open_engine
from spurbench.engines.local import LocalEngine
from spurbench.engines.ray import RayEngine


@pytest.fixture(autouse=True)
def four_cores_and_three_gpus(monkeypatch):
    monkeypatch.setattr(choose, "cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def gpus(engine: LocalEngine | None) -> list[str]:
    assert engine is not None
    return [each["CUDA_VISIBLE_DEVICES"] for each in engine.environments]


@pytest.mark.parametrize(
    ("asked", "workers"),
    [
        ({"units": 100}, 4),
        ({"units": 3}, 3),
        ({"units": 100, "workers": 9}, 9),
        ({"units": 100, "gpus_each": 2}, 2),
    ],
)
def test_there_is_a_worker_a_core_and_none_without_work(asked, workers):
    assert open_engine("local", device="cpu", **asked) == LocalEngine.on_cores(workers)


@pytest.mark.parametrize("asked", [{"units": 1}, {"units": 9, "workers": 1}])
def test_one_worker_is_this_process(asked):
    assert open_engine("local", device="cpu", **asked) is None
    assert open_engine("local", device="cuda:1", **asked) is None


def test_there_is_a_worker_a_gpu_or_for_as_many_as_it_takes(monkeypatch):
    assert gpus(open_engine("local", units=9, device="cuda")) == ["0", "1", "2"]
    assert gpus(open_engine("local", units=9, device="cuda", gpus_each=2)) == ["0,1"]
    assert gpus(open_engine("local", units=9, device="cuda", workers=2)) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7,9")
    assert gpus(open_engine("local", units=2, device="cuda")) == ["5", "GPU-7"]
    assert open_engine("local", units=9, device="cuda:1") is None, "the one that is named"


def test_more_gpus_than_there_are_is_one_line():
    with pytest.raises(SpurbenchError, match="2 workers of 2 GPUs need 4, and there are 3"):
        open_engine("local", units=9, device="cuda", workers=2, gpus_each=2)


def test_a_remote_engine_s_workers_have_gpus_where_the_device_is_one():
    assert open_engine("ray", units=9, device="cuda", gpus_each=2) == RayEngine(None, 2, None)
    asked = {"units": 9, "device": "cpu", "workers": 5, "address": "auto"}
    assert open_engine("ray", **asked) == RayEngine(5, 0, "auto")


def test_options_of_another_engine_are_refused(tmp_path):
    with pytest.raises(SpurbenchError, match="--address is for --engine ray, not slurm"):
        open_engine("slurm", units=9, device="cpu", address="auto")
    with pytest.raises(SpurbenchError, match="--engine-options is for --engine slurm, not local"):
        open_engine("local", units=9, device="cpu", options=tmp_path / "slurm.toml")
