"""Arrays and HU as text for a page: 8-bit codes, differences along the rows, zlib, base64."""

import base64
import zlib

import numpy as np

from cspine.report.surfaces import Surface

# HU at these codes, linear between: a step is 4 HU in soft tissue, 16 in bone and 34 in air, and the bone window shows
# 94 greys and that of soft tissue 105.
KNOTS_HU, KNOTS_CODE = (-1024.0, -200.0, 280.0, 2200.0), (0.0, 24.0, 136.0, 255.0)
# Vertices in 64ths of a voxel.
VERTEX_STEPS = 64


def hu_to_codes(volume_hu: np.ndarray) -> np.ndarray:
    """uint8 codes of HU."""
    lowest = round(KNOTS_HU[0])
    table = np.rint(np.interp(np.arange(lowest, round(KNOTS_HU[-1]) + 1), KNOTS_HU, KNOTS_CODE)).astype(np.uint8)
    return table[volume_hu.clip(lowest, round(KNOTS_HU[-1])) - lowest]


def code_hu() -> list[int]:
    """The HU of each of the 256 codes."""
    return np.rint(np.interp(np.arange(256), KNOTS_CODE, KNOTS_HU)).astype(int).tolist()


def pack(values: np.ndarray) -> str:
    """A uint8 array as text; each row holds differences from its left neighbour, modulo 256."""
    differences = np.diff(values, axis=-1, prepend=np.uint8(0))
    squeezer = zlib.compressobj(6, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
    return base64.b64encode(squeezer.compress(differences.tobytes()) + squeezer.flush()).decode()


def pack_surface(surface: Surface) -> str:
    """Vertices (x, y, z, uint16 in 64ths of a voxel from -4) and faces (uint16) as one text, little-endian.

    The count of vertices comes first, as uint32. Raises ValueError for more vertices than uint16 can number.
    """
    if len(surface.vertices) > 0xFFFF:
        raise ValueError(f"{len(surface.vertices)} vertices; at most 65535 can be packed")
    vertices = np.rint((surface.vertices[:, ::-1] + 4) * VERTEX_STEPS).clip(0, 0xFFFF).astype("<u2")
    count = np.array([len(vertices)], "<u4")
    raw = count.tobytes() + vertices.tobytes() + surface.faces.astype("<u2").tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()
