"""Damaged files through the project's reader, and a judgement of each outcome that does not use the reader.

What a file promises is asked of pydicom, what it held is known from the intact seed. A reader may refuse anything that
is damaged. What it may not do: raise anything but its own refusals, hang, change other slices of the study, put a slice
elsewhere than the header says, or **invent pixels**: give values for pixels whose bytes are not in the file.
"""

import contextlib
import io
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from conftest import body_hu, slice_dataset
from mutations import KINDS, Layout, find_layout
from pydicom.encaps import generate_fragments
from transfer_syntaxes import COMPRESSED, SYNTAXES, save_as

from cspine.data.dicom import load_study
from cspine.data.header import read_header
from cspine.data.pixels import SliceError, read_hu
from cspine.data.study import StudyError
from cspine.data.workers import Died, run_with_second_try

MEANING = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation",
    "SamplesPerPixel", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope",
    "RescaleIntercept",
)  # fmt: skip
POSITION = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
FINE = ("identical", "refused", "different: pixel bytes touched", "different: meaning changed")
INVENTED, UNCAUSED, CRASHED = "INVENTED PIXELS", "CHANGED WITHOUT CAUSE", "CRASHED"
HUNG, NEIGHBOURS = "HUNG", "NEIGHBOURS CHANGED"
MISPLACED, REFUSED_INTACT = "MISPLACED", "REFUSED INTACT"
# Counted, not forbidden: both decoders crash on some damage, which costs the study and says so; and bytes that are cut
# out of a compressed frame whose lengths and end marker are right show only to a decoder, and theirs go on in silence.
DIED_TWICE, UNSEEN = "process died twice", "INVENTED, known limit"
VIOLATIONS = (INVENTED, UNCAUSED, CRASHED, HUNG, NEIGHBOURS, MISPLACED, REFUSED_INTACT)


@dataclass(frozen=True)
class Task:
    """One damaged file: which seed, how it is damaged; `fast` reads it by dicomsdl too."""

    seed: Path
    kind: str
    number: int
    fast: bool = True


@dataclass(frozen=True)
class Facts:
    """What pydicom says a file promises: texts of its tags, its pixel bytes (None if they cannot be found)."""

    meaning: tuple[str, ...]
    position: tuple[tuple[float, ...], ...]  # empty where a value is no number
    pixels: bytes | None
    needed: int  # bytes of decoded pixels
    encapsulated: bool


@dataclass(frozen=True)
class Seed:
    """An intact file: its bytes, what it promises, the HU that it holds."""

    data: bytes
    layout: Layout
    facts: Facts
    hu: np.ndarray


def make_seeds(folder: Path) -> list[Path]:
    """Write an intact slice in every transfer syntax, signed and unsigned; elements follow the pixels."""
    files = []
    hu = body_hu(1, 32, 40)[0] + np.random.default_rng(1).integers(-15, 16, (32, 40)).astype(np.int16)
    for name, syntax in SYNTAXES.items():
        for signed in (True, False):
            stored = (hu.astype(np.int32) + 1024).astype("<i2" if signed else "<u2")
            dataset = slice_dataset(hu, 70.0, 9, PixelData=stored.tobytes(), PixelRepresentation=int(signed))
            dataset.SeriesInstanceUID = "1.2.3"
            # Bytes after the pixels, which a reader that trusts a wrong length would take for pixels.
            dataset.add_new((0x7FE1, 0x0010), "LO", "PRIVATE")
            dataset.add_new((0x7FE1, 0x1001), "OB", bytes(range(256)) * 8)
            files.append(save_as(dataset, folder / f"{name}_{'signed' if signed else 'unsigned'}.dcm", syntax))
    return files


def readable(folder: Path) -> list[Path]:
    """The files below a folder that are slices of a CT for the project's reader, sorted."""
    files = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with contextlib.suppress(SliceError):
            read_hu(file, read_header(file).encoding)
            files.append(file)
    return files


def tasks_for(seeds: list[Path], count: int, seed: int) -> list[Task]:
    """So many tasks, the kinds of damage and the seeds in turn; the first of each seed are undamaged."""
    order = np.random.default_rng(seed).permutation(len(seeds))
    kinds = list(KINDS)
    return [
        Task(seeds[order[index % len(seeds)]], kinds[index // len(seeds) % len(kinds)], seed * 1_000_003 + index)
        for index in range(count)
    ]


def run_tasks(tasks: list[Task], processes: int, timeout_s: float) -> Iterator[tuple[Task, str]]:
    """(task, label) as they come; a file that ends its process is read once more without dicomsdl."""
    second = partial(replace, fast=False)
    for task, result in run_with_second_try(work, tasks, processes, second, timeout_s):
        if isinstance(result, Died):
            yield task, HUNG if result.timed_out else DIED_TWICE
        else:
            yield task, result if task.fast or is_violation(result) else f"process died, then {result}"


def is_violation(label: str) -> bool:
    """Whether a label is one of VIOLATIONS, perhaps with a detail after a colon."""
    return label.partition(":")[0] in VIOLATIONS


def table(counts: Counter[tuple[str, str]]) -> str:
    """Lines of text: kinds of damage down, outcomes across."""
    labels = sorted({label for _, label in counts}, key=lambda label: (label.isupper(), label))
    lines = [f"{'':20}" + "".join(f"{label.replace('different: ', 'different, '):>34}" for label in labels)]
    for kind in KINDS:
        lines.append(f"{kind:20}" + "".join(f"{counts[kind, label] or '-':>34}" for label in labels))
    return "\n".join(lines)


@lru_cache(maxsize=256)
def read_seed(file: Path) -> Seed:
    data = file.read_bytes()
    facts = promised(data)
    assert facts is not None
    return Seed(data, find_layout(data), facts, read_hu(file, read_header(file).encoding, fast=False))


def damaged(task: Task) -> bytes | None:
    """The bytes of the damaged file, or None where the kind of damage does not apply to the seed."""
    seed = read_seed(task.seed)
    random = np.random.default_rng([task.number, list(KINDS).index(task.kind)])
    return KINDS[task.kind](bytearray(seed.data), seed.layout, random)


def promised(data: bytes) -> Facts | None:
    """What pydicom reads in a file; None where it reads no data set at all."""
    try:
        # What stands after the pixels does not concern a slice, and may be debris of a wrong length.
        dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
        syntax = dataset.file_meta.get("TransferSyntaxUID", "")
    except Exception:  # noqa: BLE001, RUF100 - any failure of pydicom is one answer
        return None
    encapsulated = str(syntax).startswith("1.2.840.10008.1.2.4.") or syntax == COMPRESSED["rle"]
    numbers = [_whole(dataset, keyword) for keyword in ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames")]
    needed = math.prod(max(1, number) for number in numbers) * max(1, _whole(dataset, "BitsAllocated") // 8)
    meaning = (*(_text(dataset, keyword) for keyword in MEANING), str(syntax))
    position = tuple(_floats(dataset, keyword) for keyword in POSITION)
    return Facts(meaning, position, _pixel_bytes(data, encapsulated), needed, encapsulated)


def _text(dataset: Any, keyword: str) -> str:
    try:
        return str(dataset.get(keyword))
    except Exception as error:  # noqa: BLE001, RUF100 - a value that does not convert is a changed value
        return repr(error)


def _floats(dataset: Any, keyword: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in dataset.get(keyword))
    except Exception:  # noqa: BLE001, RUF100
        return ()


def _whole(dataset: Any, keyword: str) -> int:
    try:
        return int(dataset.get(keyword) or 0)
    except Exception:  # noqa: BLE001, RUF100
        return 0


def _pixel_bytes(data: bytes, encapsulated: bool) -> bytes | None:
    try:
        content = pydicom.dcmread(io.BytesIO(data)).PixelData
        assert isinstance(content, bytes)
        return b"".join(list(generate_fragments(content))[1:]) if encapsulated else content
    except Exception:  # noqa: BLE001, RUF100
        return None


def judge(seed: Seed, facts: Facts | None, hu: np.ndarray) -> str:
    """What it means that a damaged file was read as these HU."""
    same = np.array_equal(hu, seed.hu)
    if facts is None or facts.pixels is None:
        # pydicom finds no pixels: where they were read they must be the ones that were there.
        return "identical" if same else UNCAUSED
    if facts.encapsulated:
        # Fewer compressed bytes than there were, or more pixels asked of them than they hold.
        missing = len(facts.pixels) < len(seed.facts.pixels or b"") or facts.needed > seed.facts.needed
        missing = missing and not same
    else:
        missing = len(facts.pixels) < facts.needed or facts.needed < hu.size
    if missing:
        return INVENTED
    if same:
        return "identical"
    if facts.pixels != seed.facts.pixels:
        return "different: pixel bytes touched"
    return "different: meaning changed" if facts.meaning != seed.facts.meaning else UNCAUSED


def work(task: Task) -> str:
    """Damage a seed, read it alone and among intact neighbours, and judge; one of FINE or VIOLATIONS."""
    data = damaged(task)
    if data is None:
        return "not applicable"
    seed, facts = read_seed(task.seed), promised(data)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "9.dcm"
        file.write_bytes(data)
        try:
            labels = [_read_alone(seed, facts, file, fast) for fast in ((True, False) if task.fast else (False,))]
            labels.append(_read_among_neighbours(file, task.fast))
        except Exception as error:  # noqa: BLE001, RUF100 - that nothing else is raised is what is tested
            return f"{CRASHED}: {type(error).__name__}: {' '.join(str(error).split())[:100]}"
    if task.kind == "excise" and seed.facts.encapsulated:
        labels = [UNSEEN if label == INVENTED else label for label in labels]
    label = max(labels, key=lambda label: (*FINE, UNSEEN, *VIOLATIONS).index(label))
    return REFUSED_INTACT if task.kind == "nothing" and label != "identical" else label


def _read_alone(seed: Seed, facts: Facts | None, file: Path, fast: bool) -> str:
    try:
        header = read_header(file)
        hu = read_hu(file, header.encoding, fast)
    except SliceError:
        return "refused"
    place = (header.position_mm, header.orientation, header.pixel_spacing_mm)
    if facts is not None and facts.position != tuple(tuple(values) for values in place):
        return MISPLACED
    return judge(seed, facts, hu)


def _read_among_neighbours(file: Path, fast: bool) -> str:
    """Three intact slices of the same series beside the damaged one stay as they are."""
    truth = body_hu(3, 32, 40)
    for number, hu in enumerate(truth, 1):
        slice_dataset(hu, 82.0 - 3 * number, number, SeriesInstanceUID="1.2.3").save_as(file.parent / f"{number}.dcm")
    try:
        study = load_study(file.parent, fast)
    except StudyError:
        return NEIGHBOURS
    numbers = study.geometry.file_numbers.tolist()
    intact = [numbers.index(number) for number in (1, 2, 3) if number in numbers]
    return "identical" if np.array_equal(study.volume[intact], truth) else NEIGHBOURS
