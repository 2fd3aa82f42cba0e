"""A pool of processes in which the death of one costs its task only: C decoders can crash on damaged files."""

import math
import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import cv2

from cspine.errors import UserError

Task = TypeVar("Task")
# A study that is not read by then never will be: the longest takes seconds, minutes from a slow disk.
STUDY_TIMEOUT_S = 900.0
# A killed process that waits for a disk is gone only when the disk answers; nobody waits for that.
GONE_S = 5.0


@dataclass(frozen=True)
class Died:
    """Stands for the result of a task during which the process ended, or was ended because it took too long."""

    exitcode: int | None
    timed_out: bool = False

    @property
    def reason(self) -> str:
        return "takes too long to read" if self.timed_out else f"ends the reading process (exit status {self.exitcode})"


def run_isolated(
    work: Callable[[Task], Any],
    tasks: Sequence[Task],
    processes: int,
    timeout_s: float | None = None,
    until: float = math.inf,
) -> Iterator[tuple[Task, Any]]:
    """Yield (task, result) as they come; the result is a `Died` where the process ended.

    `work` must be importable. A UserError in it ends the whole run and is raised here. A process that needs more than
    `timeout_s` for a task, a new one's start included, is killed. At `until`, a time.monotonic(), it ends with the
    tasks that are done by then.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(tasks))
    busy: dict[Any, tuple[Any, Task, float]] = {}

    def give(connection: Any, process: Any, task: Task) -> None:
        connection.send(task)
        busy[connection] = (process, task, time.monotonic() + (math.inf if timeout_s is None else timeout_s))

    def start(task: Task) -> None:
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        process.start()
        theirs.close()
        give(mine, process, task)

    try:
        while waiting and len(busy) < max(1, processes):
            start(waiting.pop())
        while busy and time.monotonic() < until:
            for connection in _ready_or_late(busy, until):
                process, task, deadline = busy.pop(connection)
                result = _receive(connection, process, deadline)
                if isinstance(result, UserError):
                    raise result
                if waiting and isinstance(result, Died):
                    start(waiting.pop())
                elif waiting:
                    give(connection, process, waiting.pop())
                yield task, result
    finally:
        for process, _, _ in busy.values():
            process.terminate()


def run_with_second_try(
    work: Callable[[Task], Any],
    tasks: Sequence[Task],
    processes: int,
    second: Callable[[Task], Task],
    timeout_s: float | None = None,
    until: float = math.inf,
) -> Iterator[tuple[Task, Any]]:
    """`run_isolated`, but a task whose process ended is done once more, at the end, as `second` makes it."""
    again = []
    for task, result in run_isolated(work, tasks, processes, timeout_s, until):
        if isinstance(result, Died):
            again.append(second(task))
        else:
            yield task, result
    yield from run_isolated(work, again, processes, timeout_s, until)


def _ready_or_late(busy: dict[Any, tuple[Any, Any, float]], until: float) -> list[Any]:
    """Connections that have something to read; when the first deadline passes before, those that are late."""
    first = min(until, *(deadline for _, _, deadline in busy.values()))
    ready = wait(list(busy), None if first == math.inf else max(0.0, first - time.monotonic()))
    now = time.monotonic()
    return ready or [connection for connection, (_, _, deadline) in busy.items() if deadline <= now]


def _receive(connection: Any, process: Any, deadline: float) -> Any:
    if not connection.poll() and deadline <= time.monotonic():
        process.kill()
        process.join(GONE_S)
        return Died(process.exitcode, timed_out=True)
    try:
        return connection.recv()
    except (EOFError, OSError):  # nothing, or half a result
        process.join()
        return Died(process.exitcode)


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    # Ctrl-C is the parent's business; pydicom's warnings on sloppy headers would break up the progress bar.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="pydicom")
    cv2.setNumThreads(1)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            connection.send(work(task))
        except UserError as error:
            connection.send(error)
