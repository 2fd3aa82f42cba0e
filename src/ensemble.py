"""Blend fracture runs, calibrate the blend and choose its thresholds, all by the folds the runs were trained on.

    python src/ensemble.py                                        every fracture run in oof/ that has all its folds
    python src/ensemble.py fracture-slice fracture-slice-lcnet    these runs
    python src/ensemble.py data.root=input/phantom paths.oof=oof

Prints the scores of every member and of the blend, in-sample and by nested folds, and writes into oof/ensemble/:
blend.json (what inference needs), oof.csv (nested predictions of every study) and report.html.
"""

from pathlib import Path

from cspine.cli import Parser, run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: every fracture run with all its folds")
    parser.add_argument("--config", default="configs/base.yaml")
    args = parser.parse_with_overrides()

    from cspine.config import DatasetConfig, load
    from cspine.ensembling import choose_members, ensemble_text, fit_ensemble, write_ensemble
    from cspine.paths import find_dataset
    from cspine.runs import ENSEMBLE
    from cspine.scorecard import write_report

    config = load(DatasetConfig, args.config, args.overrides)
    find_dataset(config)  # without data nothing else is worth a message
    oof = Path(config.paths.oof)
    ensemble = fit_ensemble(choose_members(oof, args.runs), config)
    print(ensemble_text(ensemble))
    for file in (*write_ensemble(ensemble, oof / ENSEMBLE), write_report(ensemble, oof / ENSEMBLE / "report.html")):
        print(f"wrote {file}")


if __name__ == "__main__":
    run(main)
