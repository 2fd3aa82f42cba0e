"""The health of a dataset: everything that can be found wrong without decoding it all, each finding with its remedy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cspine.config import DatasetConfig
from cspine.data.check_study import StudyCheck, check_studies
from cspine.data.check_tables import Tables, check_boxes, compare_with_images, read_tables
from cspine.data.duplicates import find_duplicates
from cspine.data.findings import SEVERITIES, Finding
from cspine.data.fingerprint import fingerprint
from cspine.data.layout import box_file, image_folder, masks_on_disk, studies_on_disk
from cspine.data.rsna import compare_counts, is_rsna, known_studies
from cspine.data.summary import summarise
from cspine.errors import UserError
from cspine.paths import find_dataset


@dataclass
class Health:
    """What a check found. `summary` is by split; no fingerprint without readable labels or without usable studies."""

    findings: list[Finding] = field(default_factory=list)
    summary: dict[str, dict[str, Any]] = field(default_factory=dict)
    fingerprint: dict[str, Any] | None = None

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """check.json: the summary, the fingerprint, and every finding, errors first."""
        ordered = sorted(self.findings, key=lambda finding: SEVERITIES.index(finding.severity))
        findings = [asdict(finding) for finding in ordered]
        return {"summary": self.summary, "fingerprint": self.fingerprint, "findings": findings}


def check_dataset(config: DatasetConfig, splits: Sequence[str]) -> Health:
    """Check `train`, `test` or both. Reads tables and headers, and decodes three slices of each study."""
    try:
        root = find_dataset(config)
    except UserError as error:
        return Health([Finding("error", "no data", "dataset", str(error), "put the data there or set data.root")])
    health, checks, labels = Health(), [], None
    for split in splits:
        tables = read_tables(root, split)
        health.findings += tables.findings
        found = _check_split(config, root, split, tables, health)
        checks += found
        labels = labels if tables.labels is None else tables.labels
        if split == "train" and found:
            _check_train(root, tables, found, health)
    health.findings += find_duplicates(checks, labels)
    return health


def _check_split(config: DatasetConfig, root: Path, split: str, tables: Tables, health: Health) -> list[StudyCheck]:
    folder = image_folder(root, split)
    if not folder.is_dir():
        remedy = "unpack the whole archive of the competition's data, or set data.root to where it lies"
        missing = "the folder of images is missing"
        health.findings.append(Finding("error", "missing images", str(folder), missing, remedy))
        return []
    found = studies_on_disk(root, split)
    if tables.studies is not None:
        health.findings += compare_with_images(root, split, tables.studies, found)
    checks = check_studies(root, split, found, config.data.workers)
    health.findings += [finding for check in checks for finding in check.findings]
    health.summary[split] = summarise(checks, tables)
    return checks


def _check_train(root: Path, tables: Tables, checks: Sequence[StudyCheck], health: Health) -> None:
    """What only the training data has: boxes, masks, a fingerprint, and numbers to be compared with."""
    usable = {check.uid: check.facts for check in checks if check.facts}
    health.findings += check_boxes(root, tables, usable)
    for uid, file in masks_on_disk(root).items():
        if uid not in {check.uid for check in checks}:
            what, remedy = "a mask of a study without images", "nothing: it is not used"
            health.findings.append(Finding("warning", "mask without a study", str(file), what, remedy))
    if is_rsna(root, tables.studies) and "train" in health.summary:
        health.findings += [*known_studies(checks), *compare_counts(root, health.summary["train"])]
    if tables.labels is not None and usable and not (box_file(root).is_file() and tables.boxes is None):
        geometries = {uid: facts.geometry for uid, facts in usable.items()}
        health.fingerprint = fingerprint(root, tables.labels, geometries)
