"""Pictures show the pipeline's own results, at their true size, and find a study by UID or folder."""

from pathlib import Path

import numpy as np
import pytest
from conftest import SPACING_MM, STEP_MM, TinyDataset
from simulated_runs import command

from cspine.anatomy import LEVELS
from cspine.config import Augment, Config, Data, Preprocess
from cspine.data.dicom import Study, load_study
from cspine.data.geometry import Geometry
from cspine.data.preprocess import preprocess
from cspine.errors import UserError
from cspine.phantom.fractures import kinds_of
from cspine.pictures.augment import draw_augment
from cspine.pictures.canvas import picture_file, study_folder
from cspine.pictures.fractures import RED, SHOWN, scanned, views
from cspine.pictures.levels import COLOURS, draw_levels
from cspine.pictures.planes import PIXEL_MM, PLANE_MM, draw_planes, planes
from cspine.pictures.preprocess import draw_preprocess
from cspine.tasks.base import StudyImages

SETTINGS = Preprocess(field_mm=48.0, size_px=24, kmeans_classes=3)


@pytest.fixture
def study(tiny: TinyDataset) -> Study:
    return load_study(tiny.images(tiny.uids[0]))


def config(**augment: float) -> Config:
    data = Data(image_size_px=24, neighbour_step_mm=3)
    return Config(name="a", task="fracture/slice", preprocess=SETTINGS, data=data, augment=Augment(**augment))


def test_each_step_is_drawn_at_its_true_size(study: Study) -> None:
    figure = draw_preprocess(study, SETTINGS, at=0.0)
    # A row of axial and a row of sagittal images, twice.
    axial, sagittal = (
        [axis for row in rows for axis in figure.axes[5 * row : 5 * row + 5]] for rows in ((0, 2), (1, 3))
    )
    titles = [axis.get_title(loc="left") for axis in axial]
    assert titles[0] == "HU, the whole slice"
    assert titles[1:4] == ["Window wide", "Window bone", "Window soft_tissue"]
    assert titles[-1] == "As configured"
    pictures = dict(zip(titles, [axis.images[0] for axis in axial], strict=True))
    assert np.array_equal(pictures["HU, the whole slice"].get_array(), study.volume[0])
    expected = preprocess(study.volume, study.geometry, SETTINGS)[0, 0]
    assert np.array_equal(pictures["As configured"].get_array(), expected)
    masked = np.ma.getmaskarray(pictures["Body by threshold"].get_array())
    assert np.array_equal(~masked, study.volume[0] > -300)
    assert sorted(np.unique(pictures["3 classes by K-means"].get_array())) == [0, 128, 255]
    assert pictures["HU, the whole slice"].get_extent() == [0, 32 * SPACING_MM, 32 * SPACING_MM, 0]
    assert sagittal[1].images[0].get_extent() == [0, 48, len(study.volume) * STEP_MM, 0]


def test_each_transform_is_drawn_and_the_box_follows(study: Study) -> None:
    figure = draw_augment(study, config(rotate_deg=0, shift_y=0, scale=0, shift_x=0.3))
    cells = {axis.get_title(loc="left"): axis for axis in figure.axes if axis.get_title(loc="left")}
    assert set(cells) > {"original", "horizontal_flip", "distortion", "cut_out", "mixup", "sample 1", "sample 6"}
    assert cells["shift_x"].get_title(loc="right") == "0.3"
    assert cells["shift_y"].get_title(loc="right") == "0.1 here, else off"
    assert cells["noise"].get_title(loc="right") == "0.1 here, else off"
    before, after = (cells[name].patches[0].get_bbox() for name in ("original", "shift_x"))
    assert abs(after.x0 - before.x0) > 1
    assert after.y0 == pytest.approx(before.y0, abs=0.01)
    bright = np.argwhere(np.asarray(cells["shift_x"].images[0].get_array()) > 100)
    assert abs(bright[:, 1].mean() - (after.x0 + after.x1) / 2) < 1


@pytest.mark.parametrize("what", ["preprocess", "augment"])
def test_the_command_writes_a_png(
    what: str, tiny: TinyDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = command("src/picture.py", monkeypatch, capsys)
    words = [what, "--study", tiny.uids[1], f"data.root={tiny.root}", f"paths.oof={tmp_path}", "preprocess.field_mm=48"]
    done = picture(*words, "data.image_size_px=32")
    file = tmp_path / "pictures" / f"{what}-{tiny.uids[1]}.png"
    assert (done.returncode, done.stdout) == (0, f"{file}\n")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert picture(*words, "--at", "2").returncode == 2
    assert "did you mean 'bone'" in picture(*words, "preprocess.windows=[bon]").stderr


def test_a_study_is_a_uid_or_a_folder(tiny: TinyDataset) -> None:
    assert study_folder(tiny.config, tiny.uids[2]) == tiny.images(tiny.uids[2])
    assert study_folder(tiny.config, str(tiny.images(tiny.uids[0]))) == tiny.images(tiny.uids[0])
    with pytest.raises(UserError, match=r"neither a folder nor a study.*did you mean '1\.2\.826"):
        study_folder(tiny.config, tiny.uids[0] + "9")
    with pytest.raises(UserError, match=r"ends in \.png"):
        picture_file(tiny.config, Path("x.jpg"), "augment", Path("y"))


def scan_with_a_spine(pixel_mm: float, step_mm: float) -> Study:
    """A body 120 mm wide with a column of bone 16 mm wide, 40 mm behind the front of a field of 100 mm by 160 mm."""
    y, x = np.mgrid[0:100:pixel_mm, 0:160:pixel_mm]
    slice_hu = np.where((x > 20) & (x < 140), 50, -1000)
    slice_hu[(abs(x - 90) < 8) & (abs(y - 40) < 8)] = 700
    volume = np.repeat(slice_hu[None].astype(np.int16), round(90 / step_mm), 0)
    z = -step_mm * np.arange(len(volume))
    positions = np.stack([np.zeros_like(z), np.zeros_like(z), z], 1)
    numbers = np.arange(1, len(volume) + 1)
    geometry = Geometry(numbers, positions, np.eye(3)[0], np.eye(3)[1], (pixel_mm, pixel_mm), step_mm)
    return Study(volume, geometry, ())


@pytest.mark.parametrize(("pixel_mm", "step_mm"), [(0.5, 1.0), (1.0, 0.6)])
def test_planes_show_the_spine_at_the_same_scale_whatever_the_sampling(pixel_mm: float, step_mm: float) -> None:
    axial, sagittal, coronal = planes(scan_with_a_spine(pixel_mm, step_mm), [10])
    assert axial.shape == sagittal.shape == coronal.shape == tuple(round(side / PIXEL_MM) for side in PLANE_MM)
    columns = np.nonzero(axial > 400)[1]
    assert np.ptp(columns) * PIXEL_MM == pytest.approx(16, abs=2 * pixel_mm)
    assert columns.mean() == pytest.approx(axial.shape[1] / 2, abs=2 / PIXEL_MM)
    # The reformats end with the scan: bone from 90 mm above the lower edge down to it.
    for plane in (sagittal, coronal):
        assert np.nonzero(plane > 400)[0].min() * PIXEL_MM == pytest.approx(PLANE_MM[0] - 90, abs=2)
        assert (plane[-3] > 400).any()
        assert plane[0, 0] == -1000


def test_planes_draw_a_row_a_study_at_the_same_places() -> None:
    studies = [("a", scan_with_a_spine(1.0, 1.0)), ("b", scan_with_a_spine(1.0, 0.6))]
    titles = [axis.get_title(loc="left") for axis in draw_planes(studies, [0.0, 1.0]).axes]
    assert titles[:2] == ["a: slice 1 of 90", "slice 90 of 90"]
    assert titles[4:6] == ["b: slice 1 of 150", "slice 150 of 150"]


def test_every_type_of_fracture_is_shown_with_its_voxels_in_red() -> None:
    drawn = {(level, kind) for level in LEVELS for kind in kinds_of(level)}
    assert {kind for _, kind in drawn} == set(SHOWN)
    assert {(level, kind) for kind, level in SHOWN.items()} <= drawn
    fracture, hu, truth = scanned("spinous", 6, np.random.default_rng(0))
    assert fracture.kind == "spinous"
    axial, marked, _, _ = views(hu, truth)
    red = (marked == RED).all(-1)
    assert red.sum() == (truth > 0).sum((1, 2)).max()
    assert not (axial == RED).all(-1).any()
    assert (axial[~red] == marked[~red]).all()


def test_levels_are_drawn_at_their_extents_and_only_where_found() -> None:
    z = 100.0 - 2.0 * np.arange(60)
    presence = np.zeros((60, 7))
    for level in range(1, 5):
        presence[10 * level : 10 * level + 8, level] = 0.9
    images = StudyImages(np.zeros((60, 1, 32, 32), np.uint8), z, 2.0)
    sagittal, curves = draw_levels("a study", images, presence, 180.0).axes
    drawn = {line.get_color(): sorted(line.get_ydata()) for line in sagittal.lines}
    assert drawn == {COLOURS[level]: [z[10 * level + 7], z[10 * level]] for level in range(1, 5)}
    assert [text.get_text() for text in sagittal.texts] == list(LEVELS[1:5])
    assert len(curves.lines) == 7
    assert sagittal.images[0].get_extent() == [0, 180.0, z[-1] - 1, z[0] + 1]
