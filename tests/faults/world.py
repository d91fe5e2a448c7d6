"""Sound things that the faults start from: a recipe, its dataset, results, photographs, models."""

from __future__ import annotations

import os
from pathlib import Path

from faults.process import run

PLAN = """baseline = "plain"
[[rows]]
name = "plain"
description = "no similarity loss"
set = ["sfsl.kappa=0", "sample.images=3"]
[[rows]]
name = "base"
description = "the base itself"
set = ["finetune.method=base", "finetune.prompt=a photo of a {noun}"]
"""
KOALAS = "n01882714"


class World:
    """Paths below ``root``; all of it is made once and only read after that."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "run" / "recipe"
        self.photographs = self.recipe / "real"
        self.model, self.other_model = self.recipe / "one", self.recipe / "two"
        self.dataset, self.successor = root / "run" / "dataset", root / "run" / "successor"
        self.results = root / "run" / "results"
        self.board = root / "run" / "board"
        self.checkpoint = root / "run" / "test_resnet.safetensors"
        self.positives = root / "run" / "positives"

    def make(self) -> None:
        """In processes of its own, lest threads of theirs are about when the next is forked."""
        here = self.root / "run"
        here.mkdir(parents=True)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._make_models()
                status = 0
            finally:
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("the toy recipe can't be made")
        (self.recipe / "ablation.toml").write_text(PLAN, encoding="utf-8")
        build = ("build", "--recipe", str(self.recipe), "--classes", "hummingbird")
        for arguments in (
            (*build, "--output", "dataset"),
            (
                *build,
                "--output",
                "successor",
                "--version",
                "1.1.0",
                "--previous",
                "dataset",
                "--seed",
                "1",
            ),
            (
                *self.evaluation(self.dataset),
                "--model",
                str(self.other_model),
                "--output",
                "results",
            ),
            ("leaderboard", "build", "results", "--data", "dataset", "--output", "board"),
        ):
            ending = run(arguments, here, seconds=300)
            if ending.status:
                raise RuntimeError(f"{arguments} of sound things fails: {ending.err}")

    def evaluation(self, data: Path | str) -> tuple[str, ...]:
        return ("eval", "--model", str(self.model), "--data", str(data))

    def result(self, position: int = 0) -> Path:
        return sorted(self.results.glob("*.json"))[position]

    def entry(self) -> Path:
        return min(self.board.glob("*/*.json"))

    def _make_models(self) -> None:
        import timm
        from safetensors.torch import save_file

        from makers.toy import save_noise_images, toy_recipe

        toy_recipe(self.recipe)
        for seed, name in enumerate(("n01833805", KOALAS)):
            save_noise_images(self.positives / name, 3, seed)
        save_file(timm.create_model("test_resnet").state_dict(), self.checkpoint)
