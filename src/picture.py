"""Draw studies, and what the pipeline does to them, as a PNG.

    python src/picture.py preprocess --study UID      before and after each step of the preprocessing
    python src/picture.py augment --study DIR         each random transform alone, and random samples
    python src/picture.py augment --study UID --config configs/vertebra/image.yaml augment.rotate_deg=30
    python src/picture.py planes --study UID DIR      studies at one scale: axial, sagittal, coronal; bone window
    python src/picture.py levels --study UID --run vertebra-image     the levels that a run finds
    python src/picture.py fractures --seed 0          the phantom's types of fracture, with the recorded voxels
    python src/picture.py worst --run fracture-slice  the 20 studies that a fracture run is most wrong about (--count)

--study takes a study of the dataset or any folder of DICOM files. Without --out the picture goes to oof/pictures/; the
worst studies go to oof/<run>/worst/.
"""

import argparse
from pathlib import Path

from cspine.cli import Parser, run
from cspine.errors import UsageError

CONFIG = "configs/fracture/slice.yaml"
SUBJECTS = {
    "preprocess": "each step of the preprocessing",
    "augment": "the random transforms",
    "planes": "studies beside each other",
    "levels": "the levels that a vertebra run finds",
}


def main() -> None:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest="what", required=True, parser_class=argparse.ArgumentParser)
    for what, text in SUBJECTS.items():
        command = commands.add_parser(what, help=text, description=f"Draw {text}.")
        many = what == "planes"
        command.add_argument("--study", required=True, nargs="+" if many else 1, metavar="UID_OR_DIR")
        command.add_argument("--config", default=CONFIG, help="a run's config")
        at = [0.25, 0.5, 0.75] if many else [0.5]
        text = f"place of the slice: 0 cranial, 1 caudal ({' '.join(map(str, at))})"
        command.add_argument("--at", type=float, nargs="+" if many else 1, default=at, help=text)
        command.add_argument("--out", type=Path, help="the PNG file")
        if what == "levels":
            command.add_argument("--run", required=True, help="a vertebra run of oof/, with at least one fold trained")
    text = "the phantom's types of fracture"
    command = commands.add_parser("fractures", help=text, description=f"Draw {text}.")
    command.add_argument("--seed", type=int, default=0, help="another seed draws other patients (0)")
    command.add_argument("--out", type=Path, help="the PNG file")
    command.set_defaults(study=[], at=[], config=CONFIG)
    text = "the studies that a fracture run is most wrong about"
    command = commands.add_parser("worst", help=text, description=f"Draw {text}.")
    command.add_argument("--run", required=True, help="a fracture run of oof/, with all folds trained")
    command.add_argument("--count", type=int, default=20, help="how many studies (20)")
    command.set_defaults(study=[], at=[], config=CONFIG)
    args = parser.parse_with_overrides()
    if not all(0 <= place <= 1 for place in args.at):
        raise UsageError("--at must lie between 0 and 1")
    if args.what == "worst" and args.count < 1:
        raise UsageError("--count must be at least 1")

    # Imported late so that -h answers at once.
    from cspine.config import Config, load
    from cspine.pictures.gallery import draw

    print(draw(args, load(Config, args.config, args.overrides)))


if __name__ == "__main__":
    run(main)
