"""Blend fracture runs, calibrate the blend and choose its thresholds, all by the folds the runs were trained on.

    python src/ensemble.py                                        every fracture run in oof/ that has all its folds
    python src/ensemble.py fracture-slice fracture-slice-lcnet    these runs
    python src/ensemble.py data.root=input/phantom paths.oof=oof
    python src/ensemble.py --threshold sensitivity:0.95           thresholds that find 95 %

Prints the scores of every member, of the blend and of other ways to blend, in-sample and by nested folds, and writes
into oof/ensemble/: blend.json (what inference needs), oof.csv (nested predictions of every study), thresholds.csv
(every operating point of every level) and report.html.

--threshold RULE says where the thresholds in blend.json lie: f1, accuracy, youden; sensitivity:0.95 (the greatest
specificity with that sensitivity), specificity:0.9; cost:5 (a missed fracture costs five false alarms).
"""

from pathlib import Path

from cspine.cli import Parser, run
from cspine.errors import UsageError


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: every fracture run with all its folds")
    parser.add_argument("--config", default="configs/base.yaml")
    parser.add_argument("--threshold", default="f1", metavar="RULE", help="see above; default: f1")
    parser.add_argument("--prevalence", type=float, default=0.07, help="at which PPV and NPV are told; default: 0.07")
    parser.add_argument("--coverage", type=float, default=0.9, help="of answers without a radiologist; default: 0.9")
    args = parser.parse_with_overrides()
    for name in ("prevalence", "coverage"):
        if not 0 < getattr(args, name) < 1:
            raise UsageError(f"--{name} {getattr(args, name)}: must lie within 0 and 1")

    from cspine.config import DatasetConfig, load
    from cspine.ensemble_text import ensemble_text
    from cspine.ensembling import Options, choose_members, fit_ensemble, write_ensemble
    from cspine.paths import find_dataset
    from cspine.runs import ENSEMBLE
    from cspine.scorecard import write_report
    from cspine.thresholds import read_rule

    try:
        read_rule(args.threshold)
    except ValueError as error:
        raise UsageError(f"--threshold {error}") from error
    config = load(DatasetConfig, args.config, args.overrides)
    find_dataset(config)  # without data nothing else is worth a message
    oof = Path(config.paths.oof)
    options = Options(args.threshold, args.prevalence, args.coverage)
    ensemble = fit_ensemble(choose_members(oof, args.runs), config, options)
    print(ensemble_text(ensemble))
    for file in (*write_ensemble(ensemble, oof / ENSEMBLE), write_report(ensemble, oof / ENSEMBLE / "report.html")):
        print(f"wrote {file}")


if __name__ == "__main__":
    run(main)
