"""The inference kernel: one file that carries the package, finds its weights and the data, and writes submission.csv.

`python kernels/build.py` puts the zipped package into PACKAGE and writes the result to kernel.py, which is what
`kaggle kernels push` uploads. There it runs with no arguments; elsewhere:

    python kernel.py --input DIR --output submission.csv
"""

import argparse
import base64
import io
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "@PACKAGE@"


def unpack(folder: str) -> None:
    """Put the package where this process and its workers import it from."""
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(PACKAGE))) as archive:
        archive.extractall(folder)
    sys.path.insert(0, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, default=Path("/kaggle/input"), help="holds the weights and the data")
    parser.add_argument("--output", type=Path, default=Path("submission.csv"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cspine-") as folder:
        unpack(folder)
        from cspine.cli import run
        from cspine.submission import submit_from_kaggle

        run(lambda: submit_from_kaggle(args.input, args.output))


# The workers that decode are started afresh and import this file: only the first process runs it.
if __name__ == "__main__":
    main()
