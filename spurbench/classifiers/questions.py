"""A model of images and text as a classifier with two outputs, no and yes: is the class there?

The question is :data:`QUESTION`, through the chat template of the model's processor where it has
one. The answer is read off the probabilities of the next token: p(yes) is the probability of all
tokens that spell "yes", in any case and with or without a space before it, over that of all tokens
that spell "yes" or "no".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from spurbench.classifiers.classifier import Classifier, Loaded
from spurbench.classifiers.info import YES_NO, ClassifierInfo, Mode, Preprocessing
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import weights_sha256
from spurbench.core.imagenet import imagenet_names, imagenet_wnids

QUESTION = "Is there {article} {name} in this image? Answer yes or no."

NO, YES = 0, 1
"""Columns of the answer. A tie is a no: the lower column wins it."""

WORDS = ("no", "yes")
"""What the columns answer."""


def question(wnid: str) -> str:
    """What is asked about a class of ImageNet-1k: :data:`QUESTION` with its first name."""
    name = imagenet_names()[imagenet_wnids().index(wnid)]
    return _about(re.sub(r" \(n\d{8}\)$", "", name))  # of two classes that share a name


def _about(name: str) -> str:
    # As the names sound: an hourglass, a unicycle, a European fire salamander.
    spoken = r"(?!eu|uni)[aeiou]|hour"
    article = "an" if re.match(spoken, name, re.IGNORECASE) else "a"
    return QUESTION.format(article=article, name=name)


class YesNoClassifier(Classifier):
    """An image-text model on whole images, with the columns no and yes for any class."""

    def __init__(self, model: nn.Module, processor: Any, *, spec: str, name: str) -> None:
        """Take a model of transformers and its processor.

        Args:
            model: generates text after images and text.
            processor: of images and text, for that model.
            spec: what was asked for.
            name: what to call it.

        Raises:
            SpurbenchError: if the processor takes no images or no text, its vocabulary lacks a
                token for yes or no, or the model does not answer.
        """
        if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
            raise SpurbenchError(f"{name} has no processor of both images and text")
        loaded = Loaded(
            network=model,
            name=name,
            architecture=type(model).__name__,
            input_size=(0, 0),  # of no size in particular
            resize=(),
            interpolation=None,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
        )
        info = ClassifierInfo(
            spec=spec,
            name=name,
            source="vlm",
            architecture=loaded.architecture,
            parameters=sum(p.numel() for p in model.parameters()),
            head=YES_NO,
            weights_sha256=weights_sha256(model.state_dict()),
        )
        super().__init__(loaded, info, WORDS)
        self._processor = processor
        # The next token is read at the end of each row, which padding must not take.
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        model.generation_config = _one_step(model.generation_config, processor.tokenizer)
        self._tokens = [_spellings(processor.tokenizer, word, name) for word in WORDS]
        try:
            self.answer([Image.new("RGB", (320, 256))], imagenet_wnids()[:1])
        except Exception as error:  # what models raise on inputs they don't take has no ancestor
            raise SpurbenchError(
                f"{name} can't be asked about an image: {type(error).__name__}: {reason(error)}"
            ) from error

    def answer(self, pixels: Tensor | Sequence[Image.Image], wnids: Sequence[str]) -> Tensor:
        """Log-probabilities that the next token spells no or yes, (N, 2).

        Args:
            pixels: RGB images of any sizes.
            wnids: the class that each is asked about.
        """
        text = [self._prompt(question(wnid)) for wnid in wnids]
        bos = self._processor.tokenizer.bos_token
        inputs = self._processor(
            images=[[image] for image in pixels],
            text=text,
            padding=True,
            return_tensors="pt",
            # A template may have put it there, and one is enough.
            add_special_tokens=not (bos and text[0].startswith(bos)),
        )
        # One step of generation: it knows where each model keeps its positions and its decoder.
        step = self.network.generate(**inputs.to(self.device))  # type: ignore[operator]
        shares = step.logits[0].float().log_softmax(dim=1)
        return torch.stack([shares[:, tokens].logsumexp(dim=1) for tokens in self._tokens], dim=1)

    def _prompt(self, asked: str) -> str:
        if self._processor.chat_template is None:
            return f"{getattr(self._processor, 'image_token', '')}{asked}"
        content = [{"type": "image"}, {"type": "text", "text": asked}]
        text: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        return text

    def columns(self, wnids: Sequence[str]) -> Tensor:
        """The column of yes for each WordNet id, (len(wnids),) int64."""
        return torch.full((len(wnids),), YES, dtype=torch.int64)

    def preprocessing(self, mode: Mode = "model") -> Preprocessing:
        """The processor's own, whatever is asked for, and what the model is asked with it."""
        settings = self._processor.image_processor.to_dict()
        vocabulary = self._processor.tokenizer
        spelled = (vocabulary.convert_ids_to_tokens(tokens) for tokens in self._tokens)
        return Preprocessing(
            mode="model",
            resize=(),
            mean=self._loaded.mean,
            std=self._loaded.std,
            transform=f"{type(self._processor).__name__} {json.dumps(settings, sort_keys=True)}",
            prompt=self._prompt(_about("KLASS")),
            answers=dict(zip(WORDS, spelled, strict=True)),
        )

    @property
    def own_transform(self) -> Callable[[Image.Image], Image.Image]:
        """Images go to the processor as they are."""
        return _as_it_is

    @property
    def default_batch_size(self) -> int:
        """Images at a time where nothing else is asked for: such models are large."""
        return 8 if self.device.type == "cuda" else 4

    def forward(self, pixels: Tensor) -> Tensor:
        """It has no logits of pixels.

        Raises:
            SpurbenchError: always.
        """
        raise self._unfit()

    @property
    def head(self) -> nn.Linear:
        """It has no linear layer that its answers come out of.

        Raises:
            SpurbenchError: always.
        """
        raise self._unfit()

    def _unfit(self) -> SpurbenchError:
        return SpurbenchError(
            f"{self.info.name} answers questions and has no features of classes; name a "
            "classifier in its place"
        )


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def _one_step(own: Any, tokenizer: Any) -> Any:
    """Generation of one token; of the model's own settings, only where a decoder starts."""
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=1,
        use_cache=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )


def _spellings(tokenizer: Any, word: str, name: str) -> list[int]:
    """Ids of all tokens that spell a word, in any case, with or without a space before it."""
    # Tokenizers write that space as one of these.
    ids = [
        token_id
        for token, token_id in tokenizer.get_vocab().items()
        if re.sub("^[ ▁Ġ]", "", token).lower() == word
    ]
    if not ids:
        raise SpurbenchError(
            f"{name} has no token that spells {word!r}, so its answer can't be read"
        )
    return sorted(ids)
