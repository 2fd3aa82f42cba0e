"""A mapped array is the one that was saved, also after the file was replaced, and damage is told."""

from pathlib import Path

import numpy as np
import pytest
from conftest import damage

from cspine.data.mapped import map_array


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_it_is_what_was_saved_and_cannot_be_written(tmp_path: Path, dtype: type) -> None:
    values = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    mapped = map_array(tmp_path / "a.npy")
    assert mapped.dtype == values.dtype
    assert np.array_equal(mapped, values)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0, 0, 0, 0] = 1


def test_a_file_put_in_its_place_is_read_anew(tmp_path: Path) -> None:
    """Of the same size in bytes, as a volume of other sides may be."""
    file, other = tmp_path / "a.npy", tmp_path / "b.npy"
    np.save(file, np.zeros((2, 6), np.uint8))
    old = map_array(file)
    np.save(other, np.ones((3, 4), np.uint8))
    other.replace(file)
    assert np.array_equal(map_array(file), np.ones((3, 4)))
    assert np.array_equal(old, np.zeros((2, 6)))


@pytest.mark.parametrize("keep", [0.0, 0.03, 0.9])
def test_a_shortened_file_is_told(tmp_path: Path, keep: float) -> None:
    np.save(tmp_path / "a.npy", np.zeros((40, 40), np.uint8))
    damage(tmp_path / "a.npy", keep)
    with pytest.raises(ValueError, match=r"expected|shorter"):
        map_array(tmp_path / "a.npy")


def test_columns_first_and_objects_are_refused(tmp_path: Path) -> None:
    for name, values in (("f", np.asfortranarray(np.zeros((3, 4)))), ("o", np.array([None, {}]))):
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(ValueError, match="not an array of numbers in C order"):
            map_array(tmp_path / f"{name}.npy")


def test_thousands_of_calls_leave_no_file_open(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(4))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(300):
        map_array(tmp_path / "a.npy")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
