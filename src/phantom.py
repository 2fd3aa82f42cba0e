"""Make a phantom data set in the exact layout of the RSNA 2022 competition, so that everything runs without its data:

    python src/phantom.py --out input/phantom --studies 40 --test-studies 10 --seed 0

Interrupted, the same command goes on where it stopped; finished, it returns at once.
"""

import os
from pathlib import Path

from cspine.cli import Parser, run
from cspine.errors import UsageError


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--studies", type=int, default=40, help="studies in train_images (40)")
    parser.add_argument("--test-studies", type=int, default=10, help="studies in test_images (10)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other patients (0)")
    parser.add_argument("--matrix", type=int, default=256, help="rows and columns of a slice (256)")
    parser.add_argument("--spacing", type=float, default=1.0, help="distance between slices in mm (1.0)")
    parser.add_argument("--mask-share", type=float, default=0.5, help="share of the studies with a mask (0.5)")
    parser.add_argument("--box-share", type=float, default=0.5, help="share of the positives with boxes (0.5)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="parallel processes (all cores)")
    args = parser.parse_args()
    for name, low in (("studies", 0), ("test_studies", 0), ("seed", 0), ("matrix", 32), ("processes", 1)):
        if getattr(args, name) < low:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {low}")
    if not 0.2 <= args.spacing <= 5:
        raise UsageError("--spacing must lie between 0.2 and 5 mm")

    # Imported late so that -h answers at once.
    from cspine.phantom.writer import Order, make_dataset

    order = Order(
        studies=args.studies,
        test_studies=args.test_studies,
        seed=args.seed,
        matrix=args.matrix,
        spacing_mm=args.spacing,
        mask_share=args.mask_share,
        box_share=args.box_share,
    )
    make_dataset(args.out, order, args.processes)


if __name__ == "__main__":
    run(main)
