"""Write what the trained models find in a study: one HTML file with linked views and a 3-D view, and three PNG files.

    python src/report.py --study UID             a study of the dataset -> oof/reports/UID.html
    python src/report.py --input PATH            any folder of DICOM files, or a NIfTI file
    python src/report.py --all --split test      every study of a split, lesions.csv and index.html
    python src/report.py --study UID --detector localise-ssd            lesions by this run of detectors
    python src/report.py --study UID --detector heat                    lesions where the fracture head is hottest
    python src/report.py --study UID --boxes boxes.csv                  boxes found elsewhere, joined to lesions

The file opens anywhere, from the file system, without a network. Without a trained fracture head it shows levels. Where
one run of detectors has all its folds it finds the lesions; where several have, --detector must choose; where none has,
a fracture head with model.cells finds them.
"""

from pathlib import Path

from cspine.cli import Parser, run
from cspine.errors import UsageError


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/base.yaml")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--study", metavar="UID", help="a study of the dataset")
    what.add_argument("--input", type=Path, metavar="PATH", help="a folder of DICOM files or a NIfTI file")
    what.add_argument("--all", action="store_true", help="every study of --split")
    parser.add_argument("--split", default="test", choices=("train", "test"))
    parser.add_argument("--run", help="the vertebra run that finds the levels (default: the ensemble's)")
    lesions = parser.add_mutually_exclusive_group()
    lesions.add_argument("--detector", metavar="RUN", help="the run that finds lesions, heat, or none (see above)")
    lesions.add_argument("--boxes", type=Path, help="boxes.csv of a detector, in place of a search")
    parser.add_argument("--show-name", action="store_true", help="show the patient's name and number from the header")
    parser.add_argument("--out", type=Path, help="the folder (default: reports in paths.oof)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_with_overrides()
    if args.input is not None and not args.input.exists():
        raise UsageError(f"--input {args.input}: no such file or folder")

    # Imported late so that -h answers at once.
    from cspine.config import DatasetConfig, load
    from cspine.data.layout import image_folder, studies_on_disk, study_path
    from cspine.engine.distributed import choose_device
    from cspine.paths import find_dataset
    from cspine.pictures.canvas import study_folder
    from cspine.report.reader import Reader
    from cspine.report.write import Wish, write_report, write_reports
    from cspine.search import choose_detector

    config = load(DatasetConfig, args.config, args.overrides)
    oof, wish = Path(config.paths.oof), Wish(args.boxes, args.show_name)
    folder = args.out or oof / "reports"
    detector = None if args.boxes else choose_detector(oof, args.detector)
    reader = Reader(oof, args.run, choose_device(args.device), detector)
    if args.all:
        images = image_folder(find_dataset(config), args.split)
        paths = [study_path(images, uid) for uid in studies_on_disk(images.parent, args.split)]
        print(write_reports(reader, paths, folder, oof, wish))
    else:
        write_report(reader, args.input or study_folder(config, args.study), folder, oof, wish)


if __name__ == "__main__":
    run(main)
