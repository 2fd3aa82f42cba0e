"""What one study's files tell: headers, a few decoded slices, and the header of its mask."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cspine.data.dicom import load_study, scan_study
from cspine.data.findings import Finding
from cspine.data.geometry import Geometry
from cspine.data.header import Header
from cspine.data.layout import image_folder, masks_on_disk, study_path, study_uid
from cspine.data.masks import header_overlap
from cspine.data.pixels import SliceError, read_hu
from cspine.data.study import Stack, StudyError
from cspine.data.workers import STUDY_TIMEOUT_S, Died, run_with_second_try
from cspine.errors import UserError

AGAIN = "download the study again"
LEFT_OUT = f"these files are left out and the rest is used; if slices are missing, {AGAIN}"
UNUSABLE = f"{AGAIN}; until then it is left out of training and its prediction is the prior"
MASK_UNUSED = "download the mask again; the study is used without it"
# Neighbouring slices this much farther apart or closer than the median show a gap or a doubled stretch.
UNEVEN = 0.5
# C1 to C7 alone measure some 110 to 140 mm in adults.
WHOLE_SPINE_MM = 100.0


@dataclass(frozen=True)
class CheckTask:
    """One study to check; `decode` allows decoding a few slices, which on damaged files can end the process."""

    split: str
    folder: Path
    mask: Path | None
    decode: bool = True


@dataclass(frozen=True, eq=False)
class StudyFacts:
    """A usable study in numbers."""

    geometry: Geometry
    rows: int
    columns: int
    files: int  # with those left out
    syntaxes: dict[str, int]  # name of the transfer syntax -> files
    has_mask: bool
    pixels: str | None  # digest of a few slices' HU; None where they do not decode

    @property
    def extent_mm(self) -> float:
        return float(self.geometry.z_mm[0] - self.geometry.z_mm[-1])

    @property
    def numbering(self) -> str:
        """Whether z falls (`descending`) or rises with the file number, as everywhere in RSNA, or neither."""
        steps = np.diff(self.geometry.file_numbers)
        return "descending" if (steps > 0).all() else "ascending" if (steps < 0).all() else "mixed"


@dataclass(frozen=True, eq=False)
class StudyCheck:
    """One study's findings, and its facts where it is usable."""

    uid: str
    split: str
    folder: Path
    findings: tuple[Finding, ...]
    facts: StudyFacts | None = None


def check_studies(root: Path, split: str, uids: list[str], processes: int) -> list[StudyCheck]:
    """Check the studies, by UID, in so many processes under a progress bar."""
    masks = masks_on_disk(root) if split == "train" else {}
    images = image_folder(root, split)
    tasks = [CheckTask(split, study_path(images, uid), masks.get(uid)) for uid in uids]
    checks, files = [], 0
    with tqdm(total=len(tasks), desc=f"check {split}", unit="study", disable=None) as bar:
        without = partial(replace, decode=False)
        for task, check in run_with_second_try(check_study, tasks, processes, without, STUDY_TIMEOUT_S):
            if isinstance(check, Died):
                what = check.reason
                finding = Finding("error", "unusable study", str(task.folder), what, UNUSABLE)
                check = StudyCheck(study_uid(task.folder), split, task.folder, (finding,))
            checks.append(check)
            files += check.facts.files if check.facts else 0
            bar.update()
            bar.set_postfix_str(f"{files / max(bar.format_dict['elapsed'], 1e-9):.0f} files/s")
    return sorted(checks, key=lambda check: check.uid)


def check_study(task: CheckTask) -> StudyCheck:
    """What the headers of one study tell, whether three of its slices decode, and whether its mask lies on it."""
    folder = task.folder
    try:
        stack = scan_study(folder)
    except StudyError as error:
        finding = Finding("error", "unusable study", str(folder), error.reason, UNUSABLE)
        return StudyCheck(study_uid(folder), task.split, folder, (finding,))
    findings = [Finding("warning", "files left out", str(folder), what, LEFT_OUT) for what in _summarise(stack.skipped)]
    pixels = None
    if task.decode:
        try:
            pixels = sample_pixels(folder, stack)
        except StudyError as error:
            finding = Finding("error", "unusable study", str(folder), error.reason, UNUSABLE)
            return StudyCheck(study_uid(folder), task.split, folder, (finding,))
        except SliceError as error:
            remedy = f"{AGAIN}; slices that do not decode are left out"
            findings.append(Finding("warning", "slices do not decode", str(folder), str(error), remedy))
    facts = _facts(stack, task.mask, pixels)
    findings += [*_check_stack(stack, folder), *_notes(facts, folder)]
    if task.mask is not None:
        findings += _check_mask(task.mask, facts)
    return StudyCheck(study_uid(folder), task.split, folder, tuple(findings), facts)


def sample_pixels(study: Path, stack: Stack) -> str:
    """Digest of the HU of the slices at 1/4, 1/2 and 3/4 of the stack: the same however the files are encoded.

    Raises SliceError naming the file that does not decode.
    """
    hasher = hashlib.sha256()
    whole = None if stack.headers else load_study(study).volume
    for index in (stack.shape[0] * k // 4 for k in (1, 2, 3)):
        hu = _decode(stack.headers[index]) if whole is None else whole[index]
        hasher.update(f"{hu.shape}".encode() + hu.tobytes())
    return hasher.hexdigest()


def _decode(header: Header) -> np.ndarray:
    try:
        return read_hu(header.file, header.encoding, fast=False)
    except SliceError as error:
        raise SliceError(f"{header.file.name}: {error}") from error


def _facts(stack: Stack, mask: Path | None, pixels: str | None) -> StudyFacts:
    names = [header.encoding.syntax.name for header in stack.headers] or ["NIfTI"]
    return StudyFacts(
        geometry=stack.geometry,
        rows=stack.shape[1],
        columns=stack.shape[2],
        files=len(names) + len(stack.skipped),
        syntaxes=dict(Counter(names)),
        has_mask=mask is not None,
        pixels=pixels,
    )


def _summarise(skipped: tuple[tuple[str, str], ...]) -> Iterator[str]:
    """One line for each kind of reason, with how many files and the first of them."""
    groups = defaultdict(list)
    for name, reason in skipped:
        groups[reason.partition(" (")[0]].append((name, reason))
    for files in groups.values():
        name, reason = files[0]
        yield f"{name}: {reason}" + (f", and {len(files) - 1} more files" if len(files) > 1 else "")


def _check_stack(stack: Stack, folder: Path) -> Iterator[Finding]:
    """Uneven spacing and gaps in the file numbers."""
    geometry = stack.geometry
    steps = -np.diff(geometry.z_mm)
    uneven = np.flatnonzero(np.abs(steps - geometry.spacing_mm) > UNEVEN * geometry.spacing_mm)
    if len(uneven):
        first = uneven[0]
        pair = " and ".join(stack.slice_name(index) for index in (first, first + 1))
        what = (
            f"uneven spacing at {len(uneven)} places: {pair} are {steps[first]:.2f} mm apart, most slices "
            f"{geometry.spacing_mm:.2f} mm"
        )
        remedy = f"if slices are missing, {AGAIN}; it is used as it is, each slice at its true place"
        yield Finding("warning", "uneven spacing", str(folder), what, remedy)
    numbers = np.sort(geometry.file_numbers)
    absent = int(numbers[-1] - numbers[0] + 1 - len(numbers))
    if absent and not stack.skipped:
        what = f"{absent} file numbers between {numbers[0]} and {numbers[-1]} are missing"
        yield Finding("warning", "missing file numbers", str(folder), what, f"{AGAIN} if slices are missing")


def _notes(facts: StudyFacts, folder: Path) -> Iterator[Finding]:
    """What is unusual and dealt with."""
    if facts.extent_mm < WHOLE_SPINE_MM:
        what = f"{len(facts.geometry.z_mm)} slices over {facts.extent_mm:.0f} mm may not show the whole cervical spine"
        yield Finding("note", "short study", str(folder), what, "nothing: it is used, with the labels it has")
    if (first := facts.geometry.file_numbers.min()) != 1:
        remedy = "nothing: boxes and tables are joined by file number, slices ordered by place"
        yield Finding("note", "numbers do not begin at 1", str(folder), f"the first file number is {first}", remedy)
    if facts.has_mask and facts.numbering != "descending":
        what = f"file numbers are {facts.numbering} in z, in most segmented studies descending"
        remedy = "nothing: its mask is mapped through the affine, not by a fixed flip"
        yield Finding("note", "segmented study in unusual order", str(folder), what, remedy)


def _check_mask(mask: Path, facts: StudyFacts) -> Iterator[Finding]:
    shape = (len(facts.geometry.z_mm), facts.rows, facts.columns)
    try:
        overlap = header_overlap(mask, facts.geometry, shape)
    except UserError as error:
        yield Finding("warning", "unreadable mask", str(mask), str(error), MASK_UNUSED)
        return
    if overlap < 0.5:
        what = f"only {overlap:.0%} of the mask's grid lies inside its CT: it belongs to another study or is misplaced"
        yield Finding("warning", "misplaced mask", str(mask), what, MASK_UNUSED)
