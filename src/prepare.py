"""Check the raw data, decode it once into the cache, and deal the folds.

    python src/prepare.py                    decode the training studies, write input/folds.csv
    python src/prepare.py --check            only read: the data in numbers, findings with their remedy, check.json
    python src/prepare.py --split all        training and test studies
    python src/prepare.py --verify           compare the checksums of the cache, and make damaged files again
    python src/prepare.py data.root=DIR preprocess.size_px=192

Restartable: a study whose files have not changed is not decoded again. Bad studies are listed in bad.csv and are not
fatal; with --check they make the exit status 1. data.workers sets the number of processes.
"""

from cspine.cli import Parser, run


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/base.yaml", help="where the data is and how it is preprocessed")
    parser.add_argument("--split", default="train", choices=("train", "test", "all"))
    parser.add_argument("--check", action="store_true", help="read and report only")
    parser.add_argument("--verify", action="store_true", help="compare the checksums of what is in the cache")
    args = parser.parse_with_overrides()

    # Importing the decoders takes a second; -h and misuse should not wait for it.
    from cspine.config import DatasetConfig, load
    from cspine.data.prepare import check_and_report, prepare_and_report

    config = load(DatasetConfig, args.config, args.overrides)
    splits = ("train", "test") if args.split == "all" else (args.split,)
    return check_and_report(config, splits) if args.check else prepare_and_report(config, splits, args.verify)


if __name__ == "__main__":
    run(main)
