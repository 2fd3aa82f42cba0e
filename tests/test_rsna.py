from pathlib import Path

from cspine.data.check_study import StudyCheck
from cspine.data.rsna import COUNTS, KNOWN_STUDIES, UID_ROOT, compare_counts, is_rsna, known_studies
from cspine.paths import RSNA_NAME


def test_known_by_name_or_by_its_studies(tmp_path):
    known = {UID_ROOT + number for number in KNOWN_STUDIES}
    assert is_rsna(tmp_path / RSNA_NAME, None)
    assert is_rsna(tmp_path / "renamed", {*known, "1.2"})
    assert not is_rsna(tmp_path / "renamed", known - {UID_ROOT + "8362"})
    assert not is_rsna(tmp_path / "phantom", None)


def test_known_counts_are_at_one_with_each_other():
    """From FACTS: a slip of the pen in one number would not agree with the others."""
    labels = COUNTS["labels"]
    levels = {int(count): studies for count, studies in labels["fractured_levels"].items()}
    assert sum(levels.values()) == labels["studies"] == COUNTS["studies"] == sum(COUNTS["sizes"].values())
    assert sum(COUNTS["numbering"].values()) == COUNTS["studies"]
    assert labels["studies"] - levels[0] == labels["positives"]["patient_overall"]
    fractured = sum(n for target, n in labels["positives"].items() if target != "patient_overall")
    assert sum(count * studies for count, studies in levels.items()) == fractured
    assert sum(COUNTS["masks"]["numbering"].values()) == COUNTS["masks"]["studies"]


def test_every_other_number_is_a_finding():
    assert list(compare_counts(Path("x"), COUNTS)) == []
    found = {**COUNTS, "files": 711_600, "numbering": {"descending": 1822, "ascending": 196, "mixed": 1}}
    del found["masks"]
    texts = [finding.what for finding in compare_counts(Path("x"), found)]
    assert texts[0] == "files: 711,600 here, 711,601 in the competition's data"
    assert texts[1] == "numbering, ascending: 196 here, 197 in the competition's data"
    assert [text.partition(":")[0] for text in texts[2:]] == [
        "masks, studies",
        "masks, slices",
        "masks, numbering, descending",
        "masks, numbering, ascending",
    ]


def test_studies_of_the_short_list_are_noted():
    checks = [StudyCheck(UID_ROOT + number, "train", Path(number), ()) for number in ("20756", "207", "1820756")]
    [note] = known_studies(checks)
    assert (note.severity, note.where) == ("note", "20756")
    assert "1,082 slices" in note.what
