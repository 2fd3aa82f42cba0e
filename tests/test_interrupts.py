"""SIGTERM becomes an exception once, and only while it is asked for."""

import os
import signal

import pytest

from cspine.interrupts import Terminated, raise_on_sigterm


def end_twice(survived: list[Exception]) -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except Exception as error:
        survived.append(error)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # is ignored: the last write goes on


def test_it_raises_once_and_passes_by_what_catches_errors() -> None:
    before, survived = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(Terminated), raise_on_sigterm():
        end_twice(survived)
    assert not survived
    assert signal.getsignal(signal.SIGTERM) == before
