"""Classifiers measured by several workers: the bytes of one process, and nothing done twice."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from makers.measured import save_dataset
from makers.toy import noise_images, save_toy_classifier
from makers.vlm import save_vlm
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.core.environment import one_thread
from spurbench.core.errors import SpurbenchError, described
from spurbench.engines import choose
from spurbench.engines.ledger import Ledger
from spurbench.evaluation import known
from spurbench.evaluation import predict as predict_module
from spurbench.evaluation import spread as spread_module
from spurbench.evaluation.evaluate import Failed, Measured, evaluate_each, evaluate_here
from spurbench.evaluation.members import Member, members
from spurbench.evaluation.predict import predict, predict_share
from spurbench.evaluation.request import RequestSource
from spurbench.evaluation.shares import Shares
from spurbench.evaluation.spread import WORTH, Spread
from spurbench.evaluation.work import EvaluationWork


class Killed(BaseException):
    """What ends everything."""


@dataclass
class Here:
    """An engine whose workers are this process.

    Attributes:
        kill: the unit over which it ends.
        begun: names of the units, in order.
        works: what it was given.
    """

    kill: str | None = None
    begun: list[str] = field(default_factory=list)
    works: list[EvaluationWork] = field(default_factory=list)

    def run(self, work: EvaluationWork) -> Mapping[str, str]:
        self.works.append(work)
        ledger, do = Ledger(work), pickle.loads(pickle.dumps(work)).open()
        while not ledger.finished:
            unit = ledger.ready()[0]
            self.begun.append(unit.name)
            if unit.name == self.kill:
                raise Killed
            ledger.begin(unit)
            try:
                do(unit)
            except Exception as error:
                ledger.fail(unit, described(error))
            else:
                ledger.succeed(unit)
        return ledger.failed


@pytest.fixture(autouse=True)
def threads():
    """More than a worker has, and afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def engine(monkeypatch) -> Here:
    made = Here()
    monkeypatch.setattr(choose, "open_engine", lambda *_, **__: made)
    return made


@pytest.fixture
def answered(monkeypatch) -> list[str]:
    """The images that classifiers are shown, by sha256 and the class that is asked about."""
    shown = []
    answer = predict_module._Asking.answer

    def noting(asking, part):
        assert torch.get_num_threads() == 1
        shown.extend(f"{asking.images[i].sha256} {asking.images[i].class_index}" for i in part)
        return answer(asking, part)

    monkeypatch.setattr(predict_module._Asking, "answer", noting)
    return shown


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """78 images in all: real, generated, with twins, and positives."""
    folder = tmp_path_factory.mktemp("data") / "d"
    save_dataset(folder, images=7, positives=5, controls=True)
    return str(folder)


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("c")
    return [
        str(save_toy_classifier(folder / name, favourite=None, seed=seed))
        for seed, name in enumerate(("one", "two"))
    ]


@pytest.fixture
def source(data) -> RequestSource:
    return RequestSource(data, batch_size=4)


def measure(
    asked: list[str] | list[Member],
    source: RequestSource,
    output: Path,
    *,
    workers: int = 1,
    force: bool = False,
) -> list[Measured | Failed]:
    """As the command does."""
    of = [one if isinstance(one, Member) else Member.parse(one) for one in asked]
    request = source.open()
    spread = Spread(source, request, output, force=force, workers=workers)
    return list(evaluate_each(of, request, output, force=force, spread=spread))


def parquets(output: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in output.glob("*.parquet")}


@pytest.fixture
def alone(toys, source, tmp_path) -> dict[str, bytes]:
    """The parquets of one process."""
    with one_thread():
        list(evaluate_here(members(toys, None, None), source.open(), tmp_path / "alone"))
    return parquets(tmp_path / "alone")


def test_the_parquet_is_that_of_one_process_however_many_workers_share_the_work(
    toys, source, tmp_path, alone, engine, answered
):
    size = source.open().size
    assert size == 78 and len(alone) == 2
    for workers, shares in ((2, 1), (7, 3)):
        answered.clear()
        output = tmp_path / str(workers)
        outcomes = measure(toys, source, output, workers=workers)
        assert engine.works[-1].shares == shares
        assert parquets(output) == alone
        assert len(answered) == 2 * size  # each is shown once to each, whoever shows it
        assert [(o.result.classifier.spec, o.stored) for o in outcomes] == [
            (toy, False) for toy in toys
        ]
        assert {o.result.environment["threads"] for o in outcomes} == {"1"}
        # Nothing is left but results, and who the classifiers are.
        left = {path.name for path in output.iterdir() if path.suffix not in (".json", ".parquet")}
        assert left == {known.FOLDER}


def test_negatives_are_shared_out_too_and_damaged_positives_are_none(
    data, tmp_path, engine, answered
):
    vlm = f"vlm:{save_vlm(tmp_path / 'vlm', 'llava')}"
    for n, image in enumerate(noise_images(6, 5)):
        folder = tmp_path / "positives" / ("94", "105", "565")[n % 3]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{n}.png")
    source = RequestSource(
        data, split="real", positives=tmp_path / "positives", limit=2, batch_size=2
    )
    for damaged in range(2):
        if damaged:
            (tmp_path / "positives" / "94" / "0.png").write_bytes(b"text")
        with one_thread():
            list(evaluate_here([Member.parse(vlm)], source.open(), tmp_path / f"one{damaged}"))
        answered.clear()
        engine.kill = None if damaged else vlm  # which comes after its shares
        with pytest.raises(Killed) if engine.kill else nullcontext():
            measure([vlm], source, tmp_path / f"many{damaged}", workers=3)
        engine.kill, in_shares = None, len(answered)
        (many,) = measure([vlm], source, tmp_path / f"many{damaged}", workers=3)
        assert engine.works[-1].shares == 3
        assert parquets(tmp_path / f"many{damaged}") == parquets(tmp_path / f"one{damaged}")
        rows = many.result.answers
        assert (rows["source"] == "negative").sum() == 6 - damaged == len(rows) - 12 + damaged
        assert len(many.result.damaged) == damaged  # and not again, as a negative
        # What is damaged nobody knows in time; some is asked again then.
        assert damaged or in_shares == len(answered) == len(rows)


def test_shares_are_whole_batches_and_all_images_in_order():
    for count in (1, 2, 3, 5):
        for images in (1, 4, 13, 40):
            for batch in (1, 4, 64):
                parts = Shares(Path(), count).parts(images, batch)
                assert len(parts) == count
                assert [i for part in parts for i in part] == list(range(images))
                assert all(part.start % batch == 0 for part in parts if part)
                sizes = [-(-len(part) // batch) for part in parts]
                assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("force", [False, True])
def test_a_killed_share_is_begun_again_and_only_it(
    toys, source, tmp_path, alone, engine, answered, force
):
    output, (name,) = tmp_path / "r", [name for name in alone if "-one_" in name]
    engine.kill = f"{toys[0]}, share 3 of 3"
    with pytest.raises(Killed):
        measure(toys[:1], source, output, workers=3)
    before = set(answered)
    assert 0 < len(before) < 78 and not parquets(output)
    engine.kill = None
    answered.clear()
    measure(toys[:1], source, output, workers=3, force=force)
    assert parquets(output) == {name: alone[name]}
    # Unless all is to be measured again.
    assert (set(answered) & before == before) if force else not set(answered) & before
    assert len(answered) == (78 if force else 78 - len(before))


def test_answers_are_taken_only_by_what_they_are_the_answers_of(toys, source, tmp_path, answered):
    torch.set_num_threads(1)
    one, two = (load_classifier(toy) for toy in toys)
    images = source.open().images.records
    shares = Shares(tmp_path / "s", 2)
    whole = one.preprocessing()
    for number in range(2):
        predict_share(one, images, shares, number, preprocess=whole, batch_size=4)
    changed = (replace(images[0], class_index=105), *images[1:])
    renamed = (replace(images[0], sha256="0" * 64), *images[1:])
    wider = whole.model_copy(update={"resize": (40,)})
    other = {"preprocess": wider, "batch_size": 4}
    for new, classifier, asked, settings in (
        (0, one, images, {"batch_size": 4}),
        (42, two, images, {"batch_size": 4}),
        (42, one, images[::-1], {"batch_size": 4}),
        (20, one, changed, {"batch_size": 4}),
        (20, one, renamed, {"batch_size": 4}),
        (42, one, images, {"batch_size": 2}),
        (42, one, images, other),
    ):
        answered.clear()
        found = predict(classifier, asked, shares=shares, **settings)
        assert len(answered) == new
        assert found.rank.tolist() == predict(classifier, asked, **settings).rank.tolist()
    for file in shares.folder.iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    answered.clear()
    predict(one, images, batch_size=4, shares=shares)
    assert len(answered) == 42


def test_a_stored_result_starts_no_engine(toys, source, tmp_path, engine):
    asked = toys[:1]
    measure(asked, source, tmp_path / "r", workers=2)
    engine.begun.clear()
    (again,) = measure(asked, source, tmp_path / "r", workers=2)
    assert again.stored and engine.begun == []
    both = measure(toys, source, tmp_path / "r", workers=2)
    assert [(one.result.classifier.spec, one.stored) for one in both] == [
        (toys[0], True),
        (toys[1], False),
    ]
    assert engine.begun and all(toys[1] in name for name in engine.begun)
    engine.begun.clear()
    (forced,) = measure(asked, source, tmp_path / "r", workers=2, force=True)
    assert not forced.stored and engine.begun


def test_what_a_spec_stands_for_is_asked_anew_in_every_evaluation(
    toys, source, tmp_path, engine, answered, monkeypatch
):
    monkeypatch.setattr(known, "key", lambda _: None)  # as of what is fetched by name
    folder = save_toy_classifier(tmp_path / "toy", favourite=None, seed=4)
    (first,) = measure([str(folder)], source, tmp_path / "r", workers=2)
    answered.clear()
    (second,) = measure([str(folder)], source, tmp_path / "r", workers=2)
    assert len(engine.begun) == 6 and answered == []  # loaded, found, and nothing computed
    assert (second.path, second.stored) == (first.path, True)
    weights = folder / "model.safetensors"
    save_file({k: v + 1 if k == "fc.bias" else v for k, v in load_file(weights).items()}, weights)
    (third,) = measure([str(folder)], source, tmp_path / "r", workers=2)
    assert third.path != first.path and not third.stored


def test_one_that_fails_is_named_as_in_one_process_and_stops_no_other(
    toys, source, tmp_path, engine, monkeypatch
):
    narrow = save_toy_classifier(tmp_path / "narrow", favourite=None, seed=4)
    state = load_file(narrow / "model.safetensors")
    state |= {k: state[k][[94, 105]].clone() for k in ("fc.weight", "fc.bias")}
    save_file(state, narrow / "model.safetensors")
    config = json.loads((narrow / "config.json").read_text())
    config |= {"num_classes": 2, "label_names": ["n01833805", "n01882714"]}
    (narrow / "config.json").write_text(json.dumps(config))
    load = Member.load

    def crash(member, device):
        if member.spec == "crash":
            raise RuntimeError("shapes differ\nat line 3")
        return load(member, device)

    monkeypatch.setattr(Member, "load", crash)
    asked = [Member(s, s) for s in (str(narrow), toys[0], "crash", "resnet5000")]
    expected = list(evaluate_here(asked, source.open(), tmp_path / "alone"))
    found = measure(asked, source, tmp_path / "r", workers=8)
    assert engine.works[-1].shares == 2
    assert [type(one) for one in found] == [Failed, Measured, Failed, Failed]
    assert found[0] == expected[0] and found[0].lacks_class
    assert found[2:] == expected[2:] and found[2].reason == "RuntimeError: shapes differ"


def test_a_unit_whose_workers_all_died_is_a_failure_with_the_engine_s_reason(
    toys, source, tmp_path, engine, monkeypatch
):
    monkeypatch.setattr(Here, "run", lambda *_: {toys[0]: "its worker ended 3 times"})
    assert measure(toys[:1], source, tmp_path / "r", workers=2) == [
        Failed(toys[0], "its worker ended 3 times")
    ]


def test_workers_refuse_images_that_are_no_longer_those_of_the_evaluation(
    toys, source, tmp_path, engine
):
    request = source.open()
    spread = Spread(replace(source, limit=2), request, tmp_path / "r", workers=2)
    with pytest.raises(SpurbenchError, match="no longer those that it began with"):
        list(evaluate_each(members(toys, None, None), request, tmp_path / "r", spread=spread))


def test_relative_paths_are_meant_from_where_the_command_was_given(
    data, toys, tmp_path, engine, monkeypatch
):
    monkeypatch.chdir(Path(toys[0]).parent)
    run = Here.run

    def elsewhere(engine: Here, work: EvaluationWork) -> Mapping[str, str]:
        os.chdir("/")
        return run(engine, work)

    monkeypatch.setattr(Here, "run", elsewhere)
    source = RequestSource(os.path.relpath(data), batch_size=4)
    (one,) = measure(["./one"], source, Path("../r"), workers=2)
    assert isinstance(one, Measured) and one.path.parent == Path("../r")


@pytest.fixture
def asked_of_engines(monkeypatch) -> list[tuple[int, int]]:
    """How many units and workers engines are asked for; there are none."""
    asked = []

    def note(_: str, *, units: int, workers: int, **__: object) -> None:
        asked.append((units, workers))

    monkeypatch.setattr(choose, "open_engine", note)
    monkeypatch.setattr(choose, "cores", lambda: 4)
    monkeypatch.setattr(spread_module, "evaluate_here", lambda *_, **__: iter(()))
    return asked


def test_no_more_workers_are_started_than_there_is_work_for(source, tmp_path, asked_of_engines):
    request = source.open()
    assert 3 * request.size < 2 * WORTH["cpu"] < 4 * request.size
    spread = Spread(source, request, tmp_path, device="cpu")
    for count in (1, 4, 8, 100):
        list(spread([Member("x", "x")] * count))
    assert asked_of_engines == [(1, 1), (4, 2), (8, 4), (100, 4)]


def test_as_many_are_started_as_are_asked_for_if_each_has_a_batch(
    source, tmp_path, asked_of_engines
):
    for workers, batch_size in ((9, 8), (30, 4)):
        small = replace(source, batch_size=batch_size)
        spread = Spread(small, source.open(), tmp_path, device="cpu", workers=workers)
        list(spread([Member("x", "x")]))
    assert asked_of_engines == [(9, 9), (78 // 4, 30)]


@pytest.mark.slow
def test_processes_give_the_parquet_of_one(toys, data, tmp_path):
    for workers in ("1", "3"):
        command = ["eval", "--model", toys[0], "--data", data, "--workers", workers]
        done = CliRunner().invoke(
            main, [*command, "--batch-size", "4", "--output", str(tmp_path / workers)]
        )
        assert done.exit_code == 0, done.output
    assert parquets(tmp_path / "1") == parquets(tmp_path / "3") != {}
