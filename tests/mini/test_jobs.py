from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from spurbench.mini.training.jobs import start_pool

PARENT = """
import time
from spurbench.mini.training.jobs import start_pool
with start_pool(1, 1) as pool:
    pool.submit(print, "up", flush=True).result()
    pool.submit(time.sleep, 600).result()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
def test_jobs_end_with_the_process_that_started_them():
    parents = {
        how: subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
        for how in (signal.SIGTERM, signal.SIGKILL)
    }
    for how, parent in parents.items():
        assert parent.stdout.readline() == "up\n"
        parent.send_signal(how)
        # The pipe ends when nobody is left who could write to it.
        assert parent.communicate(timeout=30) == ("", None), how


def test_jobs_have_their_share_of_the_cores():
    import torch

    with start_pool(1, 1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert pool.submit(os.getpid).result() != os.getpid()
