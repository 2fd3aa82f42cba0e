"""Score out-of-fold predictions, or any file of predictions.

    python src/evaluate.py                      every run in oof/ that has all its folds, and the ensemble
    python src/evaluate.py fracture-slice       one run
    python src/evaluate.py --compare fracture-slice fracture-soft     is the one better, on the same patients?
    python src/evaluate.py --labels input/phantom/test_answers.csv --predictions submissions/submission.csv

Decisions on out-of-fold predictions use thresholds fitted on the other folds; those on a file use 0.5, or the
thresholds of --thresholds oof/ensemble/blend.json. --json prints one object and nothing else.
"""

import json
from pathlib import Path

from cspine.cli import Parser, run
from cspine.errors import UsageError


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="default: every run that has all its folds")
    parser.add_argument("--config", default="configs/base.yaml")
    parser.add_argument("--labels", type=Path, help="a CSV in the layout of train.csv")
    parser.add_argument("--predictions", type=Path, help="a CSV in the layout of train.csv, or a submission")
    parser.add_argument("--thresholds", type=Path, help="a JSON file with `thresholds`, for --predictions")
    parser.add_argument("--compare", nargs=2, metavar="RUN", help="two runs: how much better is which")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_with_overrides()
    if (args.labels is None) != (args.predictions is None):
        raise UsageError("--labels and --predictions belong together")
    if args.predictions is None and args.thresholds is not None:
        raise UsageError("--thresholds belongs to --predictions; runs are decided at nested thresholds")
    if args.predictions is not None and args.runs:
        raise UsageError(f"--predictions scores a file; leave out the run {args.runs[0]}")
    if args.compare is not None and (args.runs or args.predictions is not None):
        what = f"leave out the run {args.runs[0]}" if args.runs else "leave out --predictions"
        raise UsageError(f"--compare holds two runs of oof/ against each other; {what}")

    from cspine.config import DatasetConfig, load

    if args.compare is not None:
        from cspine.versus import compare_runs, comparison_text

        found = compare_runs(*args.compare, load(DatasetConfig, args.config, args.overrides))
        print(json.dumps(found, indent=2, allow_nan=False) if args.json else comparison_text(found))
        return

    from cspine.evaluation import evaluate_file, evaluate_runs, evaluation_text

    if args.predictions is not None:
        scores = evaluate_file(args.labels, args.predictions, args.thresholds)
        named, incomplete = {str(args.predictions): scores}, {}
    else:
        named, incomplete = evaluate_runs(args.runs, load(DatasetConfig, args.config, args.overrides))
    if args.json:
        print(json.dumps(named if args.predictions is None else scores, indent=2, allow_nan=False))
    else:
        print(evaluation_text(named, incomplete))


if __name__ == "__main__":
    run(main)
