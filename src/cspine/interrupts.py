"""SIGTERM as an exception, so that what is done can still be written."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(BaseException):
    """Somebody wants this process to end. No Exception: what survives a failing study must not swallow it."""


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """The first SIGTERM raises Terminated in the main thread; later ones must not end the last write."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
