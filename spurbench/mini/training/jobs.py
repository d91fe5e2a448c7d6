"""Processes that train beside each other, and end with the one that started them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait


def start_pool(jobs: int, threads: int) -> ProcessPoolExecutor:
    """A pool of ``jobs`` processes, each of which computes on ``threads`` cores.

    A process of it ends when this one does, however that ends: a training would otherwise go on for
    hours and publish nothing.
    """
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, spawn, _start, (threads,))


def prepare() -> None:
    """What every process that trains does first."""
    import torch

    torch.set_flush_denormal(True)  # small gradients of a CPU training are slow as denormals


def log_times() -> None:
    """Say when each message came."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")


def _start(threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    log_times()
    prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait(
            [parent.sentinel]
        )  # closed by the system when the parent is gone, even if it is killed
        os._exit(1)  # at once: every file is written atomically
