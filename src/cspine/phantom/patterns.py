"""The clinical patterns of fracture, each a method that says where a vertebra cracks and how its pieces move.

Places are in mm of the vertebra's frame (x left, y posterior, z up) and anchored to its dimensions. They are written
for the left side; `side` puts them on the right (-1), the left (1) or both (0).
"""

import numpy as np

from cspine.phantom.cracks import CRACK_SIZE, CRUSH, PLANE
from cspine.phantom.solids import Vector
from cspine.phantom.vertebrae import Size

HAIRLINE_MM = 0.7  # pieces under such a gap hold together
NARROW_MM = 1.2
UNMOVED_SHARE = 0.3
INCOMPLETE_SHARE = 0.25


class Pattern:
    """One fracture in the making; its methods fill `rows` (see `cracks`) and `displacement_mm`."""

    def __init__(self, size: Size, pitch_mm: float, gap_mm: float, rng: np.random.Generator) -> None:
        self.size, self.pitch, self.gap, self.rng = size, pitch_mm, gap_mm, rng
        self.side = int(rng.choice([-1, 1]))
        self.half_width = (size.top_width + size.bottom_width) / 4
        self.scale = size.canal_width / 28.0 if size.name == "C1" else 1.0
        self.rows: list[np.ndarray] = []
        self.displacement_mm = 0.0

    def anterior_arch(self) -> None:
        """One break beside the anterior tubercle."""
        x = self.rng.uniform(2.5, 8.0)
        self._crack((x, -16.5, 0), (1, 0.2, 0.2), 9, reach=0.3, may_end=True)

    def posterior_arch(self) -> None:
        """Breaks behind the lateral masses, mostly on both sides (hyperextension)."""
        both = self.rng.random() < 0.7
        shift = (0, self._move(0.8, 3), -self._move(0.5, 2))
        for side in (self.side, -self.side) if both else (self.side,):
            y = self.rng.uniform(8.5, 13.0)
            self._crack((14.8, y, 0), (-0.45, 0.9, 0.1), 9, reach=0.3, shift=shift, side=side, may_end=not both)

    def jefferson(self) -> None:
        """Two to four breaks of the ring, the lateral masses driven outwards (axial load)."""
        both = self.rng.random() < 0.6
        spread = (self._move(1.8, 4.0, least=0.8), 0.0, 0.0)
        x = self.rng.uniform(3.0, 8.0)
        front = {"centre": (19.0, -4.0, 0.0), "shift": spread, "fade": 10.0, "side": 0 if both else self.side}
        self._crack((x, -16.5, 0), (1, 0.2, 0.15), 25, **front)  # type: ignore[arg-type]
        for side in (1, -1) if both or self.rng.random() < 0.6 else (self.side,):
            y = self.rng.uniform(9.0, 14.5)
            self._crack((14.3, y, 0), (-0.5, 0.85, 0.1), 9, reach=0.2, shift=(0, 0, 0), side=side)

    def lateral_mass(self) -> None:
        """A split of one lateral mass, sagittal or oblique, often into the transverse foramen."""
        point = (self.rng.uniform(15.5, 19.0), -4.0, 0.0)
        self._crack(
            point, (0.85, self.rng.uniform(-0.1, 0.6), 0.1), 14, reach=0.2, shift=self._along(1.0), may_end=True
        )

    def dens_tip(self) -> None:
        """Dens type I: an oblique avulsion of the tip."""
        z = self.size.height / 2 + self.rng.uniform(9.5, 11.5)
        shift = (self._move(0.5, 1.5), 0.0, self._move(0.8, 2.5))
        self._crack((1.5, 0, z), (0.55, 0, 0.8), 9, reach=0.5, shift=shift)

    def dens(self) -> None:
        """Dens type II: through its base; the dens slips and tilts, backwards more often than forwards in the old."""
        z = self.size.height / 2 + self.rng.uniform(1.5, 5.0)
        way = 1.0 if self.rng.random() < 0.6 else -1.0
        shift = (self.rng.normal(0, 0.4), way * self._move(1.2, 4.0), -abs(self.rng.normal(0, 0.3)))
        turn = (-way * self._turn(0.09), self.rng.normal(0, 0.02), 0.0)
        normal = (self.rng.normal(0, 0.12), self.rng.uniform(-0.45, 0.45), 1.0)
        self._crack((0, 0, z), normal, 13, centre=(0, 0, z + 7.0), shift=shift, turn=turn)

    def dens_base(self) -> None:
        """Dens type III: down into the body of C2, between its upper joint surfaces or through them."""
        z = self.size.height / 2 - self.rng.uniform(3.5, 6.5)
        way = 1.0 if self.rng.random() < 0.4 else -1.0
        shift = (self.rng.normal(0, 0.3), way * self._move(0.9, 3.5), -self._move(0.4, 1.5))
        turn = (-way * self._turn(0.07), self.rng.normal(0, 0.02), 0.0)
        normal = (self.rng.normal(0, 0.15), self.rng.uniform(-0.4, 0.05), 1.0)
        self._crack((0, 0, z), normal, 24, centre=(0, -2, z + 10.0), shift=shift, turn=turn, fade=5.0, rough=0.9)

    def hangman(self) -> None:
        """Both partes interarticulares; the body of C2 slides and tips forwards on C3."""
        x, y = self.size.pillar
        normal = (-0.2, -0.9, self.rng.uniform(0.0, 0.25))
        point = (x - 1.5, y - 6.3 + self.rng.uniform(-2, 1.5), -1.0)
        shift = (0.0, -self._move(2.2, 4.5, least=0.4), -self._move(0.3, 1.0))
        turn = (self._turn(0.05), 0.0, 0.0)
        self._crack(point, normal, 24, centre=(6, 1, -3), shift=shift, turn=turn, fade=10.0, side=0, rough=1.0)

    def teardrop(self) -> None:
        """The lower front corner: a small avulsion (extension), or a large one with the body split (flexion)."""
        flexion = self.size.name != "C2" and self.rng.random() < 0.4
        low = -self.size.height / 2 - (1.0 if self.size.name == "C2" else 0.0)
        deep = self.rng.uniform(5.0, 7.0) if flexion else self.rng.uniform(3.0, 5.0)
        point = (self.rng.uniform(-2, 2), -self.size.half_depth + 0.5 * deep, low + 0.5 * deep)
        normal = (0.12, -self.rng.uniform(0.65, 0.85), -self.rng.uniform(0.5, 0.75))
        shift = (0.0, -self._move(1.2, 3.5, least=0.4), -self._move(0.6, 2.0))
        self._crack(point, normal, 11, reach=0.4, shift=shift, turn=(self._turn(0.12), 0, 0))
        if flexion:
            self._split()

    def lamina(self) -> None:
        """Through one lamina, steep, its inner piece pressed a little towards the canal."""
        x, y = self.size.pillar
        t = self.rng.uniform(0.25, 0.7)
        point = ((x - 1.5) * (1 - t), y + 2.5 + t * (self.size.lamina_y - y - 1.5), -1.0)
        shift = (0.0, -self._move(0.6, 2.0), self.rng.normal(0, 0.3))
        normal = (-0.85, 0.5, self.rng.uniform(-0.4, 0.4))
        self._crack(point, normal, 8.5, reach=0.3, shift=shift, may_end=True)

    def transverse(self) -> None:
        """Through the transverse process, mostly through its foramen."""
        x = 17.5 if self.size.name == "C2" else self.half_width + 5.2
        point = (x + self.rng.uniform(-1.5, 2.0), 0.5, -1.5)
        normal = (1.0, self.rng.uniform(-0.4, 0.3), 0.1)
        self._crack(point, normal, 10.5, reach=0.4, shift=self._along(0.7, 2.0), may_end=True)

    def facet(self) -> None:
        """Across an articular pillar: the upper joint process, or its tip, slips forwards and up."""
        x, y = self.size.pillar
        z = self.rng.uniform(-0.12, 0.25) * self.pitch
        shift = (0.0, -self._move(1.0, 3.5), self._move(0.4, 2.0))
        normal = (0.15, self.rng.uniform(-0.4, 0.5), 0.9)
        turn = (self._turn(0.08), 0.0, self.rng.normal(0, 0.04))
        # Behind the ball's front edge lie the vessels' foramen and the body, which stay.
        self._crack((x, y, z), normal, 11, centre=(x + 1.0, y + 1.5, z + 4.0), shift=shift, turn=turn, may_end=True)

    def pedicle(self) -> None:
        """Between body and pillar, into the transverse foramen."""
        point = (self.half_width * 0.95 + self.rng.uniform(-0.5, 2.0), self.size.half_depth - 1.0, 0.5)
        self._crack(point, (0.75, 0.65, 0.1), 8.5, reach=0.1, shift=self._along(0.4, 1.2), may_end=True)

    def spinous(self) -> None:
        """Through the spinous process; the muscles pull its end downwards (clay shoveller's)."""
        drop, length = self.size.spinous_drop, self.size.spinous
        along = self.rng.uniform(0.25, 0.65) * length
        point = (0.0, self.size.lamina_y + along, -1.0 - drop * along)
        normal = (self.rng.uniform(-0.3, 0.3), 1.0, -drop + self.rng.uniform(-0.5, 0.5))
        shift = (self.rng.normal(0, 0.4), self._move(0.4, 1.5), -self._move(1.4, 5.0))
        self._crack(point, normal, 0.72 * length + 5.0, reach=0.6, shift=shift, turn=(-self._turn(0.05), 0, 0))

    def compression(self) -> None:
        """The upper end plate pressed in, most in front: a wedge with a dense band."""
        self._crush(self.rng.uniform(0.15, 0.45), back=self.rng.uniform(0.05, 0.3))

    def burst(self) -> None:
        """The body loses height and splits; its back edge is driven into the canal."""
        self._crush(self.rng.uniform(0.1, 0.3), back=self.rng.uniform(0.5, 0.8))
        self._split()
        deep, half = self.size.half_depth, self.size.height / 2
        back = self.rng.uniform(2.5, 4.5)
        shift = (self.rng.normal(0, 0.4), self._move(2.5, 5.5, least=1.5), 0.0)
        point = (self.rng.uniform(-1.5, 1.5), deep - back, 0.15 * half)
        normal = (0.1, 1.0, self.rng.uniform(0.15, 0.6))
        self._crack(point, normal, 9.0, centre=(0, deep + 1.0, 0.35 * half), shift=shift, turn=(self._turn(0.1), 0, 0))
        if self.rng.random() < 0.5:
            front = (self.rng.uniform(-2, 2), -0.45 * deep, 0.2 * half)
            self._crack(
                front, (0.2, -1.0, self.rng.uniform(-0.4, 0.4)), 10, reach=0.4, shift=(0, -self._move(1, 2.5), 0)
            )

    def chip(self) -> None:
        """A small extra piece at the first crack, broken across it (comminution)."""
        crack = next(row for row in self.rows if row[0] == PLANE)
        across = np.cross(crack[4:7], self.rng.normal(0, 1, 3))
        across /= np.linalg.norm(across)
        radius = self.rng.uniform(4.0, 6.0)
        # Mostly beyond the crack, so that it ends there.
        aside = self.rng.uniform(-2.5, 2.5) * across
        point, centre = (
            (crack[1:4] + far * radius * crack[4:7] + aside) / (self.scale, self.scale, 1) for far in (0.5, 0.8)
        )
        shift = tuple(self.rng.uniform(0.3, 1.2) * across)
        side = 0 if crack[21] else 1
        self._crack(tuple(point), tuple(across), radius, centre=tuple(centre), shift=shift, side=side)
        self._narrow()

    def _split(self) -> None:
        """A sagittal break of the body, held together behind by the arch."""
        x = self.rng.uniform(-0.3, 0.3) * self.half_width
        normal = (1.0, self.rng.uniform(-0.35, 0.35), self.rng.uniform(-0.25, 0.25))
        shift = (self.rng.uniform(0.0, 0.5), 0.0, 0.0)
        self._crack((x, 0, 0), normal, 13.0, centre=(0, -2.5, 0), shift=shift, side=1)
        self._narrow()

    def _narrow(self) -> None:
        """A crack between pieces that still hold opens less than the one that freed them."""
        self.rows[-1][7] = min(0.6 * self.gap, NARROW_MM)

    def _move(self, usual_mm: float, most_mm: float, least: float = 0.0) -> float:
        """How far a piece moved; not at all in a share, and little where the gap is a hairline."""
        far = 0.0 if self.rng.random() < UNMOVED_SHARE else self.rng.gamma(2.0, usual_mm / 2.0)
        return float(np.clip(far * min(1.0, self.gap / HAIRLINE_MM), least, most_mm))

    def _along(self, usual_mm: float, most_mm: float = 3.0) -> Vector:
        x, y, z = self.rng.normal(0, 1, 3) * self._move(usual_mm, most_mm) / np.sqrt(3.0)
        return float(x), float(y), float(z)

    def _turn(self, usual_rad: float) -> float:
        return float(min(self._move(usual_rad, 3 * usual_rad), 0.3))

    def _crush(self, lost: float, back: float) -> None:
        row = np.zeros(CRACK_SIZE)
        half = self.size.height / 2
        row[[0, 1, 2, 3, 6]] = CRUSH, -half, half, lost, 1.0
        row[8:11] = self.half_width + 1.0, self.size.half_depth, back
        row[19] = self.rng.uniform(0.5, 0.9)
        self.rows.append(row)
        self.displacement_mm = max(self.displacement_mm, lost * self.size.height)

    def _crack(
        self,
        point: Vector,
        normal: Vector,
        radius: float,
        *,
        reach: float = 0.0,
        centre: Vector | None = None,
        shift: Vector = (0.0, 0.0, 0.0),
        turn: Vector = (0.0, 0.0, 0.0),
        fade: float = 3.0,
        rough: float | None = None,
        side: int | None = None,
        may_end: bool = False,
    ) -> None:
        """Add a PLANE row; without `centre` its ball lies `reach` radii towards the fragment."""
        side = self.side if side is None else side
        scale = self.scale
        n = np.asarray(normal, float) + self.rng.normal(0, 0.08, 3)
        n /= np.linalg.norm(n)
        row = np.zeros(CRACK_SIZE)
        row[0], row[4:7], row[7] = PLANE, n, self.gap
        row[1:4] = np.asarray(point) * (scale, scale, 1)
        row[8:11], row[11:14] = shift, turn
        row[14:17] = row[1:4] + reach * radius * n if centre is None else np.asarray(centre) * (scale, scale, 1)
        row[17], row[18] = radius * scale, fade
        row[19] = self.rng.uniform(0.35, 0.85) if rough is None else rough
        row[21] = side == 0
        self._open(row, ends=may_end and self.rng.random() < INCOMPLETE_SHARE)
        if side < 0:
            # Mirrored in x; a turn is a pseudo-vector.
            row[[1, 4, 8, 12, 13, 14, 22]] *= -1
        self.displacement_mm = max(self.displacement_mm, float(np.linalg.norm(row[8:11])))
        self.rows.append(row)

    def _open(self, row: np.ndarray, ends: bool) -> None:
        """Let the gap run from open at one edge to a hairline at the other, or to its end within the bone."""
        along = np.cross(row[4:7], self.rng.normal(0, 1, 3))
        steep = 0.1 if ends else self.rng.uniform(0.02, 0.06)
        row[22:25] = steep * along / np.linalg.norm(along)
        row[25] = 0.0 if ends else 0.15
        if ends:
            row[8:14] = 0.0
