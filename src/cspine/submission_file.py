"""submission.csv, whole and valid at every moment: the priors first, then what is predicted so far.

Needs the standard library alone, so that the kernel can write the priors before it imports anything that takes long.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cspine.anatomy import TARGETS
from cspine.errors import UserError, nearest
from cspine.paths import atomic

HEADER = ("row_id", "fractured")
ASKED = ("row_id", "StudyInstanceUID", "prediction_type")


class Row(NamedTuple):
    """One line of test.csv."""

    row_id: str
    uid: str
    target: str


def read_rows(file: Path) -> list[Row]:
    """The rows that test.csv asks for, each once, in its order, whatever lies in test_images.

    Raises UserError for a missing column or an unknown prediction_type.
    """
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        for column in ASKED:
            if column not in (reader.fieldnames or ()):
                raise UserError(f"{file}: the column '{column}' is missing")
        rows = {line["row_id"]: Row(*(line[column] for column in ASKED)) for line in reader}
    for row in rows.values():
        if row.target not in TARGETS:
            raise UserError(f"{file}: prediction_type {row.target!r}; {nearest(str(row.target), TARGETS)}")
    return list(rows.values())


class SubmissionFile:
    """`row_id,fractured` for rows that are asked for; a study that is not put in has the priors."""

    def __init__(self, file: Path, rows: Iterable[Row], priors: Mapping[str, float]) -> None:
        """Write the priors at once. Raises UserError where they are not a probability for each target."""
        self.file, self.rows, self.priors = file, list(rows), priors
        for target in TARGETS:
            if not _is_probability(priors.get(target)):
                raise UserError(f"the prior of {target} is {priors.get(target)!r}; build the bundle again")
        self.known: dict[tuple[str, str], float] = {}
        self.write()

    @property
    def uids(self) -> list[str]:
        """The studies asked for, each once, in the order of their first row."""
        return list(dict.fromkeys(row.uid for row in self.rows))

    def put(self, uid: str, probabilities: Sequence[float]) -> None:
        """Take a study's eight probabilities, in the order of TARGETS; `write` makes them visible.

        Raises ValueError for what is no probability, and keeps the priors.
        """
        values = [float(value) for value in probabilities]
        if len(values) != len(TARGETS) or not all(map(_is_probability, values)):
            raise ValueError(f"no eight probabilities: {values}")
        self.known |= {(uid, target): value for target, value in zip(TARGETS, values, strict=True)}

    def write(self) -> None:
        """Replace the file by one with everything put in so far."""
        with atomic(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows(
                (row.row_id, self.known.get((row.uid, row.target), self.priors[row.target])) for row in self.rows
            )


def read_priors(manifest: Path) -> dict[str, float]:
    """The fitted priors, by target, in a bundle's manifest.json."""
    try:
        return json.loads(manifest.read_text())["blend"]["priors"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{manifest}: holds no priors; build it again: python kernels/build.py") from error


def _is_probability(value: Any) -> bool:
    return isinstance(value, float | int) and 0 <= value <= 1
