"""A command: how well vertebra runs, trained on phantoms alone, find the levels in real CT that nobody here made.

    python tests/real/find_levels.py vertebra-image vertebra-volume paths.oof=oof --out /tmp/levels

Reads ../shared/realct: nine volumes with marked levels, and draws those and all others. A level is named right by
slices where the level whose extent lies nearest about the marked centre is the marked one; by voxels, of a
vertebra/volume run, where it is the likeliest one within NEAR_MM of the marked centre. Never train on these volumes.
"""

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))
REAL = ROOT.parent / "shared" / "realct"
NEAR_MM = 6.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="RUN_OR_OVERRIDE", help="runs of oof/, and key=value overrides")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--marked-only", action="store_true", help="leave the volumes without marks out")
    args = parser.parse_args()
    overrides = [word for word in args.words if "=" in word]
    with tempfile.TemporaryDirectory() as folder:
        studies = real_studies(Path(folder))
        for run in (word for word in args.words if "=" not in word):
            print(report(run, overrides, studies, args.out, args.marked_only), flush=True)


def real_studies(folder: Path) -> dict[str, tuple[Path, dict]]:
    """Name -> (path of the study, marked levels), marked ones first; the DICOM series is unpacked into `folder`."""
    with tarfile.open(REAL / "visible_human_male_head.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    series = next(path.parent for path in folder.rglob("*.dcm"))
    marks = json.loads((REAL / "levels.json").read_text())
    found = {}
    for name, entry in marks.items():
        path = series if entry["frame"] == "dicom_LPS_mm" else REAL / entry["file"]
        found[name] = (path, entry["levels"])
    used = {path for path, _ in found.values()}
    others = sorted(path for path in (REAL / "head_neck_nifti").glob("*_ct.nii.gz") if path not in used)
    return found | {path.name.removesuffix(".nii.gz"): (path, {}) for path in others}


def report(run: str, overrides: list[str], studies: dict[str, tuple[Path, dict]], out: Path, marked_only: bool) -> str:
    import torch

    from cspine.config import DatasetConfig, load
    from cspine.inference import load_run
    from cspine.pictures.canvas import save
    from cspine.pictures.levels import draw_levels

    config = load(DatasetConfig, ROOT / "configs/base.yaml", overrides)
    model = load_run(Path(config.paths.oof), run, torch.device("cpu"))
    lines, right, by_voxels, away = [], [], [], []
    for name, (path, levels) in studies.items():
        if marked_only and not levels:
            continue
        images, presence, probabilities, places = find(model, path)
        figure = draw_levels(f"{name}, by {run}", images, presence, model.config.preprocess.field_mm)
        save(figure, out / run / f"{name}.png")
        if levels:
            named, errors = judge(images.z_mm, presence, levels)
            voxels = judge_voxels(probabilities, places, levels, path.suffix == ".gz")
            told = "  ".join("".join("x" if ok else "." for ok in which) for which in (named, voxels))
            lines.append(f"  {name:34} {told}  {np.nanmedian(errors):5.1f} mm")
            right, by_voxels, away = right + named, by_voxels + voxels, away + errors
    errors = np.array(away)
    voxel_share = f" by slices, {np.mean(by_voxels):.3f} by voxels" if by_voxels else ""
    lines.append(
        f"{run}: {len(right)} marked levels, named right {np.mean(right):.3f}{voxel_share}; centre along z: median "
        f"{np.nanmedian(errors):.1f} mm, within 5 mm {np.mean(errors <= 5):.3f}, 20 mm {np.mean(errors <= 20):.3f}"
    )
    return "\n".join(lines)


def find(model, path: Path):  # type: ignore[no-untyped-def]
    """The study's images, (z, 7), and of a volume run the voxels' probabilities (7, n) and places (n, 3) in LPS mm."""
    import torch

    from cspine.data.grid import study_grid
    from cspine.data.stream import prepare_volumes
    from cspine.tasks.base import StudyImages

    config, device = model.config, torch.device("cpu")
    study = prepare_volumes(path, (config.preprocess,))
    z_mm = study.geometry.z_mm
    images = StudyImages(
        study.volumes[config.preprocess], z_mm, study.geometry.spacing_mm, thickness_mm=study.geometry.thickness_mm
    )
    presence = model.infer(images, device)
    if config.task != "vertebra/volume":
        return images, presence, None, None
    found, grid = model.map_levels(images, device), study_grid(z_mm, config)
    voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1).astype(float)
    places = grid.to_lps(voxels, study.plans[config.preprocess].crop, study.geometry)
    return images, presence, found.probabilities.reshape(7, -1) / 255, places.reshape(-1, 3)


def judge_voxels(probabilities: np.ndarray | None, places: np.ndarray, levels: dict, is_nifti: bool) -> list[bool]:
    """For each marked level of C1 to C7: is it the likeliest one about its marked centre; none without voxels."""
    from cspine.anatomy import LEVELS

    if probabilities is None:
        return []
    named = []
    for number, level in enumerate(LEVELS):
        if level in levels:
            # NIfTI counts x to the right and y forwards, DICOM the other way.
            centre = np.array(levels[level]["center"], float) * ([-1, -1, 1] if is_nifti else [1, 1, 1])
            near = np.linalg.norm(places - centre, axis=1) <= NEAR_MM
            mean = probabilities[:, near].mean(axis=1)
            named.append(bool(mean.max() > 0) and int(mean.argmax()) == number)
    return named


def judge(z_mm: np.ndarray, presence: np.ndarray, levels: dict) -> tuple[list[bool], list[float]]:
    """For each marked level of C1 to C7: named right, and the distance in mm along z from its found centre."""
    from cspine.anatomy import LEVELS
    from cspine.data.levels import level_extents
    from cspine.level_scores import largest_runs

    extents = level_extents(largest_runs(presence), z_mm)
    middle = (extents.z_top_mm + extents.z_bottom_mm) / 2
    half = np.maximum((extents.z_top_mm - extents.z_bottom_mm) / 2, 1.0)
    named, errors = [], []
    for number, level in enumerate(LEVELS):
        if level not in levels:
            continue
        mark = levels[level]
        z = mark["center"][2]
        share = abs(z - middle) / half
        named.append(bool(np.isfinite(share).any()) and int(np.nanargmin(share)) == number)
        true_middle = (mark["z_top"] + mark["z_bottom"]) / 2
        errors.append(float(abs(middle[number] - true_middle)))
    return named, [error if np.isfinite(error) else np.inf for error in errors]


if __name__ == "__main__":
    main()
