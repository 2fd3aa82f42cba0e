"""report.html in a real browser: no error, nothing asked of the network, and the slider's numbers are the measures.

Set REPORT_SCREENSHOT=FILE.png to keep a picture of the whole page.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, MISSING, Browser, browser
from simulated_runs import SimulatedRuns

from cspine.ensembling import Ensemble, Options, choose_members, fit_ensemble
from cspine.metrics import accuracy, f1, sensitivity, specificity
from cspine.operating import predictive_values
from cspine.scorecard import write_report

pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=MISSING)
MOVE = """const slider = document.getElementById("threshold"); slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));"""
CHOOSE = """const list = document.getElementById(arguments[0]); list.value = arguments[1];
list.dispatchEvent(new Event("change")); list.dispatchEvent(new Event("input"));"""


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    runs = SimulatedRuns(tmp_path_factory.mktemp("runs"), studies=150)
    runs.add_fracture("good", 0.6, seed=1)
    runs.add_fracture("fair", 0.3, seed=2)
    return fit_ensemble(choose_members(runs.oof, []), runs.config, Options(rule="sensitivity:0.9"))


@pytest.fixture(scope="module")
def page(ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("page")
    with browser(folder) as session:
        session.open(write_report(ensemble, folder / "report.html"))
        yield session


def test_no_error_and_no_request(page: Browser) -> None:
    assert page.run("return document.title") == "Ensemble on phantom"
    asked = page.requests()
    assert any(address.endswith("/report.html") for address in asked)
    assert [address for address in asked if not address.startswith(("file://", "data:"))] == []
    assert page.log("browser") == []
    # The page is not wider than the window, nor any figure broken.
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    assert page.run("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_it_opens_at_the_rule_asked_for(page: Browser, ensemble: Ensemble) -> None:
    assert page.text("at") == f"{ensemble.thresholds[0]:.3f}"
    found = ensemble.blended.nested[:, 0] >= ensemble.thresholds[0]
    assert page.text("sensitivity") == f"{sensitivity(ensemble.data.labels[:, 0], found):.3f}"


@pytest.mark.parametrize(("target", "column"), [("patient_overall", 0), ("C2", 2), ("C7", 7)])
@pytest.mark.parametrize("cut", [0.2, 0.5])
def test_moving_the_slider_gives_the_measures(
    page: Browser, ensemble: Ensemble, target: str, column: int, cut: float
) -> None:
    page.run(CHOOSE, "target", target)
    page.run(CHOOSE, "prevalence", "0.07")
    page.run(MOVE, cut)
    truth, found = ensemble.data.labels[:, column], ensemble.blended.nested[:, column] >= cut
    found_share, left_alone = sensitivity(truth, found), specificity(truth, found)
    expected = dict(zip(("ppv", "npv"), predictive_values(found_share, left_alone, 0.07), strict=True))
    expected |= {"sensitivity": found_share, "specificity": left_alone}
    expected |= {"f1": f1(truth, found), "accuracy": accuracy(truth, found)}
    told = {name: page.text(name) for name in expected}
    assert told == {name: "\u2013" if value is None else f"{value:.3f}" for name, value in expected.items()}
    assert f"Of {truth.sum()} fractured {(found & (truth == 1)).sum()} found" in page.text("counts")


def test_a_rule_and_the_prevalence_here(page: Browser, ensemble: Ensemble) -> None:
    page.run(CHOOSE, "target", "C6")
    page.run(CHOOSE, "rule", "specificity:0.9")
    truth, nested = ensemble.data.labels[:, 6], ensemble.blended.nested[:, 6]
    assert float(page.text("specificity")) >= 0.9
    page.run("document.getElementById('here').click()")
    cut = float(page.run("return document.getElementById('threshold').value"))
    assert page.text("ppv") == f"{truth[nested >= cut].mean():.3f}"
    assert page.run("return Number(document.getElementById('prevalence').value)") == pytest.approx(
        truth.mean(), abs=1e-6
    )
    page.run(MOVE, 1)
    assert page.run("return document.getElementById('rule').value") == ""
    assert page.text("sensitivity") == "0.000"
    assert page.log("browser") == []


def test_a_picture(page: Browser, tmp_path: Path) -> None:
    page.run(CHOOSE, "target", "patient_overall")
    page.run(CHOOSE, "rule", "sensitivity:0.9")
    height = page.run("return document.documentElement.scrollHeight")
    page.call("POST", "/window/rect", {"width": 1100, "height": height + 100})
    file = Path(os.environ.get("REPORT_SCREENSHOT", tmp_path / "report.png"))
    page.screenshot(file)
    import cv2

    picture = cv2.imread(str(file))
    assert picture is not None
    # Something is drawn in every fifth of the page.
    assert all(np.std(part) > 5 for part in np.array_split(picture, 5))
