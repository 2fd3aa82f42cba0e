"""The page stands alone, escapes names, says what its numbers are, and draws whatever the data lack."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import SimulatedRuns

from cspine import scorecard, scorecard_figures
from cspine.ensembling import Ensemble, choose_members, fit_ensemble
from cspine.metrics import weighted_log_loss
from cspine.paths import RSNA_NAME

ODD_NAME = "_<script>alert(1)<|script>&$x"


def made(folder: Path, studies: int = 60, name: str = "good") -> Ensemble:
    runs = SimulatedRuns(folder, studies)
    runs.add_fracture(name)
    runs.add_fracture("other", seed=2)
    return fit_ensemble(choose_members(runs.oof, []), runs.config)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    return made(tmp_path_factory.mktemp("scorecard"))


@pytest.fixture
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and only one test looks at the page's figures."""
    monkeypatch.setattr(scorecard, "image", lambda *_: "")


class Reader(HTMLParser):
    """Collects tags, links and text, and checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_the_page_needs_nothing_else_and_escapes_names(tmp_path: Path) -> None:
    file = scorecard.write_report(made(tmp_path, name=ODD_NAME), tmp_path / "report.html")
    page = file.read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.tags.count("table") == 8
    assert len(reader.sources) == reader.tags.count("img") == 5
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.sources)
    # The slider's data and its code, both fixed but for numbers; the name of a run is in neither.
    assert reader.tags.count("script") == 2
    assert "<script>alert" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|url\(|@import", page)
    assert [row[0] for row in reader.rows if row[:1] == [ODD_NAME] and len(row) > 2] == [ODD_NAME]


@pytest.mark.usefixtures("_without_figures")
def test_the_table_holds_the_scores(ensemble: Ensemble) -> None:
    reader = Reader()
    reader.feed(scorecard.report_html(ensemble))
    blend = next(row for row in reader.rows if row[:1] == ["blend"])
    assert blend[1:4] == [
        f"{value:.4f}"
        for value in (ensemble.blended.raw, ensemble.blended.fitted, ensemble.blended.scores["loss"]["column"])
    ]
    c7 = next(row for row in reader.rows if row[:1] == ["C7"])
    assert c7[1] == f"{ensemble.thresholds[7]:.3f}"
    assert c7[3] == f"{ensemble.blended.scores['targets']['C7']['f1']:.3f}"
    mean = next(row for row in reader.rows if row[:1] == ["plain mean"])
    assert mean[2] == f"{weighted_log_loss(ensemble.data.labels, ensemble.ways.nested['plain mean'], 'column'):.4f}"


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.parametrize(
    ("dataset", "told"),
    [("phantom", "a phantom, which"), (RSNA_NAME, "the RSNA 2022"), ("my<hospital", "the data set my&lt;hospital")],
)
def test_it_says_which_data_and_that_the_numbers_are_nested(ensemble: Ensemble, dataset: str, told: str) -> None:
    page = scorecard.report_html(replace(ensemble, dataset=dataset))
    assert told in page
    assert "out-of-fold and nested" in page
    assert "fitted on 2 of 3 folds" in page


def test_figures_show_the_numbers(ensemble: Ensemble) -> None:
    axis = scorecard_figures.draw_losses(ensemble).axes[0]
    heights = [bar.get_height() for bar in axis.containers[-1]]
    assert (7 * heights[0] + sum(heights[1:])) / 14 == pytest.approx(ensemble.blended.scores["loss"]["column"])
    roc = scorecard_figures.draw_roc(ensemble).axes[0]
    x, y = roc.lines[3].get_data()  # after the diagonal and two members
    auc = np.trapezoid(np.asarray(y, float), np.asarray(x, float))
    # roc_curve leaves out points on straight stretches, which changes no area.
    assert auc == pytest.approx(ensemble.blended.scores["targets"]["patient_overall"]["auc"])
    precision = scorecard_figures.draw_precision(ensemble).axes[0].lines[3]  # after chance and two members
    recall, values = (np.asarray(part, float) for part in precision.get_data())
    truth = ensemble.data.labels[:, 0]
    found = ensemble.blended.nested[:, 0] >= np.median(ensemble.blended.nested[:, 0])
    place = np.argmin(np.abs(recall - found[truth == 1].mean()))
    assert truth[found].mean() in values[recall == recall[place]]
    seen = scorecard_figures.draw_reliability(ensemble).axes[0].containers[0].lines[0].get_ydata()
    assert np.mean(seen) == pytest.approx(truth.mean())  # fifteen bins of four studies each
    folds = scorecard_figures.draw_folds(ensemble).axes[0]
    assert len(folds.lines) == 2 * 3
    assert len(folds.lines[0].get_xdata()) == 3


def test_a_level_without_positives_is_drawn_as_such(tmp_path: Path) -> None:
    ensemble = made(tmp_path, studies=12)
    empty = int(np.flatnonzero(ensemble.data.labels.sum(axis=0) == 0)[0])
    panel = scorecard_figures.draw_roc(ensemble).axes[empty]
    assert "AUC -, 0 positive" in panel.get_title()
    assert [text.get_text() for text in panel.texts] == ["one class only"]
