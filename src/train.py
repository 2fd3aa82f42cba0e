"""Train models, one (config, fold) at a time.

    python src/train.py --fold 0                                            every model of configs/pipeline.yaml
    python src/train.py --config configs/fracture/slice.yaml --fold all     one model, every fold
    python src/train.py --config configs/fracture/slice.yaml --fold full    one model on all the data
    torchrun --nproc_per_node 2 src/train.py --fold 0                       on two GPUs (or two CPU processes)

A fracture head reads the slice table of a vertebra run, which needs all folds of that run: a pipeline trains them all
whatever --fold says. Any key of the config can be overridden: train.epochs=8 model.backbone=resnet18. Folds already
done are skipped; --resume goes on with an interrupted one.
"""

from cspine.cli import Parser, run


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/pipeline.yaml", help="a model's or a pipeline's config")
    parser.add_argument("--fold", required=True, help="0, 1, ..., all, or full")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted training stopped")
    parser.add_argument("--restart", action="store_true", help="delete what these folds hold and begin again")
    parser.add_argument("--processes", type=int, default=1, help="train so many folds side by side, on a CPU")
    args = parser.parse_with_overrides()

    # Importing torch takes seconds; -h and misuse should not wait for it.
    from cspine.pipeline import plan
    from cspine.training import train_jobs

    train_jobs(plan(args.config, args.fold, args.overrides), args.processes, args.resume, args.restart)


if __name__ == "__main__":
    run(main)
