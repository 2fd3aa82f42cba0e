"""Compare backbones on "which levels are on a slice": the report's experiment, and the same without its leak.

    python src/compare.py                                       the 14 of the report, then the best 5 by group folds
    python src/compare.py --quick                               all 14, small: for two cores and a phantom
    python src/compare.py --backbones ResNet50 squeezenet1_0    by the report's names, timm's, or torchvision's

Each cell (backbone, protocol, fold) is a row of oof/compare/comparison.csv as soon as it is done, and what is there is
not trained again. Any key of the config can be overridden: data.image_size_px=128 train.epochs=2.
"""

from pathlib import Path

from cspine.cli import Parser, run

# Extrapolated from single steps: 24 studies with masks take the 14 some 1,100 s of CPU time, 10 min on two free cores.
QUICK = ("data.image_size_px=64", "data.slices_per_study=26", "data.workers=0")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/vertebra/compare.yaml")
    parser.add_argument("--backbones", nargs="+", metavar="NAME", help="default: the 14 of the report")
    parser.add_argument("--quick", action="store_true", help=f"one group fold and {' '.join(QUICK)}")
    args = parser.parse_with_overrides()

    # Imported late so that -h answers at once.
    from cspine.comparison import compare, comparison_text
    from cspine.config import Config, load
    from cspine.engine.distributed import join_world
    from cspine.models.backbones import REPORT
    from cspine.pictures.canvas import save
    from cspine.pictures.comparison import draw_accuracy_and_time, draw_folds

    config = load(Config, args.config, [*(QUICK if args.quick else ()), *args.overrides])
    with join_world(config.train.device, config.data.workers) as world:
        rows = compare(config, args.backbones or list(REPORT), world, args.quick)
    if not world.is_main:
        return
    print(comparison_text(rows))
    folder = Path(config.paths.oof) / config.name
    for name, figure in (
        ("accuracy_and_time.png", draw_accuracy_and_time(rows)),
        ("group_folds.png", draw_folds(rows)),
    ):
        save(figure, folder / name)
        print(folder / name)


if __name__ == "__main__":
    run(main)
