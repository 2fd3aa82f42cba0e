"""Studies predicted on every device while processes read the next ones."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import numpy as np

from cspine.budget import Plan
from cspine.data.decode import DecodedStudy, DecodeTask, decode_studies
from cspine.data.workers import STUDY_TIMEOUT_S
from cspine.engine.distributed import share_cores
from cspine.inference import study_images
from cspine.predictor import Predictor
from cspine.stopwatch import Stopwatch


@dataclass(frozen=True)
class Limits:
    """`until` is a time.monotonic() at which what is not predicted is given up; `study_s` ends the reading of one."""

    readers: int = 2
    until: float = math.inf
    study_s: float = STUDY_TIMEOUT_S


@dataclass(frozen=True)
class Answer:
    """Eight probabilities, or the reason why there are none; what went wrong on the way; seconds by run."""

    uid: str
    row: np.ndarray | None
    reason: str | None
    notes: tuple[str, ...]
    seconds: dict[str, float]
    study: tuple[float, float]  # seconds of reading and of decoding
    plan: Plan


def answers(
    predictors: Sequence[Predictor], tasks: Sequence[DecodeTask], limits: Limits, plan_for: Callable[[int], Plan]
) -> Iterator[Answer]:
    """Every study once, as it is done; those that are not done at `limits.until` are missing.

    `plan_for` gives the plan of the next study from the number of those that have none yet. Decoded studies wait in
    the reading processes, one each, until a device is free.
    """
    free: SimpleQueue[Predictor] = SimpleQueue()
    for predictor in predictors:
        free.put(predictor)

    def judge(uid: str, study: DecodedStudy, plan: Plan) -> Answer:
        predictor = free.get()
        try:
            return _judge(predictor, uid, study, plan)
        finally:
            free.put(predictor)

    running: set[Future[Answer]] = set()
    left = len(tasks)
    pool = ThreadPoolExecutor(len(predictors), initializer=partial(share_cores, limits.readers))
    try:
        with closing(decode_studies(tasks, limits.readers, limits.study_s, limits.until)) as studies:
            for task, study in studies:
                if study.bad is not None:
                    times = study.read_s, study.decode_s
                    yield Answer(task.uid, None, study.bad, (), {}, times, Plan())
                    left -= 1
                    continue
                while len(running) == len(predictors) and time.monotonic() < limits.until:
                    yield from _finished(running, limits.until)
                running.add(pool.submit(judge, task.uid, study, plan_for(left)))
                left -= 1
        while running and time.monotonic() < limits.until:
            yield from _finished(running, limits.until)
    finally:
        # A device that hangs must not keep the process from ending.
        pool.shutdown(wait=False, cancel_futures=True)


def _finished(running: set["Future[Answer]"], until: float) -> Iterator[Answer]:
    """Wait for the first to be done, or the deadline; what is done leaves the set."""
    seconds = None if until == math.inf else max(0.0, until - time.monotonic())
    done, _ = wait(running, seconds, FIRST_COMPLETED)
    running -= done
    for future in done:
        yield future.result()


def _judge(predictor: Predictor, uid: str, study: DecodedStudy, plan: Plan) -> Answer:
    notes: list[str] = []
    watch = Stopwatch()
    row, reason = None, None
    try:
        row = predictor.predict(partial(study_images, study), plan, notes.append, watch)
    except Exception as error:
        # Out of memory on one huge study, say: its rows keep the prior, the others go on.
        told = str(error).splitlines() or [""]
        reason = f"{type(error).__name__}: {told[0]}"
    times = study.read_s, study.decode_s
    return Answer(uid, row, reason, tuple(notes), dict(watch.seconds), times, plan)
