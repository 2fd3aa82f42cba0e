"""Errors meant for people: what is wrong, in which file or key, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import NoReturn


class UserError(Exception):
    """A mistake in the input that the user can mend; commands print it as one message, without a traceback."""


class UsageError(UserError):
    """The command line itself is wrong; commands exit with status 2."""


def refuse(text: str) -> NoReturn:
    """For functions that are told what to do with what went wrong: end with a UserError."""
    raise UserError(text)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The tail of an error message that offers the closest allowed name, or lists them all."""
    options = sorted(allowed)
    close = get_close_matches(name, options, n=1)
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(options)}"
