"""Exit codes and overrides, the same for every command."""

import subprocess
import sys
from pathlib import Path

import pytest

from cspine.cli import Parser, run
from cspine.errors import UsageError, UserError

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(
    path.relative_to(ROOT).as_posix() for folder in ("src", "kernels") for path in (ROOT / folder).glob("*.py")
)


def test_overrides_stand_anywhere_and_options_keep_their_values() -> None:
    parser = Parser("doc")
    parser.add_argument("--fold")
    args = parser.parse_with_overrides(["a.b=1", "--fold", "0", "train.max_rate=1e-3"])
    assert args.fold == "0"
    assert args.overrides == ["a.b=1", "train.max_rate=1e-3"]


@pytest.mark.parametrize(
    ("outcome", "status"), [(None, 0), (1, 1), (UserError("x"), 1), (UsageError("x"), 2), (KeyboardInterrupt(), 130)]
)
def test_exit_status(outcome: object, status: int, capsys: pytest.CaptureFixture) -> None:
    def main() -> int | None:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome  # type: ignore[return-value]

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == status
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_needs_no_torch(command: str) -> None:
    code = (
        "import runpy, sys; sys.path.insert(0, 'src'); sys.argv = [sys.argv[1], '-h']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'torch' not in sys.modules, 'torch imported for -h'"
    )
    done = subprocess.run([sys.executable, "-c", code, command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"python {command}" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_misuse(command: str) -> None:
    done = subprocess.run(
        [sys.executable, command, "--no-such-option"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
