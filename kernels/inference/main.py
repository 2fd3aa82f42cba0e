"""The inference kernel: one file that carries the package, finds its weights and the data, and writes submission.csv.

`python kernels/build.py` puts the zipped package into PACKAGE and writes the result to kernel.py, which is what
`kaggle kernels push` uploads. There it runs with no arguments; elsewhere:

    python kernel.py --input DIR --output submission.csv
"""

import argparse
import base64
import io
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

STARTED = time.monotonic()

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
    parser.add_argument("--hours", type=float, default=8.5, help="when it must be done; Kaggle's limit is 9")
    parser.add_argument("--study-seconds", type=float, default=900, help="that reading one study may take")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cspine-", ignore_cleanup_errors=True) as folder:
        unpack(folder)
        from cspine.errors import UserError
        from cspine.offline import Request, run_offline

        request = Request(args.input, args.output, args.hours, args.study_seconds, started=STARTED)
        try:
            status = run_offline(request)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: a disk or a GPU that hangs must not hold up a submission that is written.
    os._exit(status)


# The workers that decode are started afresh and import this file: only the first process runs it.
if __name__ == "__main__":
    main()
