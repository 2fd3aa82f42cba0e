"""A pool of processes in which the death of one costs its task only: C decoders can crash on damaged files."""

import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import cv2

from cspine.errors import UserError

Task = TypeVar("Task")


@dataclass(frozen=True)
class Died:
    """Stands for the result of a task during which the process ended."""

    exitcode: int | None


def run_isolated(work: Callable[[Task], Any], tasks: Sequence[Task], processes: int) -> Iterator[tuple[Task, Any]]:
    """Yield (task, result) as they come; the result is a `Died` where the process ended.

    `work` must be importable. A UserError in it ends the whole run and is raised here.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(tasks))
    busy: dict[Any, tuple[Any, Task]] = {}

    def give(connection: Any, process: Any, task: Task) -> None:
        connection.send(task)
        busy[connection] = (process, task)

    def start(task: Task) -> None:
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        process.start()
        theirs.close()
        give(mine, process, task)

    try:
        while waiting and len(busy) < max(1, processes):
            start(waiting.pop())
        while busy:
            for connection in wait(list(busy)):
                process, task = busy.pop(connection)
                result = _receive(connection, process)
                if isinstance(result, UserError):
                    raise result
                if waiting and isinstance(result, Died):
                    start(waiting.pop())
                elif waiting:
                    give(connection, process, waiting.pop())
                yield task, result
    finally:
        for process, _ in busy.values():
            process.terminate()


def run_with_second_try(
    work: Callable[[Task], Any], tasks: Sequence[Task], processes: int, second: Callable[[Task], Task]
) -> Iterator[tuple[Task, Any]]:
    """`run_isolated`, but a task whose process ended is done once more, at the end, as `second` makes it."""
    again = []
    for task, result in run_isolated(work, tasks, processes):
        if isinstance(result, Died):
            again.append(second(task))
        else:
            yield task, result
    yield from run_isolated(work, again, processes)


def _receive(connection: Any, process: Any) -> Any:
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
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
