"""Compare backbones, or the switches of preprocessing and augmentation, on "which levels are on a slice".

    python src/compare.py                                       the 14 of the report, then the best 5 by group folds
    python src/compare.py --quick                               all 14, small: for two cores and a phantom
    python src/compare.py --backbones ResNet50 squeezenet1_0    by the report's names, timm's, or torchvision's
    python src/compare.py --ablation [--quick]                  every switch against one baseline, by folds and seeds
    python src/compare.py --ablation mixup mask-kmeans          some switches; src/cspine/ablation.py lists them

Each cell is a row of oof/compare/comparison.csv or oof/ablation/ablation.csv as soon as it is done, and what is there
is not trained again. Any key of the config can be overridden: data.image_size_px=128 train.epochs=2.
"""

from pathlib import Path

from cspine.cli import Parser, run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config", help="default: configs/vertebra/compare.yaml, or ablation.yaml beside it")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--backbones", nargs="+", metavar="NAME", help="default: the 14 of the report")
    what.add_argument("--ablation", nargs="*", metavar="SWITCH", help="switches instead of backbones; default: all")
    parser.add_argument("--quick", action="store_true", help="one group fold, small images, few slices")
    args = parser.parse_with_overrides()

    # Imported late so that -h answers at once.
    from cspine import ablation, comparison
    from cspine.config import Config, load
    from cspine.engine.distributed import join_world
    from cspine.models.backbones import REPORT
    from cspine.pictures.ablation import draw_ablation
    from cspine.pictures.canvas import save
    from cspine.pictures.comparison import draw_accuracy_and_time, draw_folds

    kind = "compare" if args.ablation is None else "ablation"
    quick = (comparison if args.ablation is None else ablation).QUICK if args.quick else ()
    config = load(Config, args.config or f"configs/vertebra/{kind}.yaml", [*quick, *args.overrides])
    with join_world(config.train.device, config.data.workers) as world:
        if args.ablation is None:
            rows = comparison.compare(config, args.backbones or list(REPORT), world, args.quick)
            text = comparison.comparison_text
            figures = {"accuracy_and_time": draw_accuracy_and_time, "group_folds": draw_folds}
        else:
            rows = ablation.ablate(config, ablation.choose_switches(config, args.ablation), world, args.quick)
            text, figures = ablation.ablation_text, {"ablation": draw_ablation}
    if world.is_main:
        print(text(rows))
        for name, draw in figures.items():
            save(draw(rows), file := Path(config.paths.oof) / config.name / f"{name}.png")
            print(file)


if __name__ == "__main__":
    run(main)
