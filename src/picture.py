"""Draw what the pipeline does to one study, as a PNG.

    python src/picture.py preprocess --study UID      before and after each step of the preprocessing
    python src/picture.py augment --study DIR         each random transform alone, and random samples
    python src/picture.py augment --study UID --config configs/vertebra/image.yaml augment.rotate_deg=30

--study takes a study of the dataset or any folder of DICOM files. Without --out the picture goes to oof/pictures/.
"""

import argparse
from pathlib import Path

from cspine.cli import Parser, run
from cspine.errors import UsageError


def main() -> None:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest="what", required=True, parser_class=argparse.ArgumentParser)
    for what, text in (("preprocess", "each step of the preprocessing"), ("augment", "the random transforms")):
        command = commands.add_parser(what, help=text, description=f"Draw {text}.")
        command.add_argument("--study", required=True, metavar="UID_OR_DIR")
        command.add_argument("--config", default="configs/fracture/slice.yaml", help="a run's config")
        command.add_argument("--at", type=float, default=0.5, help="place of the slice: 0 cranial, 1 caudal (0.5)")
        command.add_argument("--out", type=Path, help="the PNG file")
    args = parser.parse_with_overrides()
    if not 0 <= args.at <= 1:
        raise UsageError("--at must lie between 0 and 1")

    # Imported late so that -h answers at once.
    from cspine.config import Config, load
    from cspine.data.dicom import load_study
    from cspine.pictures.canvas import picture_file, save, study_folder

    config = load(Config, args.config, args.overrides)
    folder = study_folder(config, args.study)
    file = picture_file(config, args.out, args.what, folder)
    study = load_study(folder)
    if args.what == "preprocess":
        from cspine.pictures.preprocess import draw_preprocess

        figure = draw_preprocess(study, config.preprocess, args.at)
    else:
        from cspine.pictures.augment import draw_augment

        figure = draw_augment(study, config, args.at)
    save(figure, file)
    print(file)


if __name__ == "__main__":
    run(main)
