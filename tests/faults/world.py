"""Sound things that the faults start from: a recipe, its dataset, results, photographs, models."""

from __future__ import annotations

import os
from pathlib import Path

from faults.process import run
from spurbench.core.imagenet import imagenet_wnids

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
ARCHITECTURE = "spurbench-toy"
"""What open_clip knows the world's network as."""
SEEN, UNSEEN = "object_threshold = 0.45", "object_threshold = 0.9"
KNOWN = '[[datasets]]\nname = "toy"\nversion = "1.0.0"\n'


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
        self.vit, self.vlm = root / "run" / "vit", root / "run" / "vlm"
        self.onnx = root / "run" / "net.onnx"
        self.labels = root / "run" / "labels.txt"
        self.clip = root / "run" / "clip" / "clip.safetensors"

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
        self._tell_open_clip()
        build = ("build", "--recipe", str(self.recipe), "--classes", "hummingbird")
        build += ("--positives", str(self.positives))
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
        (self.board / "datasets.toml").write_text(KNOWN, encoding="utf-8")

    def evaluation(self, data: Path | str) -> tuple[str, ...]:
        return ("eval", "--model", str(self.model), "--data", str(data))

    def result(self, position: int = 0) -> Path:
        return sorted(self.results.glob("*.json"))[position]

    def entry(self) -> Path:
        return min(self.board.glob("*/*.json"))

    def _make_models(self) -> None:
        import timm
        import torch
        from safetensors.torch import save_file

        from makers.networks import save_onnx, save_toy_clip, save_toy_vit
        from makers.toy import save_noise_images, toy_recipe
        from makers.vlm import save_vlm

        toy_recipe(self.recipe)
        # The toy detector sees the object everywhere, and then no image would count.
        recipe = self.recipe / "recipe.toml"
        text = recipe.read_text(encoding="utf-8")
        recipe.write_text(text.replace(SEEN, UNSEEN), encoding="utf-8")
        self.labels.write_text("\n".join(imagenet_wnids()), encoding="utf-8")
        save_toy_vit(self.vit)
        save_vlm(self.vlm, "llava")
        save_toy_clip(self.clip.parent, ARCHITECTURE)
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 5, stride=5), torch.nn.Flatten(), torch.nn.Linear(144, 1000)
        )
        save_onnx(network, self.onnx, size=(30, 30))
        for seed, name in enumerate(("n01833805", KOALAS)):
            save_noise_images(self.positives / name, 3, seed)
        save_file(timm.create_model("test_resnet").state_dict(), self.checkpoint)

    def _tell_open_clip(self) -> None:
        """Of the toy architecture, in every command; of two sentences a class, not 80."""
        import open_clip

        open_clip.add_model_config(self.clip.with_name(f"{ARCHITECTURE}.json"))
        open_clip.OPENAI_IMAGENET_TEMPLATES = open_clip.OPENAI_IMAGENET_TEMPLATES[:2]
