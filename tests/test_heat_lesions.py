"""Lesions of a report without detectors: where a head that asks cells is hottest in the levels taken for fractured."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_level_maps import trained  # noqa: F401
from tiny_pipeline import ALONE, Prepared

from cspine.anatomy import TARGETS
from cspine.calibrations import frequency
from cspine.config import Augment, Config, Crop, Model
from cspine.ensembling import choose_members, fit_ensemble, write_ensemble
from cspine.report.reader import Reader
from cspine.training import train_fold

NOTE = "Lesions are where hot is hottest in the levels taken for fractured."


@pytest.mark.parametrize("cells", [True, False])
def test_lesions_lie_in_the_levels_taken_for_fractured(
    trained: tuple[Prepared, Config],  # noqa: F811
    cells: bool,
) -> None:
    prepared, config = trained
    name = "hot" if cells else "cold"
    head = replace(
        prepared.config(name, "fracture/sequence"),
        stage1="vol",
        augment=Augment(share=0.0),
        crop=Crop(slices=3, side_mm=32.0, least_share=0.0, threshold=0.2),
        model=Model(name="sequence_classifier", backbone="test_resnet", cells=cells),
        train=replace(config.train, epochs=1),
    )
    for fold in (0, 1):
        train_fold(head, fold, ALONE)
    write_ensemble(fit_ensemble(choose_members(prepared.oof, [name]), head), prepared.oof / "ensemble")
    file = prepared.oof / "ensemble" / "blend.json"
    settings = json.loads(file.read_text())
    settings["thresholds"] = {target: 0.0 if target == "C2" else 1.1 for target in TARGETS}
    file.write_text(json.dumps(settings))
    uid = prepared.data.uids[0]
    read = {
        detector: Reader(prepared.oof, None, torch.device("cpu"), detector).read(prepared.data.images(uid), uid)
        for detector in ("heat", None)
    }
    assert not len(read[None].lesions)
    assert NOTE not in read[None].notes
    # What moves the logit of a head without cells is no place to draw a box about.
    assert (NOTE in read["heat"].notes) == cells
    assert any(note.startswith("No lesions:") for note in read["heat"].notes) != cells
    assert bool(len(read["heat"].lesions)) == cells
    if cells:
        # The hottest plane's boxes have the probability of C2, the one level that is taken for fractured.
        score = read["heat"].lesions["score"].max()
        assert frequency(np.array(score)) == pytest.approx(read["heat"].levels[1].probability, abs=1e-6)
