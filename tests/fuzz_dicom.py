"""Damage DICOM files in many ways and see that the reader never crashes, hangs or invents pixels.

    python tests/fuzz_dicom.py --count 2000 --seed 0                    synthetic files in every transfer syntax
    python tests/fuzz_dicom.py --count 2000 --real DIR --keep bad/      also the readable files of DIR

Prints how many files of each kind of damage were read, refused or ended the process; --keep writes the files that the
reader should have treated otherwise. Exit status 1 if there is one. tests/fuzzing.py says what is allowed.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from cspine.cli import Parser, run
from cspine.errors import UserError


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--count", type=int, default=2000, help="how many damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds after which a file counts as hung")
    parser.add_argument("--real", type=Path, help="a folder of DICOM files that are damaged too")
    parser.add_argument("--keep", type=Path, help="a folder for the files that were treated wrongly")
    args = parser.parse_args()

    from fuzzing import damaged, is_violation, make_seeds, readable, run_tasks, table, tasks_for

    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        real = readable(args.real) if args.real else []
        if args.real and not real:
            raise UserError(f"--real {args.real}: no readable CT slice is in it")
        seeds = make_seeds(Path(folder)) + real
        for task, label in run_tasks(tasks_for(seeds, args.count, args.seed), args.processes, args.timeout):
            if is_violation(label):
                name = f"{task.kind}_{task.number}_{task.seed.name}"
                print(f"{label}: {name}")
                if args.keep:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / name).write_bytes(damaged(task) or b"")
            counts[task.kind, label.partition(":")[0] if is_violation(label) else label] += 1
    print(table(counts))
    wrong = sum(number for (_, label), number in counts.items() if is_violation(label))
    print(f"{sum(counts.values())} files from {len(seeds)} seeds, {wrong} treated wrongly")
    return 1 if wrong else 0


if __name__ == "__main__":
    run(main)
