"""Bad arguments, values of ``--set``, damaged stage stores, and output that nobody reads."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.case import Case
from faults.world import World


def cases(world: World) -> Iterator[Case]:
    """All of them."""
    yield from _overrides(world)
    yield from _arguments(world)
    yield from _outputs(world)
    yield from _stores(world)
    yield from _unread(world)


def _overrides(world: World) -> Iterator[Case]:
    values = [
        *("prior.prompt={noun.x}", "prior.prompt={0}", "prior.prompt={", "prior.prompt={}"),
        *("prior.prompt={noun!r:>99999999999}", "finetune.prompt={token!r:>99999999999}"),
        *("finetune.prompt={token.__class__.__mro__}", "finetune.prompt={token:d}"),
        *("finetune.prompt={token[0]}", "finetune.prompt={token:{noun}}", "finetune.prompt="),
        *("finetune.learning_rate=inf", "finetune.learning_rate=nan", "finetune.learning_rate=0"),
        *("finetune.weight_decay=inf", "finetune.epsilon=inf", "finetune.gradient_clip=inf"),
        *("finetune.prior_weight=inf", "sfsl.kappa=nan", "sfsl.kappa=inf", "sfsl.kappa=-1"),
        *("finetune.steps=100000000000000000000", "finetune.steps=-1", "finetune.steps=1.5"),
        *("finetune.steps=" + "9" * 5000, "sample.images=100000000000000000000"),
        *("sample.steps=0", "sample.steps=100000000000000000000", "sample.guidance_scale=nan"),
        *("sample.guidance_scale=inf", "sample.batch_size=0", "base.resolution=0"),
        *("base.resolution=7", "base.resolution=100000000000", "base.resolution=-64"),
        *("sfsl.decode_resolution=1", "sfsl.decode_resolution=100000000000", "sfsl.max_timestep=2"),
        *('base.model="a\\u0000b"', "base.model=", "base.model=../../..", "base.model=/dev/zero"),
        *("base.model=/etc/passwd", "base.revision=../../x", "sfsl.decoder=/dev/zero"),
        *('panel.phi="\\u0000"', "panel.phi=[1]", "panel.classifiers=[]", "panel.classifiers=a"),
        *("check.object_detector=owlv2:../../x", "check.object_detector=/etc", "check.quality=[1]"),
        *(
            'check.quality=["no such metric"]',
            "check.object_threshold=nan",
            "data.images=/dev/null",
        ),
        *("name=../../x", "name=", "description=[/b]", "finetune.token=", "finetune.token=a b c"),
        *("finetune.lora_modules=[]", "finetune.lora_rank=100000000000", "finetune.method=none"),
        *("=", "a", "", "a=b", ".=1", "..=1", "finetune=1", "finetune.steps.x=1", "=1"),
        *("finetune.steps=\x1b[2J", "finetune.steps=[/b]", "finetune.steps=1\nError: forged"),
        *("finetune.steps=" + "[" * 100_000, "finetune.steps={a=1}", "select.references=0"),
        *("finetune.beta1=1", "finetune.beta1=nan", "finetune.checkpoint_every=10000000000000000"),
        os.fsdecode(b"base.model=\xff\xfe"),
    ]
    plan = ("build", "--recipe", str(world.recipe), "--dry-run")
    absurd = ("=inf", "=nan", "=" + "9" * 5000, "=100000000000000000000")
    for value in values:
        name = value if len(value) < 60 else f"{value[:40]}... ({len(value)})"
        unclipped = value == "finetune.gradient_clip=inf"
        must = "refused" if value.endswith(absurd) and not unclipped else "any"
        yield Case("--set", repr(name), (*plan, "--set", value), takes=must)


def _arguments(world: World) -> Iterator[Case]:
    here = str(world.dataset)
    measure = world.evaluation(world.photographs)
    build = ("build", "--recipe", str(world.recipe))
    dry = (*build, "--dry-run")
    # An address of nobody: what is right with these must not reach the authors' server.
    fetch = ("fetch", "spurious-imagenet", "--to", "f", "--from", "x:")
    board = ("leaderboard", "show", str(world.results))
    check = ("leaderboard", "check", str(world.entry()))
    forged = "x\nError: forged"
    undecodable = os.fsdecode(b"\xff\xfe")
    lines: list[tuple[str, ...]] = [
        ("nonsense",),
        (forged,),
        (undecodable,),
        ("--nonsense",),
        ("eval",),
        ("build", "extra"),
        *((*dry, "--classes", x) for x in ("", ",", "hummingbrid", "²", "٩٤", "-1", "9" * 5000)),
        *((*dry, "--classes", x) for x in ("[/b]", forged, undecodable, "paper", "all,all")),
        *((*dry, "--device", x) for x in ("", "cpu:9", "cuda:99", "cuda:x", "tpu", "mps", forged)),
        *((*dry, "--gpus", x) for x in ("", "0", "-1", "1.5", "9" * 30)),
        *(
            (*dry, "--gpus", "2", "--device-tflops", x)
            for x in ("0", "-1", "nan", "inf", "9" * 400)
        ),
        *((*dry, "--workers", "2", "--device-share", x) for x in ("0", "1.1", "nan", "")),
        *(("build", "--dry-run", "--recipe", x) for x in ("", "/", ".", "/dev/zero", "..", forged)),
        *(
            ("build", "--dry-run", "--recipe", x)
            for x in (undecodable, "x" * 5000, "mini/", "Mini")
        ),
        *((*build, "--version", x, "--output", "o") for x in ("", "1", "1.0", "v1.0.0", "1.0.0\n")),
        *((*build, "--version", x, "--output", "o") for x in ("1.0.-1", "٩.0.0", "../x", "01.0.0")),
        *((*dry, "--seed", x) for x in ("abc", "1.5", "", "nan")),
        *((*build, "--classes", "94", "--output", "o", "--seed", x) for x in ("-1", "9" * 30)),
        *(
            (*build, "--classes", "94", "--output", "o", "--previous", x)
            for x in ("/", here, "nowhere")
        ),
        *(
            (*build, "--classes", "94", "--output", "o", "--data", x)
            for x in ("/", "/dev", here, "nowhere")
        ),
        *(("eval", "--model", x, "--data", here) for x in ("", "nonsense", "resnet50.nonsense")),
        *(("eval", "--model", x, "--data", here) for x in ("mini:", "mini:../x", "torchvision:")),
        *(("eval", "--model", x, "--data", here) for x in ("torchvision:os", "robustbench:x")),
        *(("eval", "--model", x, "--data", here) for x in ("hf-hub:", "hf-hub:../x", "=", "a=b=c")),
        *(("eval", "--model", x, "--data", here) for x in (forged, undecodable, "/", "/etc", ":")),
        *(("eval", "--model", x, "--data", here) for x in ("torchvision:resnet50.X", "x" * 5000)),
        *(("eval", "--model", x, "--data", here) for x in ("torchvision:list_models", "[/b]")),
        *(world.evaluation(x) for x in ("", "/", ".", "/dev/zero", "a/b", "a/b/c", "../..")),
        *(world.evaluation(x) for x in (forged, undecodable, "x" * 5000, "[/b]", "~")),
        *((*measure, "--limit", x) for x in ("0", "-1", "abc")),
        (*world.evaluation("/proc"),),
        *(("fetch", x) for x in ("", "nonsense", forged, undecodable)),
        *((*fetch, "--from", x) for x in ("", "x", "file:///etc/passwd", "http://[", forged)),
        *((*fetch, "--from", x) for x in (undecodable, "http://é\n/", "ftp://x/y", "http:///x")),
        *((*fetch, "--to", x) for x in ("/", "/dev/null", "/dev/null/x", "/proc/x", here, "")),
        *((*fetch, "--sha256", x) for x in ("", "abc", "G" * 64, "0" * 63)),
        *((*measure, "--batch-size", x) for x in ("0", "-1", "abc")),
        *((*measure, "--workers", x) for x in ("-1", "0", "abc")),
        *((*measure, "--decoders", x) for x in ("-1", "abc")),
        *((*measure, "--engine", x) for x in ("", "nonsense")),
        (*measure, "--split", "generated"),
        (*measure, "--split", "nonsense"),
        *((*measure, "--positives", x) for x in ("", "/", "nowhere", "/dev/null", here)),
        *(
            (*measure, "--panel", x)
            for x in ("/dev/zero", "/dev/null", "/", "nowhere", undecodable)
        ),
        *((*measure, "--checkpoint", x) for x in ("/dev/zero", "/", "nowhere", "")),
        (*measure, "--model", str(world.model)),
        *(("leaderboard", x) for x in ("nowhere", "/dev/null", "/dev/zero", "", forged, "/proc/1")),
        (*board, "--output", "/dev/null"),
        ("leaderboard", "build", "nowhere"),
        ("leaderboard", "build", "--output", "nowhere"),
        *(("leaderboard", "build", "--samples", x) for x in ("-1", "abc")),
        *(("compare", x, str(world.result())) for x in ("nowhere", "/dev/zero", "/", "", forged)),
        *(("compare", str(world.result()), str(world.result()), "--images", x) for x in ("0", "x")),
        *(("verify", x) for x in ("", "/", "nowhere", "/dev/null", forged, undecodable)),
        *(("diff", here, x) for x in ("", "/", "nowhere", "/dev/null", str(world.recipe))),
        *(
            ("push", here, "--repo-id", x)
            for x in ("", "x", "a/b/c", "../x", forged, "é/x", "a/b\n")
        ),
        *(("quality", here, "--metric", x) for x in ("", "nonsense", forged)),
        ("quality", "/"),
        ("classes", "--recipe", "nonsense"),
        ("classes", "--classes", "²"),
        *(("mini", "positives", "out", "--images", x) for x in ("0", "-1", "abc")),
        *(("mini", "measure", "out.json", "--scenes", x) for x in ("0", "-1")),
        ("mini", "measure", "out.json", "--scenes", "1", "--samples", "0", "--attacked", "-1"),
        *(("mini", "preview", x) for x in ("", "/", "x/y/z.png", "/dev/null/x.png", forged)),
        *(
            ("ablate", "--recipe", str(world.recipe), "--rows", x)
            for x in ("nonsense", "²", forged)
        ),
        *(("ablate", "--recipe", str(world.recipe), "--seeds", x) for x in ("0", "-1", "abc")),
        ("ablate", "--recipe", "sd15"),
        ("ablate", "--recipe", "mini", "--unseen", "nonsense", "--output", "o", "--rows", "base"),
        ("select", "--data", str(world.photographs), "--panel", "nonsense"),
        ("select", "--data", str(world.photographs), "--panel", str(world.model), "--classes", "²"),
        ("select", "--data", here, "--panel", str(world.model), "--panel", str(world.model)),
        *((*measure, "--labels", x) for x in ("", "/", "nowhere", "/dev/zero", undecodable)),
        *((*measure, "--config", x) for x in ("curated", "nonsense", "positives")),
        (*measure, "--protocol", "nonsense"),
        *(
            ("eval", "--model", f"{source}:{x}", "--data", here)
            for source in ("transformers", "onnx", "open_clip", "vlm")
            for x in ("", "/", "nowhere", "a/b/c", "/dev/zero", forged, undecodable, "x" * 5000)
        ),
        *(
            ("eval", "--model", f"open_clip:{x}", "--data", here)
            for x in ("ViT-B-32", "a.b", "a=b")
        ),
        *((*build, "--output", "o", "--positives", x) for x in ("/", "nowhere", here, "/dev")),
        *((*dry, "--replicates", x) for x in ("0", "-1", "abc", "1.5", "9" * 30)),
        *(
            ("export", here, "--output", "o", "--format", "imagefolder", *x)
            for x in (
                ("--config", "x"),
                ("--split", "x"),
                ("--config", "controls", "--split", "real"),
            )
        ),
        ("export", here, "--output", "o", "--format", "nonsense"),
        *(
            ("export", x, "--output", "o", "--format", "webdataset")
            for x in ("/", "nowhere", forged)
        ),
        *(
            ("submit", x)
            for x in ("", "/", "nowhere", "/dev/null", "/dev/zero", forged, undecodable)
        ),
        ("submit", str(world.result()), "--model-card", "x"),
        ("submit", str(world.result()), "--dataset", "o/n"),
        *(
            ("submit", str(world.result()), "--model-card", "x", "--dataset", x)
            for x in ("", "x", "a/b/c", "../x", forged, undecodable, "é/x")
        ),
        *(("leaderboard", "check", x) for x in ("", "/", "nowhere", "/dev/zero", forged)),
        ("leaderboard", "check", "nowhere", "/dev/null"),
        *((*check, "--recompute", x) for x in ("-1", "abc", "3")),
        *((*check, "--recompute", "3", "--data", x) for x in ("nowhere", "/", here)),
        *((*check, "--recompute", "3", "--data", here, "--positives", x) for x in ("/", "nowhere")),
        *((*board, "--limit", x) for x in ("0", "-1", "abc")),
        (*board, "--json", "--output", "/dev/null"),
    ]
    for arguments in lines:
        shown = [a if len(a) < 40 else f"{a[:4]}...{a[-18:]}" for a in arguments]
        yield Case(
            "argument",
            repr(" ".join(shown)),
            arguments,
            output=("o/", "out", "x", ".stages/", "board/"),
            keeps=(".stages/",),
        )


def _outputs(world: World) -> Iterator[Case]:
    """Outputs where nothing can be written, or where something else lies."""
    commands: list[tuple[str, ...]] = [
        ("build", "--recipe", str(world.recipe), "--classes", "94", "--output"),
        (*world.evaluation(world.photographs), "--output"),
        ("leaderboard", "show", str(world.results), "--output"),
        ("leaderboard", "build", str(world.result()), "--output"),
        ("compare", str(world.result(0)), str(world.result(1)), "--output"),
        ("diff", str(world.dataset), str(world.successor), "--json"),
        ("select", "--data", str(world.photographs), "--panel", str(world.model), "--output"),
        ("export", str(world.dataset), "--format", "webdataset", "--output"),
        ("submit", str(world.result()), "--to"),
        ("submit", str(world.result()), "--dataset", "o/n", "--model-card"),
        ("fetch", "spurious-imagenet", "--from", "x:", "--to"),
        ("mini", "preview"),
        ("mini", "positives", "--images", "1"),
    ]
    places: dict[str, Callable[[Path], object]] = {
        "file": lambda path: path.write_text("mine"),
        "file/below": lambda path: path.parent.write_text("mine"),
        "full": lambda path: (path.mkdir(), (path / "mine").write_text("mine")),
        "loop": lambda path: path.symlink_to(path.name),
        "n" * 300: lambda path: None,
        "..": lambda path: None,
        "fifo": os.mkfifo,
    }
    for arguments in commands:
        for name, lay in places.items():
            yield Case(
                "output",
                f"{' '.join(arguments[:2])[:24]} to {name[:20]}",
                (*arguments, name),
                lambda folder, lay=lay, name=name: lay(folder / name) and None,
                output=("", "../"),
                keeps=(".stages/", "file/", "full/.stages/"),
            )


def _stores(world: World) -> Iterator[Case]:
    """What lies damaged in the stage store is made again."""
    build = ("build", "--recipe", str(world.recipe), "--classes", "hummingbird", "--output", "o")
    stored = world.root / "run" / ".stages" / "toy"

    def finished(stage: str, file: str, data: bytes) -> Callable[[Path], None]:
        """The finished stages of one name with one file of another content."""

        def lay(folder: Path) -> None:
            shutil.copytree(stored, folder / ".stages" / "toy")
            for found in (folder / ".stages").rglob(f"{stage}-*/{file}"):
                found.write_bytes(data)

        return lay

    def unfinished(stage: str, file: str, data: bytes) -> Callable[[Path], None]:
        """Stages without their marker, as an interruption leaves them, and a file in them."""

        def lay(folder: Path) -> None:
            shutil.copytree(stored, folder / ".stages" / "toy")
            for marker in [*(folder / ".stages").rglob(f"{stage}-*/stage.json")]:
                marker.unlink()
                partial = marker.parent.with_name(f"{marker.parent.name}.partial")
                marker.parent.rename(partial)
                (partial / file).write_bytes(data)

        return lay

    damages: dict[str, Callable[[Path], None]] = {}
    for data in (b"", b"[]", b"null", b"{}", b"junk", b"[" * 100_000, b"\xff", b'{"files": null}'):
        damages[f"stage.json {data[:20]!r}"] = finished("*", "stage.json", data)
    marker = json.loads(next(stored.rglob("examine-*/stage.json")).read_text(encoding="utf-8"))
    for key, value in (("files", None), ("files", []), ("files", {"a": 1}), ("seconds", "abc")):
        data = json.dumps({**marker, key: value}).encode()
        damages[f"{key} {value!r}"] = finished("examine", "stage.json", data)
    climbing = {**marker, "files": {"../../../../../../etc/passwd": "0"}}
    damages["files climbing"] = finished("examine", "stage.json", json.dumps(climbing).encode())
    for data in (b"", b"junk", b"PK\x03\x04junk", b"\x80\x04."):
        damages[f"checkpoint.pt {data!r}"] = unfinished("finetune", "checkpoint.pt", data)
    for data in (b"abc", b"", b"-1", b"nan", b"\xff", b"[]", b"null", b'"x"', b"9" * 5000):
        damages[f".seconds {data[:9]!r}"] = unfinished("*", ".seconds", data)
    for stage, file in (("sample", "0001.png"), ("prior", "0001.png")):
        for data in (b"", b"junk", b"\x89PNG\r\n\x1a\n"):
            damages[f"{stage} {file} {data!r}"] = unfinished(stage, file, data)
            damages[f"finished {stage} {file} {data!r}"] = finished(stage, file, data)
    for name, lay in damages.items():
        yield Case("stage store", name, build, lay, "mended", ("o/", ".stages/"), (".stages/",))


def _unread(world: World) -> Iterator[Case]:
    for arguments in (
        ("classes",),
        ("--help",),
        ("build", "--dry-run", "--recipe", str(world.recipe)),
        ("verify", str(world.dataset)),
        ("diff", str(world.dataset), str(world.successor)),
        ("leaderboard", str(world.results)),
        ("compare", str(world.result(0)), str(world.result(1)), "--output", "o"),
    ):
        yield Case("nobody reads", " ".join(arguments[:1]), arguments, output=("o/",), unread=True)
