"""Package inference for an offline Kaggle submission.

    python kernels/build.py [paths.oof=oof]

Copies the weights of the ensemble's members into kernels/weights/ with a manifest, and writes the package into one
file, kernels/inference/kernel.py. Equal inputs give equal bytes.
"""

import base64
import io
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
sys.path.insert(0, str(SOURCE))

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
    args = parser.parse_with_overrides()
    config = load(DatasetConfig, args.config, args.overrides)
    write(from_runs(Path(config.paths.oof)), args.weights)
    build_kernel(SOURCE, HERE / "inference" / "main.py", args.kernel)
    size_mb = sum(file.stat().st_size for file in args.weights.glob("*.safetensors")) / 1e6
    print(f"{args.kernel}: {args.kernel.stat().st_size / 1e3:.0f} kB\n{args.weights}: {size_mb:.1f} MB of weights")


if __name__ == "__main__":
    run(main)
