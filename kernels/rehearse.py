"""Rehearse the kernel as Kaggle would run it, and compare its rows with those of src/predict.py.

    python kernels/rehearse.py [data.root=input/phantom]
    python kernels/rehearse.py --faults [data.root=input/phantom]   with something wrong, in each way of parts/faults.py

The single file kernel.py runs in a process of its own, in an empty working directory, with the network blocked and the
inputs read-only: in a Linux namespace where that is allowed, else behind a guard on Python's sockets, with the inputs
compared before and after. It prints which of the two it was. First on a stub of the data as the public one is, whose
test.csv asks for studies that are not there; then on the whole test set, as the hidden one takes the stub's place.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
sys.path[:0] = [str(SOURCE), str(HERE)]

from cspine.cli import Parser, run  # noqa: E402
from cspine.config import DatasetConfig, load  # noqa: E402
from cspine.errors import UsageError, UserError  # noqa: E402
from cspine.paths import RSNA_NAME, find_dataset, need  # noqa: E402
from cspine.submission_file import read_priors, read_rows  # noqa: E402

WEIGHTS_NAME = "cspine-fracture-weights"
# The public stub asks for C1 of studies that it does not hold.
ABSENT = ("1.2.826.0.1.3680043.10197", "1.2.826.0.1.3680043.10454", "1.2.826.0.1.3680043.10690")
STUB_STUDIES = 3


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/base.yaml")
    parser.add_argument("--kernel", type=Path, default=HERE / "inference" / "kernel.py")
    parser.add_argument("--weights", type=Path, default=HERE / "weights")
    parser.add_argument("--expected", type=Path, help="what src/predict.py wrote; default: run it now")
    parser.add_argument("--faults", action="store_true", help="break things, and see that only what must suffers")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of the faults those of these names")
    args = parser.parse_with_overrides()
    if args.only and not args.faults:
        raise UsageError("--only needs --faults")
    config = load(DatasetConfig, args.config, args.overrides)
    kernel = need(args.kernel, "python kernels/build.py").resolve()
    need(args.weights / "manifest.json", "python kernels/build.py")
    data, weights = find_dataset(config).resolve(), args.weights.resolve()

    # Late, because pydicom and NumPy take a while.
    from parts.sandbox import usable_namespace
    from parts.verdicts import rehearse_faults

    how = "a network namespace, inputs mounted read-only" if usable_namespace() else "a guard on sockets"
    print(f"rehearsal: network blocked by {how}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as name:
        folder = Path(name)
        if args.faults:
            return rehearse_faults(kernel, data, weights, folder, args.only)
        rehearse_stub(kernel, data, weights, folder)
        submission = rehearse(kernel, data, weights, folder / "hidden")
        expected = args.expected or predict(args.config, args.overrides, folder / "expected.csv")
        return compare(submission, need(expected, "python src/predict.py"))


def rehearse(kernel: Path, data: Path, weights: Path, folder: Path) -> Path:
    """Run the kernel on a dataset; its submission.csv. Raises UserError where it fails or was not valid throughout."""
    from parts.sandbox import Sandbox, run_kernel

    sandbox = Sandbox(folder, {WEIGHTS_NAME: weights, RSNA_NAME: data})
    asked = [row.row_id for row in read_rows(data / "test.csv")]
    ran = run_kernel(kernel, sandbox, asked)
    print(ran.log, end="")
    if ran.status:
        raise UserError(f"the kernel failed with exit status {ran.status}")
    if ran.watch.wrong or ran.watch.first_s is None:
        raise UserError(f"submission.csv was not valid throughout: {[*ran.watch.wrong, 'it was never there'][0]}")
    print(f"rehearsal: submission.csv was whole after {ran.watch.first_s:.2f} s, and from then on")
    return sandbox.working / "submission.csv"


def rehearse_stub(kernel: Path, data: Path, weights: Path, folder: Path) -> None:
    """The public stub: a few images, and rows of other studies, which have the priors."""
    from parts.faults import write_rows

    stub = folder / "stub"
    (stub / "test_images").mkdir(parents=True)
    for study in sorted((data / "test_images").iterdir())[:STUB_STUDIES]:
        (shutil.copytree if study.is_dir() else shutil.copy)(study, stub / "test_images" / study.name)
    write_rows(stub / "test.csv", ABSENT, ["C1"])
    submission = rehearse(kernel, stub, weights, folder / "public")
    prior = read_priors(weights / "manifest.json")["C1"]
    values = [line.split(",")[1] for line in submission.read_text().splitlines()[1:]]
    if values != [repr(prior)] * len(ABSENT):
        raise UserError(f"on the public stub the rows are {values}, not the prior {prior} three times")
    print("rehearsal: public stub, 3 rows, all the prior")


def predict(config: str, overrides: list[str], output: Path) -> Path:
    """The same rows by src/predict.py."""
    command = [sys.executable, str(SOURCE / "predict.py"), "--config", config, "--out", str(output), *overrides]
    if subprocess.run(command, check=False).returncode:
        raise UserError("src/predict.py failed, so there is nothing to compare the kernel with")
    return output


def compare(submission: Path, expected: Path) -> int:
    """Print whether the two files hold the same rows; 0 if so."""
    ours, theirs = (file.read_text().splitlines() for file in (submission, expected))
    differing = sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
    if differing:
        print(f"rehearsal: {differing} of {len(theirs) - 1} rows differ from those of src/predict.py", file=sys.stderr)
        return 1
    print(f"rehearsal: {len(ours) - 1} rows, all equal to those of src/predict.py")
    return 0


if __name__ == "__main__":
    run(main)
