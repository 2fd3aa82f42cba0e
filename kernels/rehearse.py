"""Rehearse the kernel as Kaggle would run it, and compare its rows with those of src/predict.py.

    python kernels/rehearse.py [data.root=input/phantom]

The single file kernel.py runs in a process of its own, in an empty working directory, with the network blocked and the
inputs read-only: in a Linux namespace where that is allowed, else behind a guard on Python's sockets, with the inputs
compared before and after. It prints which of the two it was.
"""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
sys.path.insert(0, str(SOURCE))

from cspine.cli import Parser, run  # noqa: E402
from cspine.config import DatasetConfig, load  # noqa: E402
from cspine.errors import UserError  # noqa: E402
from cspine.paths import RSNA_NAME, find_dataset, need  # noqa: E402

NAMESPACES = (("unshare", "--net", "--mount"), ("unshare", "--user", "--map-root-user", "--net", "--mount"))
CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)"
# Runs a file with every connection refused; for machines that allow no namespaces.
GUARD = """
import runpy, socket, sys
def refuse(*args, **kwargs):
    raise OSError("the rehearsal blocks the network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Sandbox:
    """A Kaggle-like tree: input/ with two datasets, working/ where the kernel runs."""

    folder: Path
    mounts: dict[str, Path]  # name in input/ -> where it is

    @property
    def working(self) -> Path:
        return self.folder / "working"

    def command(self, kernel: Path, namespace: tuple[str, ...] | None) -> list[str]:
        """The command that runs the kernel there; without a namespace the inputs are links."""
        python = [sys.executable, "-I"]  # neither PYTHONPATH nor the working directory may lend it the package
        arguments = [str(kernel), "--input", str(self.folder / "input")]
        if namespace is None:
            return [*python, "-c", GUARD, *arguments]
        script = ["set -e"]
        for name, source in self.mounts.items():
            target = self.folder / "input" / name
            script += [shlex.join(["mount", "--bind", str(source), str(target)])]
            script += [shlex.join(["mount", "-o", "remount,ro,bind", str(target)])]
        return [*namespace, "sh", "-c", "\n".join([*script, 'exec "$@"']), "kernel", *python, *arguments]


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/base.yaml")
    parser.add_argument("--kernel", type=Path, default=HERE / "inference" / "kernel.py")
    parser.add_argument("--weights", type=Path, default=HERE / "weights")
    parser.add_argument("--expected", type=Path, help="what src/predict.py wrote; default: run it now")
    args = parser.parse_with_overrides()
    config = load(DatasetConfig, args.config, args.overrides)
    kernel = need(args.kernel, "python kernels/build.py").resolve()
    need(args.weights / "manifest.json", "python kernels/build.py")
    mounts = {"cspine-fracture-weights": args.weights.resolve(), RSNA_NAME: find_dataset(config).resolve()}
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        submission = rehearse(kernel, Sandbox(Path(folder), mounts))
        expected = args.expected or predict(args.config, args.overrides, Path(folder) / "expected.csv")
        return compare(submission, need(expected, "python src/predict.py"))


def rehearse(kernel: Path, sandbox: Sandbox) -> Path:
    """Run the kernel in the sandbox; its submission.csv. Raises UserError where it fails or touches its inputs."""
    namespace = usable_namespace()
    sandbox.working.mkdir()
    for name, source in sandbox.mounts.items():
        target = sandbox.folder / "input" / name
        target.parent.mkdir(exist_ok=True)
        if namespace is None:
            target.symlink_to(source)
        else:
            target.mkdir()
    how = "a network namespace, inputs mounted read-only" if namespace else "a guard on sockets, inputs compared"
    print(f"rehearsal: network blocked by {how}", flush=True)
    before = _listing(sandbox)
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ}
    command = sandbox.command(kernel, namespace)
    done = subprocess.run(command, cwd=sandbox.working, env=environment, check=False)
    if done.returncode:
        raise UserError(f"the kernel failed with exit status {done.returncode}")
    if _listing(sandbox) != before:
        raise UserError("the kernel changed its inputs, which are read-only on Kaggle")
    return need(sandbox.working / "submission.csv", "the kernel, which ended without writing it")


def usable_namespace() -> tuple[str, ...] | None:
    """The command that starts a process without a network, shown by a connection to us that must fail; else None."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        probe = [sys.executable, "-I", "-c", CONNECT, str(server.getsockname()[1])]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            raise UserError("a plain connection to this machine fails, so that blocking the network shows nothing")
        for namespace in NAMESPACES:
            if shutil.which(namespace[0]) is None:
                continue
            starts = subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
            if starts and subprocess.run([*namespace, *probe], capture_output=True, check=False).returncode:
                return namespace
    return None


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


def _listing(sandbox: Sandbox) -> list[tuple[str, int, int]]:
    files = sorted(file for source in sandbox.mounts.values() for file in source.rglob("*") if file.is_file())
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


if __name__ == "__main__":
    run(main)
