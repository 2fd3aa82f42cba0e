"""The pictures by name: which study or run they need, what draws them, where they go."""

from argparse import Namespace
from pathlib import Path

from matplotlib.figure import Figure

from cspine.config import Config
from cspine.data.dicom import load_study
from cspine.errors import UserError
from cspine.pictures.augment import draw_augment
from cspine.pictures.canvas import picture_file, save, study_folder
from cspine.pictures.planes import draw_planes, name_of
from cspine.pictures.preprocess import draw_preprocess


def draw(args: Namespace, config: Config) -> Path:
    """Draw `args.what` and save it; the file it is in."""
    if args.what == "fractures":
        from cspine.pictures.fractures import draw_fracture_types

        file = picture_file(config, args.out, "fractures", Path(f"seed{args.seed}"))
        save(draw_fracture_types(args.seed), file)
        return file
    if args.what == "worst":
        from cspine.worst import draw_worst

        return draw_worst(args.run, config, args.count)
    if args.what == "levels":
        return _levels(args, config)
    folders = [study_folder(config, study) for study in args.study]
    file = picture_file(config, args.out, args.what, folders[0])
    save(_of_studies(args, config, folders), file)
    return file


def _levels(args: Namespace, config: Config) -> Path:
    import torch

    from cspine.inference import load_run
    from cspine.pictures.levels import draw_levels, find_levels

    folder = study_folder(config, args.study[0])
    file = picture_file(config, args.out, "levels", folder)
    run = load_run(Path(config.paths.oof), args.run, torch.device("cpu"))
    images, presence = find_levels(run, folder)
    field_mm = run.config.preprocess.field_mm or images.volume.shape[-1]
    save(draw_levels(f"{name_of(folder)}, by {args.run}", images, presence, field_mm), file)
    return file


def _of_studies(args: Namespace, config: Config, folders: list[Path]) -> Figure:
    if args.what in ("preprocess", "augment") and config.preprocess.mask == "learned":
        raise UserError(
            f"picture.py {args.what} draws a study by its files alone, and a learned mask needs its levels; "
            "draw preprocess.mask=none, and the levels with: python src/picture.py levels"
        )
    studies = [load_study(folder) for folder in folders]
    if args.what == "preprocess":
        return draw_preprocess(studies[0], config.preprocess, args.at[0])
    if args.what == "augment":
        return draw_augment(studies[0], config, args.at[0])
    return draw_planes([(name_of(folder), study) for folder, study in zip(folders, studies, strict=True)], args.at)
