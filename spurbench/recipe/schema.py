"""A build's every number, read from ``builders/NAME/recipe.toml`` and validated."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, PrivateAttr, model_validator

from spurbench.core.documents import Version
from spurbench.core.errors import SpurbenchError
from spurbench.core.resources import in_first
from spurbench.core.text import slug, with_article
from spurbench.recipe.classes import ClassRegistry, Line, SpuriousClass
from spurbench.recipe.sections import (
    SFSL,
    Base,
    Check,
    Contexts,
    Controls,
    Data,
    Finetune,
    Panel,
    Positives,
    Prior,
    Probe,
    Sample,
    Section,
    Select,
)


class Recipe(Section):
    """Everything that decides what a build produces, but for the seed and the classes."""

    name: Line = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: Line
    version: Version = Field(
        default="1.0.0",
        description="of the datasets that it makes, unless --version says otherwise",
    )
    base: Base
    data: Data
    panel: Panel
    select: Select = Select()
    prior: Prior = Prior()
    finetune: Finetune = Finetune()
    sfsl: SFSL = SFSL()
    sample: Sample = Sample()
    controls: Controls = Controls()
    positives: Positives = Positives()
    contexts: Contexts = Contexts()
    check: Check = Check()
    probe: Probe = Probe()

    _folders: tuple[Path, ...] = PrivateAttr()
    _classes: ClassRegistry = PrivateAttr()

    def at(self, folders: Sequence[Path], classes: ClassRegistry) -> Recipe:
        """This recipe with its classes, read from the first folder and from those it extends."""
        recipe = self.model_copy()
        recipe._folders, recipe._classes = tuple(folders), classes
        return recipe

    @property
    def folder(self) -> Path:
        """The folder it was read from."""
        return self._folders[0]

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folder it was read from, and those of the recipes it extends."""
        return self._folders

    @property
    def classes(self) -> ClassRegistry:
        """The (class, spurious feature) pairs that can be built."""
        return self._classes

    def find(self, name: str) -> Path:
        """The path of a file or folder of the recipe's own, else of the recipes it extends."""
        return in_first(self.folders, name)

    def photographs(self, given: Path | None) -> str:
        """Where the real images are: a folder that is given, or the recipe's own.

        Raises:
            SpurbenchError: if none is given, and the recipe has none of its own.
        """
        if given is not None:
            return str(given)
        if self.data.images is None:
            raise SpurbenchError(
                f"recipe {self.name!r} has no images of its own; give the official Spurious "
                "ImageNet folder with --data"
            )
        return self.locate(self.data.images)

    def locate(self, name: str) -> str:
        """A folder that :meth:`find` finds, by its path; a hub id, or whatever else, as it is."""
        folder = self.find(name)
        return str(folder) if folder.is_dir() else name

    @model_validator(mode="after")
    def _prompts_can_be_filled(self) -> Recipe:
        for section, prompt, fields in (
            ("positives", self.positives.prompt, ("class", "a_class")),
            ("prior", self.prior.prompt, ("noun", "a_noun")),
            *(("probe", prompt, ("noun", "token", "feature")) for prompt in self.probe.prompts),
            ("contexts", self.contexts.prompt, ("noun", "token", "feature", "context")),
            ("finetune", self.finetune.prompt, ("noun", "token", "feature")),
        ):
            used = _fields(prompt)
            if used is None or not used <= {*fields}:
                known = ", ".join(f"{{{field}}}" for field in fields)
                raise ValueError(f"{section}.prompt {prompt!r} may only use {known}")
        if "token" not in (used or ()) and self.finetune.method != "base":
            raise ValueError("finetune.prompt must contain {token}, the subject's identifier")
        return self

    @model_validator(mode="after")
    def _controls_can_be_made(self) -> Recipe:
        makers = self.controls.makers
        if len({*makers}) < len(makers):
            raise ValueError("controls.makers names one twice; keep one")
        if self.controls.enabled and "finetuned" in makers and self.finetune.method == "base":
            raise ValueError(
                "controls.makers names finetuned, and finetune.method base fine-tunes nothing; "
                'leave ["base"]'
            )
        return self

    @model_validator(mode="after")
    def _contexts_can_be_made(self) -> Recipe:
        contexts = self.contexts
        if not {"token", "context"} <= (_fields(contexts.prompt) or set()):
            raise ValueError("contexts.prompt must contain {token} and {context}")
        if len({*map(slug, contexts.phrases)} - {""}) < len(contexts.phrases):
            raise ValueError("contexts.phrases must differ in their words; keep one of each")
        if contexts.phrases and self.finetune.method == "base":
            raise ValueError(
                "contexts.phrases wants what was learnt, and finetune.method base fine-tunes "
                "nothing; leave []"
            )
        return self

    def kappa_of(self, spurious_class: SpuriousClass) -> float:
        """The SFSL weight of a class: the recipe's if set, else the class's, else the default."""
        for kappa in (self.sfsl.kappa, spurious_class.kappa):
            if kappa is not None:
                return kappa
        return self.sfsl.default_kappa

    def prior_prompt(self, spurious_class: SpuriousClass) -> str:
        """The generic prompt, e.g. "a photo of a flower"."""
        noun = spurious_class.noun
        return self.prior.prompt.format(noun=noun, a_noun=with_article(noun))

    def positive_prompt(self, spurious_class: SpuriousClass) -> str:
        """What shows the class itself, e.g. "a photo of a hummingbird"."""
        name = spurious_class.name
        return self.positives.prompt.format(**{"class": name, "a_class": with_article(name)})

    def instance_prompt(self, spurious_class: SpuriousClass) -> str:
        """The subject's prompt, e.g. "a photo of a sks flower"."""
        return self.subject_prompt(self.finetune.prompt, spurious_class)

    def context_prompt(self, spurious_class: SpuriousClass, context: str) -> str:
        """The subject in a place, e.g. "a photo of a sks flower on the beach"."""
        return self.subject_prompt(self.contexts.prompt, spurious_class, context=context)

    def subject_prompt(self, prompt: str, spurious_class: SpuriousClass, **more: str) -> str:
        """A prompt whose {noun}, {token} and {feature}, and ``more``, are filled in."""
        return prompt.format(
            noun=spurious_class.noun,
            token=self.finetune.token,
            feature=spurious_class.spurious_feature,
            **more,
        )


def _fields(prompt: str) -> set[str] | None:
    """The fields that a prompt names; None if one is more than a bare name."""
    try:
        parts = [part for part in string.Formatter().parse(prompt) if part[1] is not None]
    except ValueError:
        return None
    if any(spec or conversion for _, _, spec, conversion in parts):
        return None
    return {str(field) for _, field, _, _ in parts}
