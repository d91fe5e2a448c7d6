from __future__ import annotations

import gc

import pytest

from spurbench.core import collector


def test_the_collector_rests_in_the_block_and_is_as_it_was_after_it():
    with pytest.raises(ZeroDivisionError), collector.paused():
        assert not gc.isenabled()
        _ = 1 / 0
    assert gc.isenabled()
    gc.disable()
    try:
        with collector.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_function_under_it_can_be_called_twice():
    seen = []

    @collector.paused()
    def note():
        seen.append(gc.isenabled())

    note()
    note()
    assert seen == [False, False] and gc.isenabled()
