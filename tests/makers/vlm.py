"""Tiny image-text models with random weights, saved with their processors as transformers does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

Family = Literal["llava", "idefics3", "qwen2-vl"]

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} assistant:{% endif %}"
)
IMAGES = {
    "llava": "<image>",
    "idefics3": "<image>",
    "qwen2-vl": "<|vision_start|><|image_pad|><|vision_end|>",
}
"""What stands for an image in a family's prompts."""


def tokenizer(*special: str, words: str = "yes Yes YES no No") -> PreTrainedTokenizerFast:
    """A byte-level tokenizer in which these words, with or without a space, are tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    texts = [f"{word} {word}" for word in words.split()] * 9
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    return fast


def save_vlm(
    folder: Path,
    family: Family = "llava",
    *,
    template: bool = True,
    words: str = "yes Yes YES no No",
) -> Path:
    """Save a model whose random answers differ between images and between questions."""
    torch.manual_seed(0)
    chat = TEMPLATE.replace("IMAGE", IMAGES[family]) if template else None
    model, processor = {"llava": _llava, "idefics3": _idefics3, "qwen2-vl": _qwen2_vl}[family](
        words, chat
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def rig(folder: Path, *, yes: float) -> Path:
    """Make a saved LLaVA say yes with a probability, whatever it sees: ``folder`` itself.

    Without what its layers add, the last token of the prompt alone decides the next.
    """
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    vocabulary = LlavaProcessor.from_pretrained(folder).tokenizer
    with torch.no_grad():
        for name, weight in model.model.language_model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()
            elif name == "norm.weight" or "embed_tokens" in name:
                weight.fill_(1.0)
        # Every hidden state is now a row of ones, and a token's logit the sum of its own row.
        model.lm_head.weight.zero_()
        ids = {word: _ids(vocabulary, word) for word in ("yes", "no")}
        for word, share in (("yes", yes), ("no", 1 - yes)):
            logit = torch.tensor(share / len(ids[word])).log()
            model.lm_head.weight[ids[word]] = logit / model.lm_head.in_features
    model.save_pretrained(folder)
    return folder


def _ids(vocabulary: PreTrainedTokenizerFast, word: str) -> list[int]:
    """Tokens that read as a word, told by decoding each."""
    return [i for i in range(len(vocabulary)) if vocabulary.decode([i]).strip().lower() == word]


def _llava(words, chat):
    vocabulary = tokenizer("<image>", words=words)
    vision = CLIPVisionConfig(**SIZES, image_size=28, patch_size=14)
    text = LlamaConfig(**SIZES, vocab_size=len(vocabulary))
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=vocabulary.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        vocabulary,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat,
    )
    return LlavaForConditionalGeneration(config), processor


def _idefics3(words, chat):
    vocabulary = tokenizer("<image>", "<fake_token_around_image>", "<global-img>", words=words)
    processor = Idefics3Processor(  # which adds to the vocabulary
        Idefics3ImageProcessor(size={"longest_edge": 56}, max_image_size={"longest_edge": 28}),
        vocabulary,
        image_seq_len=1,
        chat_template=chat,
    )
    config = Idefics3Config(
        vision_config={**SIZES, "image_size": 28, "patch_size": 14},
        text_config={**SIZES, "model_type": "llama", "vocab_size": len(vocabulary)},
        image_token_id=vocabulary.convert_tokens_to_ids("<image>"),
        pad_token_id=vocabulary.pad_token_id,
        scale_factor=2,
    )
    return Idefics3ForConditionalGeneration(config), processor


def _qwen2_vl(words, chat):
    vocabulary = tokenizer(
        "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>", words=words
    )
    token = vocabulary.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            **SIZES,
            "vocab_size": len(vocabulary),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
        },
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
    )
    sizes = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=sizes),
        vocabulary,
        Qwen2VLVideoProcessor(size=sizes),
        chat_template=chat,
    )
    return Qwen2VLForConditionalGeneration(config), processor
