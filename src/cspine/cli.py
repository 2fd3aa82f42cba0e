"""What every command shares: `key=value` anywhere on the line, and exit codes 0 done, 1 failed, 2 misuse."""

import argparse
import sys
from collections.abc import Callable

from cspine.errors import UsageError, UserError


class Parser(argparse.ArgumentParser):
    """An argument parser whose -h shows the module docstring, and that collects `key=value` words as overrides."""

    def __init__(self, doc: str | None) -> None:
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_with_overrides(self, words: list[str] | None = None) -> argparse.Namespace:
        """Parse the command line; `args.overrides` holds the `section.key=value` words in order."""
        words = sys.argv[1:] if words is None else words
        overrides = [word for word in words if _is_override(word)]
        args = self.parse_args([word for word in words if not _is_override(word)])
        args.overrides = overrides
        return args


def _is_override(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and not word.startswith("-") and key.replace(".", "").replace("_", "").isalnum()


def run(main: Callable[[], int | None]) -> None:
    """Call a command's main function and exit with its status; a UserError prints without a traceback."""
    try:
        status = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(
            "\ninterrupted; what is finished is kept: run the command again to go on (train.py with --resume)",
            file=sys.stderr,
        )
        status = 130
    sys.exit(status)
