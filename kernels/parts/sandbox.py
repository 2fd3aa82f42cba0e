"""A Kaggle-like tree for one run of the kernel: inputs read-only, no network, and an eye kept on submission.csv."""

import csv
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cspine.errors import UserError

NAMESPACES = (("unshare", "--net", "--mount"), ("unshare", "--user", "--map-root-user", "--net", "--mount"))
CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)"
# Runs a file with every connection refused; for machines that allow no namespaces.
GUARD = """
import runpy, socket, sys
def refuse(*args, **kwargs):
    raise OSError("the rehearsal blocks the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
LOOK_EVERY_S = 0.01
# A kernel of the rehearsal that needs longer hangs.
LONGEST_S = 3600.0


@dataclass(frozen=True)
class Sandbox:
    """A Kaggle-like tree: input/ with two datasets, working/ where the kernel runs."""

    folder: Path
    mounts: dict[str, Path]  # name in input/ -> where it is

    @property
    def working(self) -> Path:
        return self.folder / "working"

    def command(self, kernel: Path, namespace: tuple[str, ...] | None, options: Sequence[str] = ()) -> list[str]:
        """The command that runs the kernel there; without a namespace the inputs are links."""
        python = [sys.executable, "-I"]  # neither PYTHONPATH nor the working directory may lend it the package
        arguments = [str(kernel), "--input", str(self.folder / "input"), *options]
        if namespace is None:
            return [*python, "-c", GUARD, *arguments]
        script = ["set -e"]
        for name, source in self.mounts.items():
            target = self.folder / "input" / name
            script += [shlex.join(["mount", "--bind", str(source), str(target)])]
            script += [shlex.join(["mount", "-o", "remount,ro,bind", str(target)])]
        return [*namespace, "sh", "-c", "\n".join([*script, 'exec "$@"']), "kernel", *python, *arguments]

    def make(self, namespace: tuple[str, ...] | None) -> None:
        """Empty folders where the inputs are mounted, or links to them."""
        self.working.mkdir(parents=True)
        (self.folder / "input").mkdir()
        for name, source in self.mounts.items():
            target = self.folder / "input" / name
            if namespace is None:
                target.symlink_to(source)
            else:
                target.mkdir()

    def inputs(self) -> list[tuple[str, int, int]]:
        """Name, size and time of every input file."""
        files = sorted(file for source in self.mounts.values() for file in source.rglob("*") if file.is_file())
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


@dataclass
class Watch:
    """What was seen of submission.csv while the kernel ran: when it was first whole, and what was wrong with it."""

    asked: Sequence[str]  # row ids, in order
    first_s: float | None = None
    versions: int = 0
    wrong: list[str] = field(default_factory=list)
    rows: dict[str, str] = field(default_factory=dict)  # of the last version, row id -> value as written

    def look(self, file: Path, after_s: float) -> None:
        try:
            with file.open(newline="") as stream:
                lines = list(csv.reader(stream))
        except FileNotFoundError:
            return
        if problem := self._problem(lines):
            self.wrong.append(f"after {after_s:.1f} s: {problem}")
            return
        if self.first_s is None:
            self.first_s = after_s
        rows = dict(lines[1:])
        self.versions += rows != self.rows
        self.rows = rows

    def _problem(self, lines: list[list[str]]) -> str | None:
        if not lines or lines[0] != ["row_id", "fractured"]:
            return "no header row_id,fractured"
        if [line[0] for line in lines[1:]] != list(self.asked):
            return f"{len(lines) - 1} rows, not the {len(self.asked)} of test.csv in their order"
        if not all(len(line) == 2 and 0 <= float(line[1]) <= 1 for line in lines[1:]):
            return "values outside [0, 1]"
        return None


@dataclass(frozen=True)
class Ran:
    """How one run of the kernel went."""

    status: int
    seconds: float
    log: str
    watch: Watch


def run_kernel(
    kernel: Path,
    sandbox: Sandbox,
    asked: Sequence[str],
    options: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    end_at: str | None = None,
) -> Ran:
    """Run the kernel in the sandbox, which this makes; `end_at` is a text in its log at which it gets a SIGTERM.

    Raises UserError where the kernel touches its inputs.
    """
    namespace = usable_namespace()
    sandbox.make(namespace)
    before = sandbox.inputs()
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    log, watch = sandbox.folder / "log.txt", Watch(asked)
    began = time.monotonic()
    with log.open("w") as stream:
        process = subprocess.Popen(
            sandbox.command(kernel, namespace, options),
            cwd=sandbox.working,
            env=kept | (environment or {}),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        with _watching(watch, sandbox.working / "submission.csv", began):
            status = _wait(process, log, end_at)
    if sandbox.inputs() != before:
        raise UserError("the kernel changed its inputs, which are read-only on Kaggle")
    return Ran(status, time.monotonic() - began, log.read_text(), watch)


def _wait(process: subprocess.Popen, log: Path, end_at: str | None) -> int:
    began = time.monotonic()
    while process.poll() is None:
        if end_at is not None and end_at in log.read_text():
            process.send_signal(signal.SIGTERM)
            end_at = None
        if time.monotonic() - began > LONGEST_S:
            process.kill()
        time.sleep(LOOK_EVERY_S)
    return process.wait()


@contextmanager
def _watching(watch: Watch, file: Path, began: float) -> Iterator[None]:
    """Look at the file all the time, and once more at the end."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_EVERY_S):
            watch.look(file, time.monotonic() - began)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        watch.look(file, time.monotonic() - began)


def usable_namespace() -> tuple[str, ...] | None:
    """The command that starts a process without a network, shown by a connection to us that must fail; else None."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        probe = [sys.executable, "-I", "-c", CONNECT, str(server.getsockname()[1])]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            raise UserError("a plain connection to this machine fails, so that blocking the network shows nothing")
        for namespace in NAMESPACES:
            if shutil.which(namespace[0]) is None:
                continue
            starts = subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
            if starts and subprocess.run([*namespace, *probe], capture_output=True, check=False).returncode:
                return namespace
    return None
