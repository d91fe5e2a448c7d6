"""A leaderboard whose every text is hostile."""

from __future__ import annotations

import json

from makers.measured import save_dataset, save_result
from spurbench.leaderboard import page as site

EVIL = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'
    "'\" | [x](javascript:y) **z** {{ 7 * 7 }}"
)


def evil_site(folder, *, hostile: str = EVIL):
    """A page where every text that comes from outside is hostile."""
    images = save_dataset(folder / "data", name=hostile, version=hostile)
    renamed = {"name": hostile, "spurious_feature": hostile}
    for i, share in enumerate((0.2, 0.9)):
        save_result(
            folder / "results",
            images,
            f"{hostile}{i}",
            {"real": share, "generated": share},
            architecture=hostile,
            renamed=renamed,
        )
    board = folder / "board"
    board.mkdir()
    text = json.dumps(hostile)
    (board / "reported.toml").write_text(
        f"[[tables]]\ntitle = {text}\nmeasure = {text}\nsource = {text}\n"
        'url = "https://example.org"\n'
        f"scores = [{{ classifier = {text}, score = 0.5 }}]\n"
    )
    site.build([folder / "results"], [str(folder / "data")], board)
    # Family and training data are derived, but an entry in a pull request may say anything.
    for path in board.glob("*/*.json"):
        content = json.loads(path.read_text())
        content["classifier"] |= {"family": hostile, "training_data": hostile}
        path.write_text(json.dumps(content))
    site.build([], [str(folder / "data")], board)
    return board
