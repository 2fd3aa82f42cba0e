import numpy as np
import pytest

from cspine.report.surfaces import CELL_MM, Surface, level_surfaces


def enclosed_mm3(surface: Surface, voxel_mm: float) -> float:
    """By the divergence theorem."""
    a, b, c = (surface.vertices[surface.faces[:, corner]].astype(float) for corner in range(3))
    return abs(float(np.einsum("ij,ij->", a, np.cross(b, c)))) / 6 * voxel_mm**3


def ball(radius_mm: float, voxel_mm: float, centre: tuple[float, ...], shape=(60, 60, 60)) -> np.ndarray:
    away = (np.indices(shape) - np.array(centre)[:, None, None, None]) * voxel_mm
    return np.linalg.norm(away, axis=0) <= radius_mm


@pytest.mark.parametrize("voxel_mm", [0.5, 1.0])
def test_a_ball_keeps_its_place_and_size(voxel_mm):
    centre = (30.0, 28.0, 25.0)
    bones = np.where(ball(11, voxel_mm, centre), 3, 0).astype(np.uint8)
    surfaces = level_surfaces(bones, voxel_mm)
    assert [surface is None for surface in surfaces] == [True, True, False, True, True, True, True]
    made = surfaces[2]
    assert made is not None
    assert np.abs(made.vertices.mean(axis=0) - centre).max() < 0.7
    radii = np.linalg.norm(made.vertices - centre, axis=1) * voxel_mm
    assert np.median(radii) == pytest.approx(11, abs=0.6)
    assert radii.std() < 0.4
    assert enclosed_mm3(made, voxel_mm) == pytest.approx(4 / 3 * np.pi * 11**3, rel=0.12)
    assert len(made.vertices) < 4 * np.pi * 11**2 / CELL_MM**2 * 2.5
    assert made.faces.max() < len(made.vertices)


def test_a_speck_is_not_drawn():
    bones = np.zeros((20, 20, 20), np.uint8)
    bones[2, 2, 2] = 1
    assert level_surfaces(bones, 1.0) == [None] * 7


def test_a_level_at_the_edge_of_the_scan_is_closed():
    bones = np.zeros((30, 40, 40), np.uint8)
    bones[:12, 10:30, 10:30] = 1
    made = level_surfaces(bones, 1.0)[0]
    assert made is not None
    assert enclosed_mm3(made, 1.0) == pytest.approx(12 * 20 * 20, rel=0.12)
    assert made.vertices[:, 0].min() == pytest.approx(-0.5, abs=0.6)


def test_a_thin_process_is_smoothed_and_not_thinned():
    bones = np.zeros((30, 30, 60), np.uint8)
    z, y, x = np.indices(bones.shape)
    bones[(np.hypot(z - 15, y - 15) <= 3) & (np.abs(x - 30) < 25)] = 6
    made = level_surfaces(bones, 1.0)[5]
    assert made is not None
    assert enclosed_mm3(made, 1.0) == pytest.approx(np.count_nonzero(bones), rel=0.15)
