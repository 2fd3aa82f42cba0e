import numpy as np
import pytest

from cspine.data.geometry import Geometry, number_files, order_slices


def make_geometry(z_mm=(30.0, 27.0, 24.0, 21.0), row=(1.0, 0, 0), column=(0, 1.0, 0), shear=0.0) -> Geometry:
    positions = [(-10.0, -20.0 + shear * index, z) for index, z in enumerate(z_mm)]
    return Geometry(np.arange(1, len(z_mm) + 1), np.array(positions), np.array(row), np.array(column), (0.5, 0.25), 4.0)


def test_order_is_cranial_to_caudal_whatever_the_order_of_the_files():
    positions = [(0, 0, z) for z in (5.0, 20.0, -3.0, 11.0)]
    assert order_slices(positions, (1, 0, 0), (0, 1, 0)).tolist() == [1, 3, 0, 2]
    # Prone patients have the column direction reversed, which turns the cross product over.
    assert order_slices(positions, (1, 0, 0), (0, -1, 0)).tolist() == [1, 3, 0, 2]


def test_z_falls_and_spacing_ignores_thickness():
    geometry = make_geometry()
    assert geometry.z_mm.tolist() == [30, 27, 24, 21]
    assert geometry.spacing_mm == 3.0
    assert geometry.normal.tolist() == [0, 0, 1]


def test_voxel_to_lps_and_affine_agree_on_an_even_stack():
    geometry = make_geometry(shear=1.5)
    expected = geometry.affine @ [7, 5, 2, 1]
    assert np.allclose(geometry.voxel_to_lps(2, 5, 7), expected[:3])
    assert np.allclose(expected[:3], [-10 + 7 * 0.25, -20 + 2 * 1.5 + 5 * 0.5, 24])


def test_voxel_to_lps_follows_uneven_spacing_and_takes_arrays():
    geometry = make_geometry(z_mm=(30.0, 27.0, 10.0))
    points = geometry.voxel_to_lps(np.array([1, 1.5, 2]), 0, 0)
    assert points.shape == (3, 3)
    assert points[:, 2].tolist() == [27, 18.5, 10]


def test_tilted_slices_are_measured_along_their_normal():
    tilt = np.radians(20)
    geometry = make_geometry(column=(0, np.cos(tilt), -np.sin(tilt)))
    assert geometry.spacing_mm == pytest.approx(3 * np.cos(tilt))
    assert (np.diff(geometry.z_mm) < 0).all()


def test_json_gives_the_same_geometry_back():
    geometry = make_geometry(z_mm=(0.1 + 0.2, 0.1, -1 / 3))
    again = Geometry.from_json(geometry.to_json())
    for name in ("file_numbers", "positions_mm", "row_direction", "column_direction"):
        assert np.array_equal(getattr(again, name), getattr(geometry, name))
    assert (again.pixel_spacing_mm, again.thickness_mm) == (geometry.pixel_spacing_mm, geometry.thickness_mm)


@pytest.mark.parametrize(
    ("names", "instances", "expected"),
    [
        (["2.dcm", "10.dcm"], [7, 8], [2, 10]),
        (["vhm.1043.dcm", "vhm.1042.dcm"], [1043, 1042], [1043, 1042]),
        (["a.dcm", "b.dcm"], [5, 5], [1, 2]),
        (["a.dcm", "b.dcm"], [None, 5], [1, 2]),
        (["3.dcm", "b.dcm"], [5, 3], [5, 3]),
    ],
)
def test_file_numbers_come_from_one_rule(tmp_path, names, instances, expected):
    assert number_files([tmp_path / name for name in names], instances) == expected
