"""Every study decoded once: windowed pixels in `<uid>.npy`, where they lie in `<uid>.json`, the bad in `bad.csv`.

Of a study with a mask also the levels, cleaned and on the voxels of the pixels, in `<uid>.levels.npz`.
"""

import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from cspine.config import DatasetConfig, Preprocess, as_overrides, digest, to_dict
from cspine.data.background import keep_spine, spine_run
from cspine.data.geometry import Geometry
from cspine.data.layout import image_folder, label_file, masks_on_disk, studies_on_disk, study_path
from cspine.data.levels import LevelExtents, level_extents, level_presence
from cspine.data.mapped import map_array
from cspine.data.masks import cut_mask, load_mask
from cspine.data.preprocess import Crop
from cspine.data.stream import prepare_volumes
from cspine.data.study import StudyError
from cspine.data.workers import STUDY_TIMEOUT_S, Died, run_with_second_try
from cspine.errors import UserError
from cspine.level_maps import map_files, run_level_map
from cspine.paths import atomic, cache_folder, find_dataset, read_json, write_json
from cspine.tables import STUDY, read_csv, read_labels, write_table

# Raise it when the code makes other pixels from the same files and settings: every study is then decoded again.
FORMAT = 4
COMMAND = "python src/prepare.py"
BAD_COLUMNS = (STUDY, "reason", "split")


@dataclass(frozen=True)
class CachedStudy:
    """A prepared study. `presence` is bool (z, 7), or None for a study without a (fitting) mask."""

    uid: str
    file: Path
    geometry: Geometry
    crop: Crop
    slice_shape: tuple[int, int]  # rows, columns of the original slices
    presence: np.ndarray | None

    @property
    def volume(self) -> np.ndarray:
        """uint8 (z, windows, y, x), mapped from the file at each access: 2,000 open maps would exhaust file handles."""
        try:
            return map_array(self.file)
        except (ValueError, OSError) as error:
            raise UserError(f"{self.file}: damaged ({error}); make it again with: {COMMAND} --verify") from error

    @property
    def levels(self) -> np.ndarray:
        """The mask, uint8 (z, y, x) with 1 to 7 for C1 to C7, on the voxels of `volume`; only where presence is known.

        Read and unpacked at each access.
        """
        file = levels_file(self.file)
        try:
            with np.load(file) as content:
                return content["levels"]
        except (ValueError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{file}: missing or damaged ({error}); make it again with: {COMMAND} --verify") from error

    @property
    def extents(self) -> LevelExtents | None:
        """From where to where each level is seen, by the mask."""
        return None if self.presence is None else level_extents(self.presence, self.geometry.z_mm)


@dataclass(frozen=True)
class Task:
    """One study to prepare; `fast` allows dicomsdl, `verify` reads a cached file again to compare its checksum."""

    uid: str
    folder: Path
    mask: Path | None
    target: Path
    preprocess: Preprocess
    fast: bool = True
    verify: bool = False
    spine: Path | None = None  # the run whose level maps a learned mask is made of


@dataclass(frozen=True)
class Outcome:
    """What became of a study: `bad` is the reason why it has no pixels, `mask_problem` why it has no presence."""

    slices: int = 0
    fresh: bool = False
    bad: str | None = None
    mask_problem: str | None = None
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass
class Summary:
    """What `build_cache` did."""

    done: int = 0
    kept: int = 0
    slices: int = 0  # decoded in this run
    seconds: float = 0.0
    bad: dict[str, str] = field(default_factory=dict)
    mask_problems: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)  # files left out of studies that are otherwise usable


def build_cache(
    config: DatasetConfig,
    split: str,
    processes: int,
    progress: bool = True,
    verify: bool = False,
    uids: Sequence[str] | None = None,
) -> Summary:
    """Prepare every study of a split that is not yet in the cache, in so many processes; bad studies are listed.

    `uids` limits it to these studies. `verify` compares the checksum of every file that is there already, and makes a
    damaged one again.
    Raises UserError where there is no dataset or the cache cannot be written.
    """
    started = time.monotonic()
    root, target, spine = find_dataset(config), cache_folder(config), spine_run(config, split)
    images = image_folder(root, split)
    masks = masks_on_disk(root) if split == "train" else {}
    tasks = [
        Task(uid, study_path(images, uid), masks.get(uid), target, config.preprocess, verify=verify, spine=spine)
        for uid in (_studies(root, split) if uids is None else uids)
    ]
    summary = Summary()
    with tqdm(total=len(tasks), desc=f"{split} studies", unit="study", disable=None if progress else True) as bar:
        for task, outcome in _run(tasks, processes):
            _count(summary, task.uid, outcome)
            bar.update()
            bar.set_postfix_str(f"{summary.slices / (time.monotonic() - started):.0f} slices/s, {len(summary.bad)} bad")
    _write_bad(target, split, summary.bad, uids)
    summary.seconds = time.monotonic() - started
    return summary


def _studies(root: Path, split: str) -> list[str]:
    """Labelled studies in training (images without a label serve nothing), what is on disk in the test set."""
    if split == "train":
        return sorted(read_labels(label_file(root))[STUDY])
    return studies_on_disk(root, split)


def _run(tasks: list[Task], processes: int) -> Iterator[tuple[Task, Outcome]]:
    """Outcomes as they come; a study whose process died is tried once more, by pydicom alone."""
    once_more = partial(replace, fast=False)
    for task, outcome in run_with_second_try(prepare_study, tasks, processes, once_more, STUDY_TIMEOUT_S):
        if isinstance(outcome, Died):
            outcome = Outcome(bad=f"{outcome.reason}, also with pydicom alone")
        yield task, outcome


def prepare_study(task: Task) -> Outcome:
    """Decode, window, crop and write one study, unless the cache holds it already made from the same files."""
    volume_file, facts_file = _files(task.target, task.uid)
    try:
        source = _signature(task)
        known = _read_facts(facts_file)
        if known and known["source"] == source and _is_whole(volume_file, known, task.verify):
            return Outcome(mask_problem=known["mask_problem"], skipped=tuple(map(tuple, known["skipped"])))
        study = prepare_volumes(task.folder, (task.preprocess,), task.fast)
        pixels = _without_background(study.volumes[task.preprocess], study.geometry, task)
        labels, mask_problem = _labels(task.mask, study.geometry, (len(pixels), *study.slice_shape))
    except StudyError as error:
        outcome = Outcome(bad=error.reason, skipped=error.skipped)
    except Exception as error:
        # One study of thousands must not end the run, whatever is wrong with it; the reason is listed.
        outcome = Outcome(bad=f"{type(error).__name__}: {error}")
    else:
        facts = {
            "source": source,
            "crc32": zlib.crc32(pixels.data),
            "geometry": study.geometry.to_json(),
            "crop": asdict(crop := study.plans[task.preprocess].crop),
            "slice_shape": study.slice_shape,
            "presence": _presence(labels, study.geometry),
            "mask_problem": mask_problem,
            "skipped": study.skipped,
        }
        levels = None if labels is None else cut_mask(labels, crop)
        facts["levels_crc32"] = None if levels is None else zlib.crc32(levels.data)
        _write(volume_file, pixels, levels, facts_file, facts)
        return Outcome(len(pixels), True, mask_problem=mask_problem, skipped=study.skipped)
    for file in (facts_file, volume_file, levels_file(volume_file)):
        file.unlink(missing_ok=True)
    return outcome


def _without_background(pixels: np.ndarray, geometry: Geometry, task: Task) -> np.ndarray:
    if task.spine is None:
        return pixels
    try:
        found = run_level_map(task.spine, task.uid, geometry.z_mm)
    except UserError as error:
        raise StudyError(task.folder, str(error)) from error
    return keep_spine(pixels, geometry.z_mm, found, task.preprocess)


def _labels(mask: Path | None, geometry: Geometry, shape: tuple[int, int, int]) -> tuple[np.ndarray | None, str | None]:
    """The mask on the study's own voxels, or the reason why there is none."""
    if mask is None:
        return None, None
    try:
        return load_mask(mask, geometry, shape), None
    except UserError as error:
        return None, str(error)


def _presence(labels: np.ndarray | None, geometry: Geometry) -> list | None:
    if labels is None:
        return None
    return level_presence(labels, float(np.prod(geometry.pixel_spacing_mm))).astype(int).tolist()


def _signature(task: Task) -> str:
    """Digest of the names, sizes and times of the files that the study is made of."""
    if not task.folder.exists():
        raise StudyError(task.folder, "no such folder")
    images = task.folder.iterdir() if task.folder.is_dir() else [task.folder]
    maps = map_files(task.spine, task.uid) if task.spine else []
    files = [*images, *([task.mask] if task.mask else []), *maps]
    # Of a link that leads nowhere, which readers pass over, the link itself.
    stats = [(file.name, file.stat() if file.exists() else file.lstat()) for file in files]
    return digest([FORMAT, *sorted([name, stat.st_size, stat.st_mtime_ns] for name, stat in stats)])


def _files(folder: Path, uid: str) -> tuple[Path, Path]:
    return folder / f"{uid}.npy", folder / f"{uid}.json"


def levels_file(volume_file: Path) -> Path:
    """Where the levels of a study lie, beside its pixels."""
    return volume_file.with_suffix(".levels.npz")


def _read_facts(file: Path) -> dict | None:
    try:
        return read_json(file) if file.is_file() else None
    except UserError:
        return None  # a damaged file is made again


def _is_whole(volume_file: Path, facts: dict, verify: bool) -> bool:
    """Whether pixels and levels are there and, to `verify`, are those that were written."""
    levels = levels_file(volume_file)
    needed = [volume_file] if facts["levels_crc32"] is None else [volume_file, levels]
    if not verify or not all(file.is_file() for file in needed):
        return all(file.is_file() for file in needed)
    try:
        if zlib.crc32(np.load(volume_file).data) != facts["crc32"]:
            return False
        if levels in needed:
            with np.load(levels) as content:
                return zlib.crc32(content["levels"].data) == facts["levels_crc32"]
    except (ValueError, OSError, KeyError, zipfile.BadZipFile, zlib.error):
        return False
    return True


def _write(volume_file: Path, pixels: np.ndarray, levels: np.ndarray | None, facts_file: Path, facts: dict) -> None:
    """The facts go last and away first: where they stand, pixels and levels are whole and theirs."""
    try:
        facts_file.unlink(missing_ok=True)
        with atomic(volume_file) as temporary:
            np.save(temporary, pixels)
        if levels is None:
            levels_file(volume_file).unlink(missing_ok=True)
        else:
            with atomic(levels_file(volume_file)) as temporary:
                np.savez_compressed(temporary, levels=levels)
        write_json(facts_file, facts)
    except OSError as error:
        raise UserError(f"cannot write the cache: {error}; set paths.cache to a disk with room") from error


def _count(summary: Summary, uid: str, outcome: Outcome) -> None:
    if outcome.bad is not None:
        summary.bad[uid] = outcome.bad
        return
    summary.done += outcome.fresh
    summary.kept += not outcome.fresh
    summary.slices += outcome.slices
    if outcome.mask_problem:
        summary.mask_problems[uid] = outcome.mask_problem
    if outcome.skipped:
        summary.skipped[uid] = len(outcome.skipped)


def _write_bad(folder: Path, split: str, bad: dict[str, str], uids: Sequence[str] | None) -> None:
    """Replace this split's rows of `bad.csv`, or those of `uids` alone, and keep the others."""
    file = folder / "bad.csv"
    before = read_csv(file, BAD_COLUMNS) if file.is_file() else pd.DataFrame(columns=list(BAD_COLUMNS))
    fresh = pd.DataFrame([(uid, bad[uid], split) for uid in sorted(bad)], columns=list(BAD_COLUMNS))
    replaced = (before["split"] == split) & (uids is None or before[STUDY].isin(uids))
    write_table(pd.concat([before[~replaced], fresh]), file)


def open_study(config: DatasetConfig, uid: str) -> CachedStudy:
    """A study from the cache. Raises UserError: the command that makes it if absent, the reason if bad."""
    volume_file, facts_file = _files(cache_folder(config), uid)
    if not facts_file.is_file() or not volume_file.is_file():
        if reason := bad_studies(config).get(uid):
            raise UserError(f"study {uid} is unusable ({reason}); {COMMAND} --check lists what to do")
        raise UserError(
            f"study {uid} is not in the cache {volume_file.parent}; "
            f"make it with: {COMMAND} {as_overrides('preprocess', to_dict(config.preprocess))}"
        )
    facts = read_json(facts_file)
    presence = facts["presence"]
    return CachedStudy(
        uid=uid,
        file=volume_file,
        geometry=Geometry.from_json(facts["geometry"]),
        crop=Crop(**facts["crop"]),
        slice_shape=tuple(facts["slice_shape"]),
        presence=None if presence is None else np.array(presence, bool),
    )


def cached_studies(config: DatasetConfig) -> list[str]:
    """UIDs of all studies in the cache for these preprocessing settings, of either split, sorted."""
    folder = cache_folder(config)
    return sorted(file.name.removesuffix(".json") for file in folder.glob("[!.]*.json"))


def bad_studies(config: DatasetConfig) -> dict[str, str]:
    """UID to reason of the studies that the last `prepare` could not use; empty where it has not run."""
    file = cache_folder(config) / "bad.csv"
    if not file.is_file():
        return {}
    table = read_csv(file, BAD_COLUMNS)
    return dict(zip(table[STUDY], table["reason"], strict=True))
