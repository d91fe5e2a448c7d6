from __future__ import annotations

import pytest

from spurbench.core.text import with_article


@pytest.mark.parametrize(
    "said",
    [
        *("a koala", "an indigo bunting", "an ocarina", "an American alligator", "an umbrella"),
        *("a unicycle", "an hourglass", "a hummingbird", "an obelisk", "a European gallinule"),
    ],
)
def test_a_noun_gets_the_article_that_it_is_said_with(said):
    assert with_article(said.split(" ", 1)[1]) == said
