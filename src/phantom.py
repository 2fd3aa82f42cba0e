"""Make a phantom data set in the exact layout of the RSNA 2022 competition, so that everything runs without its data:

    python src/phantom.py --out input/phantom --studies 40 --test-studies 10 --seed 0
    python src/phantom.py --out input/phantom --matrix 256 --spacing 1     quicker, and a sixth of the disk

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
    parser.add_argument("--matrix", type=int, default=512, help="rows and columns of most slices (512)")
    parser.add_argument("--spacing", type=float, help="distance between slices in mm (drawn as in the competition)")
    parser.add_argument("--mask-share", type=float, default=0.5, help="masks, of all (0.5; the competition has 0.04)")
    parser.add_argument("--box-share", type=float, default=0.25, help="boxes, of the positives (0.25, as there)")
    parser.add_argument(
        "--kaggle-stub", action="store_true", help="test.csv asks for three studies that are absent, as the public one"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="parallel processes (all cores)")
    args = parser.parse_args()
    for name, low in (("studies", 0), ("test_studies", 0), ("seed", 0), ("matrix", 32), ("processes", 1)):
        if getattr(args, name) < low:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {low}")
    if args.spacing is not None and not 0.2 <= args.spacing <= 5:
        raise UsageError("--spacing must lie between 0.2 and 5 mm")
    if not (0 <= args.mask_share <= 1 and 0 <= args.box_share <= 1):
        raise UsageError("--mask-share and --box-share must lie between 0 and 1")

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
        kaggle_stub=args.kaggle_stub,
    )
    make_dataset(args.out, order, args.processes)


if __name__ == "__main__":
    run(main)
