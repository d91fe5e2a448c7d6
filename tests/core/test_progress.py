from __future__ import annotations

from spurbench.core import progress as progresses
from spurbench.core.progress import progress, reporting_to, tracked


def test_within_a_worker_a_loop_is_messages_the_last_of_which_says_that_it_is_over(monkeypatch):
    said = []
    clock = iter(range(1000))
    monkeypatch.setattr(progresses.time, "monotonic", lambda: next(clock) / 10)
    with reporting_to(lambda *message: said.append(message)):
        assert [*tracked(range(3, 10), "fine-tune", 10, done=3)] == [*range(3, 10)]
    assert said[0] == ("fine-tune", 4, 10) and said[-1] == ("fine-tune", 10, 10)
    assert len(said) < 7, "not one a step"


def test_outside_it_is_a_bar_and_no_message(capsys):
    said = []
    with reporting_to(lambda *message: said.append(message)):
        pass
    with progress("look", 2) as advance:
        advance(2)
    assert not said and not capsys.readouterr().out
