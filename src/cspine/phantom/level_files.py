"""Single levels of phantoms as files, so that they are drawn once and read one at a time: 2 MB each."""

import hashlib
import json
import multiprocessing
import zipfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cspine.config import Preprocess
from cspine.data.geometry import Geometry
from cspine.data.level_cells import SliceTruth
from cspine.data.level_crops import LevelPlace
from cspine.errors import UserError
from cspine.paths import atomic
from cspine.phantom.single_levels import Sampling, SingleLevel, draw_level_alone
from cspine.phantom.writer import VERSION

ARRAYS = ("probabilities", "plane_z_mm")  # of a place; the rest of it are numbers
BATCH = 8


@dataclass(frozen=True, eq=False)
class StoredLevel:
    """A single level whose volume, uint8 (z, windows, y, x), is read at each access."""

    uid: str
    file: Path
    geometry: Geometry
    place: LevelPlace
    fractured: bool
    truth: SliceTruth

    @property
    def volume(self) -> np.ndarray:
        with np.load(self.file) as content:
            return content["volume"]


def draw_levels(
    folder: Path, count: int, seed: int, settings: Preprocess, sampling: Sampling, processes: int
) -> list[StoredLevel]:
    """Levels 0 to count - 1, the even ones fractured; those that are in the folder already are not drawn again."""
    there = level_folder(folder, seed, settings, sampling)
    missing = [index for index in range(count) if not _file(there, index).exists()]
    draw = partial(_draw_to, there, seed, settings, sampling)
    if missing:
        draw(missing[0])  # compiles the kernels before the processes share them
        with (
            ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool,
            tqdm(desc="levels", total=count, initial=count - len(missing) + 1, unit="level", disable=None) as bar,
        ):
            for _ in pool.map(draw, missing[1:], chunksize=BATCH):
                bar.update()
    return [read_level(_file(there, index)) for index in range(count)]


def level_folder(folder: Path, seed: int, settings: Preprocess, sampling: Sampling) -> Path:
    """Where levels of this seed lie, apart from those that are scanned, cut or drawn otherwise."""
    made = json.dumps([asdict(settings), VERSION], sort_keys=True, default=str)
    code = hashlib.sha256(made.encode()).hexdigest()[:8]
    return folder / f"seed{seed}-{sampling.matrix}px-{sampling.spacing_mm:g}mm-{code}"


def write_level(level: SingleLevel, file: Path) -> None:
    place = asdict(level.place)
    arrays = {name: place.pop(name) for name in ARRAYS}
    facts = {"uid": level.uid, "fractured": level.fractured, "geometry": level.geometry.to_json(), "place": place}
    with atomic(file) as temporary:
        np.savez(temporary, volume=level.volume, facts=json.dumps(facts), **arrays, **asdict(level.truth))


def read_level(file: Path) -> StoredLevel:
    """Raises UserError where the file is damaged."""
    try:
        with np.load(file) as content:
            facts = json.loads(str(content["facts"]))
            values: Any = {**facts["place"], **{name: content[name] for name in ARRAYS}}
            place = LevelPlace(
                **values | {"corner_mm": tuple(values["corner_mm"]), "centre_mm": tuple(values["centre_mm"])}
            )
            truth = SliceTruth(content["seen"], content["boxes_mm"])
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file}: damaged ({error}); delete it and it is drawn again") from error
    return StoredLevel(facts["uid"], file, Geometry.from_json(facts["geometry"]), place, facts["fractured"], truth)


def _draw_to(folder: Path, seed: int, settings: Preprocess, sampling: Sampling, index: int) -> None:
    write_level(draw_level_alone(seed, settings, sampling, index), _file(folder, index))


def _file(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.npz"
