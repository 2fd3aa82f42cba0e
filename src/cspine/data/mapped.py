"""A .npy file mapped into memory, as `np.load(file, mmap_mode="r")` does, at a fraction of its cost per call."""

import mmap
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib import format as npy


def map_array(file: Path) -> np.ndarray:
    """The array in `file`, read-only and in C order; pages are read as they are touched.

    Raises ValueError where the file is no .npy file, is shorter than its header says, or is not in C order; OSError
    where it cannot be opened.
    """
    with file.open("rb", buffering=0) as opened:
        status = os.fstat(opened.fileno())
        shape, dtype, offset = _layout(file, status.st_ino, status.st_mtime_ns, status.st_size)
        content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    # Not np.memmap, whose every slice passes through Python.
    return np.frombuffer(content, dtype, int(np.prod(shape)), offset).reshape(shape)


@lru_cache(maxsize=4096)
def _layout(file: Path, _inode: int, _changed_ns: int, size: int) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and first byte of the array; the arguments tell a file from another put in its place."""
    with file.open("rb") as opened:
        major, _ = npy.read_magic(opened)
        read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        shape, fortran, dtype = read(opened)
        offset = opened.tell()
    if fortran or dtype.hasobject:
        raise ValueError(f"{file}: not an array of numbers in C order")
    if size < offset + dtype.itemsize * int(np.prod(shape)):
        raise ValueError(f"{file}: shorter than its header says")
    return shape, dtype, offset
