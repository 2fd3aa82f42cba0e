import shutil
from dataclasses import replace

import pytest
from conftest import write_mask

from cspine.config import Preprocess
from cspine.data.check import check_dataset
from cspine.data.fingerprint import percentiles, read_fingerprint
from cspine.data.prepare import prepare_and_report
from cspine.errors import UserError
from cspine.paths import folds_file


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    monkeypatch.setattr(
        "cspine.data.workers.run_isolated",
        lambda work, tasks, _processes, _timeout_s=None, _until=None: ((task, work(task)) for task in tasks),
    )


def prepared_hash(tiny, config=None):
    config = config or tiny.config
    folds_file(config).unlink(missing_ok=True)
    prepare_and_report(config, ("train",))
    return read_fingerprint(config)["hash"]


def test_it_is_the_same_for_the_check_any_preprocessing_any_place_and_order(tiny):
    first = prepared_hash(tiny)
    assert check_dataset(tiny.config, ("train",)).fingerprint == read_fingerprint(tiny.config)
    assert prepared_hash(tiny, replace(tiny.config, preprocess=Preprocess(field_mm=30.0, size_px=16))) == first
    tiny.labels = tiny.labels.iloc[::-1]
    tiny.write_tables()
    shutil.copytree(tiny.root, tiny.root.parent / "elsewhere")
    elsewhere = replace(tiny.config, data=replace(tiny.config.data, root=str(tiny.root.parent / "elsewhere")))
    assert prepared_hash(tiny, elsewhere) == first


def test_it_changes_with_labels_boxes_masks_and_slices(tiny):
    hashes = [prepared_hash(tiny)]
    tiny.labels.loc[0, ["C2", "C3"]] = [0, 1]
    tiny.write_tables()
    hashes.append(prepared_hash(tiny))
    tiny.boxes["x"] += 1
    tiny.write_tables()
    hashes.append(prepared_hash(tiny))
    write_mask(tiny.mask(tiny.uids[4]), tiny.mask_labels())
    hashes.append(prepared_hash(tiny))
    (tiny.images(tiny.uids[3]) / "8.dcm").unlink()
    hashes.append(prepared_hash(tiny))
    shutil.rmtree(tiny.images(tiny.uids[2]))
    hashes.append(prepared_hash(tiny))
    assert len(set(hashes)) == 6
    found = read_fingerprint(tiny.config)
    assert (found["studies"], found["usable"], found["slices"], found["masks"], found["boxes"]) == (6, 5, 39, 2, 1)
    assert found["positives"]["C3"] == 1


def test_none_before_prepare_has_run_to_its_end(tiny, monkeypatch):
    with pytest.raises(UserError, match=r"fingerprint\.json is missing; make it with: python src/prepare\.py"):
        read_fingerprint(tiny.config)
    prepared_hash(tiny)

    def interrupted(*_, **_words):
        raise KeyboardInterrupt

    monkeypatch.setattr("cspine.data.prepare.build_cache", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_and_report(tiny.config, ("train",))
    with pytest.raises(UserError, match="is missing"):
        read_fingerprint(tiny.config)


def test_percentiles():
    assert percentiles(range(101)) == {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}
    assert percentiles([]) == {}
