from __future__ import annotations

import logging
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from makers.toy import toy_subject
from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.base import load_base, load_decoder
from spurbench.diffusion.finetune import CHECKPOINT, finetune
from spurbench.diffusion.objective import Objective
from spurbench.diffusion.sample import sample
from spurbench.recipe.sections import SFSL, Finetune

CPU = torch.device("cpu")


@pytest.fixture
def subject():
    return toy_subject()


SETTINGS = Finetune(steps=4, learning_rate=1e-3, checkpoint_every=2, batch_size=2)


def weights_of(module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(before[key], after[key]) for key in before)


def test_unet_and_text_encoder_move_and_the_vae_does_not(base, subject, tmp_path):
    pipeline = base.pipeline
    before = {n: weights_of(getattr(pipeline, n)) for n in ("unet", "text_encoder", "vae")}
    weights, losses = finetune(base, subject, SETTINGS, SFSL(), 0, tmp_path)
    assert moved(before["unet"], weights["unet"])
    assert moved(before["text_encoder"], weights["text_encoder"])
    assert not moved(before["vae"], pipeline.vae.state_dict())
    assert {len(values) for values in losses.values()} == {4}
    assert all(np.isfinite(values).all() for values in losses.values())
    base.restore()
    assert not moved(before["unet"], pipeline.unet.state_dict())
    assert not moved(before["text_encoder"], pipeline.text_encoder.state_dict())


def test_a_frozen_text_encoder_stays(base, subject, tmp_path):
    before = weights_of(base.pipeline.text_encoder)
    settings = SETTINGS.model_copy(update={"train_text_encoder": False})
    weights, _ = finetune(base, subject, settings, SFSL(), 0, tmp_path)
    assert not moved(before, weights["text_encoder"])


def test_lora_changes_only_the_adapted_layers_and_by_little_rank(base, subject, tmp_path):
    before = {n: weights_of(getattr(base.pipeline, n)) for n in ("unet", "text_encoder", "vae")}
    settings = SETTINGS.model_copy(update={"method": "lora", "lora_rank": 2, "learning_rate": 1e-2})
    weights, _ = finetune(base, subject, settings, SFSL(), 0, tmp_path)
    assert not moved(before["vae"], base.pipeline.vae.state_dict())
    for component, suffixes in (
        ("unet", ("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")),
        ("text_encoder", ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight")),
    ):
        assert weights[component].keys() == before[component].keys()
        for key, value in weights[component].items():
            change = value - before[component][key]
            if key.endswith(suffixes):
                assert torch.linalg.matrix_rank(change, rtol=1e-3) in (1, 2), key
            else:
                assert not change.any(), key
    # What is sampled with is the merged model, and the next class finds the base's keys.
    state = base.pipeline.unet.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights["unet"].items())
    base.restore()


def test_textual_inversion_changes_only_the_tokens_embedding(base, subject, tmp_path):
    tokenizer, table = base.pipeline.tokenizer, base.pipeline.text_encoder.get_input_embeddings()
    before = {n: weights_of(getattr(base.pipeline, n)) for n in ("unet", "text_encoder")}
    settings = SETTINGS.model_copy(
        update={"method": "textual_inversion", "learning_rate": 1e-3, "steps": 2}
    )
    start = table.weight[tokenizer("flower", add_special_tokens=False).input_ids].mean(dim=0)
    weights, _ = finetune(base, subject, settings, SFSL(), 0, tmp_path)
    assert not moved(before["unet"], weights["unet"])
    for key, value in weights["text_encoder"].items():
        rows = (value != before["text_encoder"][key]).flatten(1).any(1) if value.dim() > 1 else None
        if key.endswith("token_embedding.weight"):
            (sks,) = tokenizer("sks", add_special_tokens=False).input_ids
            assert rows.nonzero().flatten().tolist() == [sks]
            # Adam moves each weight by about the learning rate a step.
            assert 1e-4 < (value[sks] - start).abs().max() < 3e-3
        else:
            assert not (value != before["text_encoder"][key]).any(), key


@pytest.mark.parametrize("method", ["lora", "textual_inversion"])
def test_a_run_that_fails_leaves_the_pipeline_in_its_ordinary_form(
    base, subject, tmp_path, monkeypatch, method
):
    keys = list(base.pipeline.unet.state_dict()), list(base.pipeline.text_encoder.state_dict())
    settings = SETTINGS.model_copy(update={"method": method, "learning_rate": 1e-3})

    def fail(*args, **kwargs):
        raise RuntimeError("in the middle")

    monkeypatch.setattr("spurbench.diffusion.objective.denoising_loss", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        finetune(base, subject, settings, SFSL(), 0, tmp_path)
    monkeypatch.undo()
    assert keys == (
        list(base.pipeline.unet.state_dict()),
        list(base.pipeline.text_encoder.state_dict()),
    )
    assert not base.pipeline.text_encoder.get_input_embeddings()._forward_hooks
    base.restore()


def test_lora_modules_that_are_in_no_layer_are_refused(base, subject, tmp_path):
    settings = SETTINGS.model_copy(update={"method": "lora", "lora_modules": ("to_z",)})
    with pytest.raises(SpurbenchError, match=r"none of finetune.lora_modules \(to_z\) is a layer"):
        finetune(base, subject, settings, SFSL(), 0, tmp_path)
    base.restore()


@pytest.mark.parametrize("gradient", ["prior", "instance", "both", "attract"])
def test_every_variant_of_the_similarity_loss_changes_what_is_learned(
    base, subject, tmp_path, gradient
):
    with_sfsl, losses = finetune(
        base, subject, SETTINGS, SFSL(gradient=gradient), 0, tmp_path / "a"
    )
    base.restore()
    without, _ = finetune(base, replace(subject, kappa=0.0), SETTINGS, SFSL(), 0, tmp_path / "b")
    assert moved(without["unet"], with_sfsl["unet"])
    assert all(value != 0 for value in losses["sfsl"])


def test_prior_variant_lowers_and_attract_raises_the_similarity_to_the_references(
    base, subject, tmp_path
):
    """The signs: +kappa pushes prior images away from psi(x); attract pulls the instance to it."""
    settings = SETTINGS.model_copy(
        update={
            "steps": 24,
            "learning_rate": 3e-3,
            "prior_weight": 0.0,
            "checkpoint_every": 24,
        }
    )
    for gradient in ("prior", "attract"):
        base.restore()
        _, losses = finetune(
            base,
            replace(subject, kappa=20.0),
            settings,
            SFSL(gradient=gradient, timestep_weighting="uniform"),
            0,
            tmp_path / gradient,
        )
        early, late = np.mean(losses["sfsl"][:6]), np.mean(losses["sfsl"][-6:])
        assert late < early, gradient


def test_every_nth_step_is_as_strong_as_every_step_taken_together(base, subject, tmp_path):
    _, losses = finetune(base, subject, SETTINGS, SFSL(every=2), 0, tmp_path)
    assert [value != 0 for value in losses["sfsl"]] == [True, False, True, False]


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "full", "ema_decay": 0.5, "lr_schedule": "cosine"},
        {"method": "lora"},
        {"method": "textual_inversion"},
    ],
    ids=["full", "lora", "textual_inversion"],
)
def test_resuming_gives_bit_identical_weights(
    base, subject, tmp_path, monkeypatch, caplog, changed
):
    settings = SETTINGS.model_copy(update=changed)
    whole, whole_losses = finetune(base, subject, settings, SFSL(), 0, tmp_path / "whole")

    base.restore()
    calls = 0
    original = base.pipeline.unet.forward

    def stop_in_step_three(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(base.pipeline.unet, "forward", stop_in_step_three)
    with pytest.raises(KeyboardInterrupt):
        finetune(base, subject, settings, SFSL(), 0, tmp_path / "stopped")
    monkeypatch.undo()
    assert (tmp_path / "stopped" / CHECKPOINT).exists()

    base.restore()  # as a fresh process would start
    caplog.set_level("INFO")
    resumed, resumed_losses = finetune(base, subject, settings, SFSL(), 0, tmp_path / "stopped")
    assert "going on from step" in caplog.text, "starting over would end in the same weights"
    for component in whole:
        assert not moved(whole[component], resumed[component])
    assert resumed_losses == whole_losses
    assert not (tmp_path / "stopped" / CHECKPOINT).exists()


def test_the_average_is_the_one_worked_out_from_the_weights_of_each_step(base, subject, tmp_path):
    """Of the second step on by half, of the first by a tenth: so little of the base is kept."""
    runs = []
    for steps in (1, 2, 3):
        settings = SETTINGS.model_copy(update={"steps": steps, "train_text_encoder": False})
        runs.append(finetune(base, subject, settings, SFSL(), 0, tmp_path / str(steps))[0])
        base.restore()
    start = weights_of(base.pipeline.unet)
    settings = settings.model_copy(update={"ema_decay": 0.15})
    averaged, _ = finetune(base, subject, settings, SFSL(), 0, tmp_path / "average")
    decays = [1 / 10, 0.15, 0.15]  # (1 + n) / (10 + n) at most
    for key, expected in start.items():
        for decay, run in zip(decays, runs, strict=True):
            expected = decay * expected + (1 - decay) * run["unet"][key]
        torch.testing.assert_close(averaged["unet"][key], expected, rtol=1e-5, atol=1e-7)
    assert moved(averaged["unet"], runs[-1]["unet"])
    assert not moved(averaged["unet"], base.pipeline.unet.state_dict()), "sampled from"


def test_the_learning_rate_falls_along_half_a_cosine(base, subject, tmp_path, monkeypatch):
    rates = {}
    step = torch.optim.AdamW.step
    for name in ("constant", "cosine"):

        def noted(self, *args, name=name, **kwargs):
            rates.setdefault(name, []).append(self.param_groups[0]["lr"])
            return step(self, *args, **kwargs)

        monkeypatch.setattr(torch.optim.AdamW, "step", noted)
        settings = SETTINGS.model_copy(update={"lr_schedule": name})
        finetune(base, replace(subject, kappa=0.0), settings, SFSL(), 0, tmp_path)
        base.restore()
    assert rates["constant"] == [1e-3] * 4
    half = 0.5**0.5 / 2
    assert rates["cosine"] == pytest.approx([1e-3 * f for f in (1, 0.5 + half, 0.5, 0.5 - half)])


@pytest.mark.parametrize("damage", ["empty", "junk", "cut off", "a list", "other weights"])
def test_a_checkpoint_that_cannot_be_read_costs_the_steps_and_is_said(
    base, subject, tmp_path, monkeypatch, caplog, damage
):
    whole, losses = finetune(base, subject, SETTINGS, SFSL(), 0, tmp_path / "whole")
    base.restore()
    faulty(monkeypatch, 3, lambda losses: losses._replace(prior=losses.prior * torch.nan))
    with pytest.raises(SpurbenchError):
        finetune(base, subject, SETTINGS, SFSL(), 0, tmp_path)
    monkeypatch.undo()
    base.restore()
    path = tmp_path / CHECKPOINT
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "junk":
            path.write_bytes(b"junk")
        case "cut off":
            path.write_bytes(path.read_bytes()[:1000])
        case "a list":
            torch.save([1, 2], path)
        case "other weights":
            state = torch.load(path, weights_only=True)
            state["trained"] = {key: torch.zeros(2) for key in state["trained"]}
            torch.save(state, path)
    again, same = finetune(base, subject, SETTINGS, SFSL(), 0, tmp_path)
    assert same == losses and not moved(whole["unet"], again["unet"])
    assert f"{CHECKPOINT} can't be read" in caplog.text and "starts over" in caplog.text


def test_half_precision_on_a_processor_is_refused_where_accelerate_would_leave_it_out(
    base, subject, tmp_path
):
    with pytest.raises(SpurbenchError, match="float16 needs a GPU"):
        finetune(base, subject, Finetune(steps=1, precision="float16"), SFSL(), 0, tmp_path)


def test_low_precision_reaches_the_networks(base, subject, tmp_path):
    dtypes = set()
    for network in (base.pipeline.unet.conv_in, base.pipeline.vae.decoder.conv_in):
        network.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    for precision in ("bfloat16", "float32"):
        finetune(base, subject, Finetune(steps=1, precision=precision), SFSL(), 0, tmp_path)
        assert dtypes == {getattr(torch, precision)}
        dtypes.clear()


def test_accelerate_keeps_what_it_had_and_heeds_no_launcher(base, subject, tmp_path, monkeypatch):
    """The process may be a user's, started by torchrun, with an Accelerator of its own."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states = (PartialState, AcceleratorState, GradientState)
    kept = [dict(state._shared_state) for state in states]
    try:
        theirs = Accelerator(mixed_precision="bf16", cpu=True)
        before = [dict(state._shared_state) for state in states]
        monkeypatch.setenv("LOCAL_RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
        finetune(base, subject, Finetune(steps=1), SFSL(), 0, tmp_path)
        assert not torch.distributed.is_initialized()
        assert os.environ["WORLD_SIZE"] == "2"
        assert [dict(state._shared_state) for state in states] == before
        assert theirs.mixed_precision == "bf16"
    finally:
        for state, values in zip(states, kept, strict=True):
            state._shared_state.clear()
            state._shared_state.update(values)


def test_the_seed_and_the_class_decide_the_draws(base, subject, tmp_path):
    first, _ = finetune(base, subject, SETTINGS, SFSL(), 0, tmp_path / "0")
    for changed, seed in ((subject, 1), (replace(subject, index=105), 0)):
        base.restore()
        second, _ = finetune(
            base, changed, SETTINGS, SFSL(), seed, tmp_path / f"{seed}{changed.index}"
        )
        assert moved(first["unet"], second["unet"])


def faulty(monkeypatch, at: int, fault) -> None:
    """Have ``fault`` change what is minimised in step ``at``, and what is said of it."""
    original = Objective.__call__

    def call(self, draw):
        losses = original(self, draw)
        return fault(losses) if draw.step == at else losses

    monkeypatch.setattr(Objective, "__call__", call)


def test_a_loss_that_is_not_finite_stops_with_step_seed_and_inputs(
    base, subject, tmp_path, monkeypatch
):
    """Two steps lie between the fault and the next look; the first is named, and the checkpoint
    that stays is from before it: from there the run ends as if nothing had been."""
    settings = SETTINGS.model_copy(update={"steps": 8, "checkpoint_every": 3})
    whole, _ = finetune(base, subject, settings, SFSL(), 7, tmp_path / "whole")
    base.restore()
    faulty(monkeypatch, 3, lambda losses: losses._replace(prior=losses.prior * torch.nan))
    with pytest.raises(SpurbenchError) as caught:
        finetune(base, subject, settings, SFSL(), 7, tmp_path / "faulty")
    draw = Objective(base, subject, settings, SFSL()).draw(7, 3)
    references = ", ".join(subject.reference_names[i] for i in draw.references)
    priors = ", ".join(subject.prior_names[i] for i in draw.priors)
    timesteps = ", ".join(str(int(t)) for t in draw.timesteps)
    message = str(caught.value)
    assert "class 94 ('a photo of a sks flower'): loss not finite at step 3 (" in message
    assert (
        f"seed 7, references {references}, prior images {priors}, timesteps {timesteps};" in message
    )
    assert "prior nan" in message and "instance nan" not in message
    assert str(tmp_path / "faulty" / CHECKPOINT) in message
    monkeypatch.undo()
    base.restore()
    resumed, _ = finetune(base, subject, settings, SFSL(), 7, tmp_path / "faulty")
    assert not moved(whole["unet"], resumed["unet"])


@pytest.mark.parametrize("steps", [6, 4], ids=["before a checkpoint", "at the end"])
def test_weights_that_the_last_step_ruined_are_not_kept(
    base, subject, tmp_path, monkeypatch, steps
):
    """The loss of step 3 is finite, its gradient is not: the next loss would tell, too late."""
    settings = SETTINGS.model_copy(update={"steps": steps, "gradient_clip": None})

    def fault(losses):
        zero = losses.prior - losses.prior.detach()
        return losses._replace(prior=losses.prior + zero.sqrt())

    faulty(monkeypatch, 3, fault)
    with pytest.raises(SpurbenchError, match=r"weights not finite after step 3, .*seed 7"):
        finetune(base, subject, settings, SFSL(), 7, tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in state["trained"].values())


def test_a_checkpoint_holds_what_is_trained_and_nothing_else(base, subject, tmp_path, monkeypatch):
    sizes = {}
    for method in ("full", "lora", "textual_inversion"):
        settings = SETTINGS.model_copy(update={"method": method, "lora_rank": 2})
        faulty(monkeypatch, 3, lambda losses: losses._replace(prior=losses.prior * torch.nan))
        with pytest.raises(SpurbenchError):
            finetune(base, subject, settings, SFSL(), 0, tmp_path / method)
        monkeypatch.undo()
        base.restore()
        trained = torch.load(tmp_path / method / CHECKPOINT, weights_only=True)["trained"]
        sizes[method] = sum(value.numel() for value in trained.values())
        assert {key.split(".")[0] for key in trained} == (
            {"token"} if method == "textual_inversion" else {"unet", "text_encoder"}
        )
        assert all(("lora" in key) == (method == "lora") for key in trained)
    networks = (base.pipeline.unet, base.pipeline.text_encoder)
    assert sizes["full"] == sum(p.numel() for net in networks for p in net.parameters())
    assert sizes["textual_inversion"] == 16


@pytest.mark.slow
def test_a_compiled_unet_is_compiled_once_for_all_classes(base, subject, tmp_path):
    from torch._dynamo.utils import counters

    settings = SETTINGS.model_copy(update={"compile": True, "steps": 2})
    plain = SETTINGS.model_copy(update={"steps": 2})
    _, expected = finetune(base, subject, plain, SFSL(), 0, tmp_path / "plain")
    base.restore()
    torch._dynamo.reset()
    counters.clear()
    weights, losses = finetune(base, subject, settings, SFSL(), 0, tmp_path / "first")
    for name, values in losses.items():
        assert values == pytest.approx(expected[name], rel=1e-3, abs=1e-5)
    compiled = counters["stats"]["unique_graphs"]
    assert compiled > 0
    assert weights["unet"].keys() == base.pipeline.unet.state_dict().keys()
    base.restore()
    list(sample(base, "a photo", [1, 2], resolution=32, steps=2, guidance_scale=2, batch_size=2))
    finetune(base, replace(subject, index=105), settings, SFSL(), 0, tmp_path / "second")
    assert counters["stats"]["unique_graphs"] == compiled


def test_a_token_that_is_not_one_token_is_refused(base, subject, tmp_path):
    with pytest.raises(SpurbenchError, match=r"'zwx' is 3 tokens"):
        finetune(base, subject, SETTINGS.model_copy(update={"token": "zwx"}), SFSL(), 0, tmp_path)


def test_an_sdxl_base_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    with pytest.raises(SpurbenchError, match="StableDiffusionXLPipeline"):
        load_base(str(tmp_path), revision=None, device=CPU)


def test_a_missing_base_is_one_line(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with caplog.at_level(logging.ERROR), pytest.raises(SpurbenchError, match="--base") as caught:
        load_base("nobody/nothing", revision=None, device=CPU)
    assert "\n" not in str(caught.value)


def tiny_decoder(folder):
    from diffusers import AutoencoderTiny

    torch.manual_seed(5)
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    tiny.save_pretrained(folder)
    return folder


def test_the_costs_of_the_similarity_loss_can_be_cut(base, subject, tmp_path):
    settings = SETTINGS.model_copy(update={"steps": 3})

    def run(name: str, decoder=None, **sfsl):
        base.restore()
        return finetune(base, subject, settings, SFSL(**sfsl), 0, tmp_path / name, decoder=decoder)

    weights, losses = run("plain")
    # The same mathematics, computed twice.
    again, same = run("checkpointed", checkpoint_decoder=True)
    assert same == losses
    assert not moved(weights["unet"], again["unet"])
    # Another resolution and another decoder: other values, not none.
    decoder = load_decoder(str(tiny_decoder(tmp_path / "tiny")), device=CPU)
    assert len(decoder.fingerprint) == 64
    for changed in (
        run("small", decode_resolution=16)[1],
        run("tiny", decoder=decoder)[1],
    ):
        assert changed["instance"][0] == losses["instance"][0]
        assert changed["sfsl"][0] not in (0, losses["sfsl"][0])


@pytest.mark.parametrize("gradient", ["prior", "instance", "both", "attract"])
def test_samples_above_the_timestep_limit_weigh_nothing(base, subject, tmp_path, gradient):
    from spurbench.core.identity import derive_seed

    seed = 24  # all of a pair count in its first step, one in its second, none in its third
    settings = SETTINGS.model_copy(update={"steps": 3, "learning_rate": 1e-12})
    options = {"gradient": gradient, "timestep_weighting": "uniform"}
    _, full = finetune(base, subject, settings, SFSL(**options), seed, tmp_path / "full")
    base.restore()
    limited = SFSL(**options, max_timestep=0.5)
    _, low = finetune(base, subject, settings, limited, seed, tmp_path / "low")
    seen = set()
    for step in range(3):
        generator = torch.Generator().manual_seed(derive_seed(seed, "finetune", 94, step))
        torch.randint(3, (2,), generator=generator)
        torch.randint(4, (2,), generator=generator)
        clear = torch.randint(1000, (4,), generator=generator) < 500
        used = {
            "prior": clear[2:],
            "both": clear[:2] & clear[2:],
        }.get(gradient, clear[:2])
        seen.add(int(used.sum()))
        if used.all():
            assert low["sfsl"][step] == pytest.approx(full["sfsl"][step], rel=1e-4)
        elif not used.any():
            assert low["sfsl"][step] == 0
        else:
            assert low["sfsl"][step] not in (0, full["sfsl"][step])
    assert seen == {0, 1, 2}


def test_a_decoder_of_another_kind_is_refused(base, toy_folder, tmp_path):
    with pytest.raises(SpurbenchError, match="is a AutoencoderKL, not an AutoencoderTiny"):
        load_decoder(str(toy_folder / "vae"), device=CPU)
