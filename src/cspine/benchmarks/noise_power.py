"""The noise power spectrum of flat parts of a CT, from many small squares.

After Siewerdsen, Cunningham, Jaffray, A framework for noise-power spectrum analysis of multidimensional images, Med
Phys 29(11), 2002: squared Fourier transforms of squares less their plane, averaged, then averaged over rings.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SQUARE_MM = 10.0
QUIET_SHARE = 0.25  # of the squares: the others hold seams and vessels
FEWEST_PX = 8  # along the side of a square; fewer tell nothing of frequencies
RING = 0.1  # cycles/mm


@dataclass(frozen=True)
class NoisePower:
    """Deviation in HU, and the power per area of the frequency plane, the greatest 1.

    `power` is for rings of RING cycles/mm about RING, 2 RING and so on, as far as the pixels resolve.
    """

    sd_hu: float
    power: np.ndarray
    squares: int

    @property
    def centres(self) -> np.ndarray:
        return RING * (np.arange(len(self.power)) + 1)

    @property
    def peak(self) -> float:
        """The frequency in cycles/mm of the greatest power; NaN without squares."""
        return float(self.centres[np.argmax(self.power)]) if self.squares else np.nan

    @property
    def mean(self) -> float:
        """The mean frequency in cycles/mm of the radial spectrum; NaN without squares."""
        return float((self.centres * self.power).sum() / self.power.sum()) if self.squares else np.nan

    def at(self, frequency: float) -> float | None:
        """The power in the ring of a frequency in cycles/mm; None beyond what the pixels resolve."""
        ring = round(frequency / RING) - 1
        return float(self.power[ring]) if ring < len(self.power) else None


def noise_power(images: Iterable[tuple[np.ndarray, np.ndarray]], step_mm: tuple[float, float]) -> NoisePower:
    """Noise of slices (y, x) in HU inside their masks; pixel size (y, x) in mm. Only whole squares count."""
    shape = (round(SQUARE_MM / step_mm[0]), round(SQUARE_MM / step_mm[1]))
    squares = [flattened(square) for image, mask in images for square in _squares(image, mask, shape)]
    if not squares or min(shape) < FEWEST_PX:
        return NoisePower(np.nan, np.zeros(0), 0)
    squares.sort(key=lambda square: float(square.var()))
    quiet = np.stack(squares[: max(1, round(QUIET_SHARE * len(squares)))])
    # Without a window, power leaks to frequencies that have little.
    window = np.hanning(shape[0] + 1)[:-1, None] * np.hanning(shape[1] + 1)[:-1]
    spectrum = (np.abs(np.fft.fft2(quiet * window)) ** 2).mean(0)
    fy, fx = np.fft.fftfreq(shape[0], step_mm[0]), np.fft.fftfreq(shape[1], step_mm[1])
    rings = np.rint(np.hypot(fy[:, None], fx) / RING).astype(int).ravel()
    # No further than to the pixels' own limit, so that every ring is whole; the innermost holds the mean alone.
    last = int(0.5 / max(step_mm) / RING)
    power = np.bincount(rings, spectrum.ravel())[1 : last + 1] / np.bincount(rings)[1 : last + 1]
    return NoisePower(float(quiet.std()), power / power.max(), len(quiet))


def flattened(square: np.ndarray) -> np.ndarray:
    """A square (y, x) less the plane fitted to it."""
    rows, columns = square.shape
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
    flat = square - square.mean(dtype=float)
    return flat - y * (flat * y).sum() / (columns * (y**2).sum()) - x * (flat * x).sum() / (rows * (x**2).sum())


def _squares(image: np.ndarray, mask: np.ndarray, shape: tuple[int, int]) -> Iterable[np.ndarray]:
    """The squares of a grid that lie wholly in the mask."""
    for j in range(0, image.shape[0] - shape[0] + 1, shape[0] // 2):
        for i in range(0, image.shape[1] - shape[1] + 1, shape[1] // 2):
            if mask[j : j + shape[0], i : i + shape[1]].all():
                yield image[j : j + shape[0], i : i + shape[1]]
