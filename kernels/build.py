"""Package inference for an offline Kaggle submission.

    python kernels/build.py [paths.oof=oof]
    python kernels/build.py --wheels kernels/wheels     with the DICOM decoders for Python 3.10 to 3.13, from PyPI

Copies the weights of the ensemble's members into kernels/weights/ with a manifest, and writes the package into one
file, kernels/inference/kernel.py. Equal inputs give equal bytes. Wheels that are in the folder already are taken from
there; the kernel installs from them what its machine lacks.
"""

import base64
import io
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
sys.path[:0] = [str(SOURCE), str(HERE)]

from parts.wheels import collect_wheels, pinned_versions  # noqa: E402

from cspine.bundle import from_runs, write  # noqa: E402
from cspine.cli import Parser, run  # noqa: E402
from cspine.config import DatasetConfig, load  # noqa: E402
from cspine.paths import atomic  # noqa: E402

# A zip cannot hold an earlier date; a fixed one keeps the bytes equal.
DATE = (1980, 1, 1, 0, 0, 0)


def package_zip(source: Path) -> bytes:
    """The package cspine, without the phantom, as a zip file with sorted names and fixed dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(source.glob("cspine/**/*.py")):
            name = file.relative_to(source).as_posix()
            if not name.startswith("cspine/phantom/"):
                archive.writestr(zipfile.ZipInfo(name, DATE), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def build_kernel(source: Path, template: Path, kernel: Path) -> None:
    """Write the kernel: the template with the package in it."""
    package = base64.b64encode(package_zip(source)).decode()
    with atomic(kernel) as temporary:
        temporary.write_text(template.read_text().replace("@PACKAGE@", package))


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--config", default="configs/base.yaml")
    parser.add_argument("--weights", type=Path, default=HERE / "weights", help="folder of the dataset to upload")
    parser.add_argument("--kernel", type=Path, default=HERE / "inference" / "kernel.py")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="where the decoders' wheels are, or shall be put")
    args = parser.parse_with_overrides()
    config = load(DatasetConfig, args.config, args.overrides)
    bundle = from_runs(Path(config.paths.oof))
    wheels = collect_wheels(args.wheels, pinned_versions(HERE.parent / "requirements.txt")) if args.wheels else []
    write(bundle, args.weights, wheels)
    build_kernel(SOURCE, HERE / "inference" / "main.py", args.kernel)
    size_mb = sum(file.stat().st_size for file in args.weights.glob("*.safetensors")) / 1e6
    told = f"{size_mb:.1f} MB of weights" + (f", {len(wheels)} wheels" if wheels else "")
    print(f"{args.kernel}: {args.kernel.stat().st_size / 1e3:.0f} kB\n{args.weights}: {told}")


if __name__ == "__main__":
    run(main)
