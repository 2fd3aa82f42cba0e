"""Predict studies with the ensemble and write a submission.

python src/predict.py                              test.csv of the dataset -> submissions/submission.csv
python src/predict.py --split train --out x.csv    all rows of the training studies (their own models saw them!)
python src/predict.py --studies DIR                every folder of DICOM files and every .nii.gz in DIR is a study
"""

from pathlib import Path

from cspine.cli import Parser, run


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/base.yaml")
    parser.add_argument("--split", default="test", choices=("train", "test"))
    parser.add_argument("--studies", type=Path, help="a folder of study folders, instead of a split of the dataset")
    parser.add_argument("--out", type=Path, help="default: submission.csv in paths.submissions")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_with_overrides()

    # Importing torch takes seconds; -h and misuse should not wait for it.
    from cspine.bundle import from_runs
    from cspine.config import DatasetConfig, load
    from cspine.submission import rows_and_images, submit

    config = load(DatasetConfig, args.config, args.overrides)
    rows, images = rows_and_images(config, args.split, args.studies)
    output = args.out or Path(config.paths.submissions) / "submission.csv"
    return submit(from_runs(Path(config.paths.oof)), rows, images, output, args.device, config.data.workers)


if __name__ == "__main__":
    run(main)
