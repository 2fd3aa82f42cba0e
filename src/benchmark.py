"""Measure ours beside the floor and the usual way, in the same run.

    python src/benchmark.py decode --study DIR [DIR ...]     slices/s from DICOM to the cache, 1 and 2 processes
    python src/benchmark.py memory --study DIR               peak memory on a study of 1,082 slices
    python src/benchmark.py cache [data.root=input/phantom]  random samples/s from the cache, and GB for 2,019 studies
    python src/benchmark.py loader [--config FILE]           the training loop beside its step on a resident batch
    python src/benchmark.py inference [--config FILE]        350 slices through a vertebra model beside bare passes
    python src/benchmark.py kernel --study DIR [DIR ...]     the kernel's seconds a study by stage, beside their floors
    python src/benchmark.py heads [--runs RUN ...]           every fracture head's scores and costs, between two oracles
    python src/benchmark.py localise [--runs RUN ...]        boxes and lesions of detectors, and of a head's heat
    python src/benchmark.py lesions [--runs RUN ...]         the ensemble with lesion scores as a member, and without
    python src/benchmark.py activations --config configs/fracture/study.yaml     GB that a patient's step keeps
    python src/benchmark.py aggregations --runs RUN [...]    from slices to levels: the mean, the clearest, the greatest
    python src/benchmark.py bones --runs RUN                 the report's bones beside the masks: found, and grown
    python src/benchmark.py learnable                        AUC of a small network on crops of the phantom
    python src/benchmark.py realism --study DIR [DIR ...]    HU of tissues and power of noise, phantom beside real CT
    python src/benchmark.py shortcuts                        AUC of file sizes, HU, noise and headers on the phantom
    python src/benchmark.py blend                            31 runs of 2,019 studies blended in every way, nested

Machines are noisy: what counts are the ratios, medians over --rounds; on a busy one those of CPU time.
"""

from pathlib import Path

from cspine.cli import Parser, run
from cspine.errors import UsageError

NAMES = (
    "decode",
    "memory",
    "cache",
    "loader",
    "inference",
    "kernel",
    "heads",
    "localise",
    "lesions",
    "aggregations",
    "activations",
    "blend",
    "bones",
    "learnable",
    "realism",
    "shortcuts",
)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("what", choices=NAMES)
    parser.add_argument("--study", type=Path, nargs="+", default=[], help="folders of DICOM files")
    parser.add_argument("--config", default="configs/vertebra/image.yaml", help="preprocessing, data, model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--patients", type=int, default=3000, help="of `learnable`; more of them take longer")
    parser.add_argument("--learn-from", type=int, nargs="+", default=[], help="of `learnable`: so many patients, too")
    parser.add_argument("--studies", type=int, default=300, help="of `shortcuts`; of `bones` at most")
    parser.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="RUN",
        help="of `heads`, `localise`, `lesions` (default: all whole), `aggregations` and `bones`",
    )
    parser.add_argument("--seed", type=int, default=0, help="of `learnable` and `shortcuts`")
    args = parser.parse_with_overrides()
    if args.what in ("decode", "memory", "realism", "kernel") and not args.study:
        raise UsageError(f"{args.what} needs --study DIR")

    # Imported late so that -h answers at once.
    from cspine.benchmarks.tables import benchmark_text
    from cspine.config import Config, load

    config = load(Config, args.config, args.overrides)
    print(benchmark_text(args, config))


if __name__ == "__main__":
    run(main)
