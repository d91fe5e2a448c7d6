"""A worker process of the local engine: ``python -m spurbench.engines.worker``.

It takes a pickled work and then the names of units, a line each, from standard input, and answers
on standard output, a JSON object a line. What libraries print goes to standard error. The end of
its input ends it at once, in the midst of a unit too: nobody is left who would read.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import queue
import sys
import threading
from typing import Any, BinaryIO

from spurbench.core.errors import described
from spurbench.core.progress import reporting_to
from spurbench.engines.work import Work


class Channel:
    """Messages to who started this process; from any of its threads, never mixed up."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._lock = descriptor, threading.Lock()

    def send(self, event: str, **values: Any) -> None:
        """Send one message."""
        data = json.dumps({"event": event, **values}).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


class _ToChannel(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._channel.send("log", name=record.name, level=record.levelno, text=text)


def main() -> None:
    """Do units until there are no more."""
    source: BinaryIO = sys.stdin.buffer
    channel = Channel(os.dup(1))
    os.dup2(2, 1)
    level, work = pickle.load(source)  # from the process that started this one, and no other
    units: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(source, units), daemon=True).start()
    serve(work, units, channel, level)


def _listen(source: BinaryIO, units: queue.Queue[str]) -> None:
    for line in source:
        units.put(line.decode().rstrip("\n"))
    os._exit(0)


def serve(work: Work, names: queue.Queue[str], channel: Channel, level: int) -> None:
    """Open the work, then do the units that are asked for, one after another.

    What they log goes through the channel, from ``level`` on.
    """
    logger = logging.getLogger("spurbench")
    logger.handlers, logger.propagate = [_ToChannel(channel)], False
    logger.setLevel(level)
    units = {unit.name: unit for unit in work.units}
    try:
        do = work.open()
    except Exception as error:  # whatever it is, it is said and ends this worker alone
        logging.getLogger("spurbench").debug("can't be opened", exc_info=True)
        channel.send("unopened", why=described(error))
        return
    with reporting_to(lambda label, at, of: channel.send("progress", label=label, at=at, of=of)):
        while True:
            unit = units[names.get()]
            try:
                do(unit)
            except Exception as error:  # one unit's failure must not cost the others
                logging.getLogger("spurbench").debug("%s failed", unit.name, exc_info=True)
                channel.send("failed", unit=unit.name, why=described(error))
            else:
                channel.send("done", unit=unit.name)


if __name__ == "__main__":
    main()
