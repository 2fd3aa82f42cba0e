"""What `prepare.py` prints: the findings of a check, and what became of every study."""

import textwrap
from dataclasses import asdict
from pathlib import Path

from cspine.config import DatasetConfig
from cspine.data.cache import Summary, build_cache
from cspine.data.check import Finding, check_dataset
from cspine.data.folds import write_or_verify_folds
from cspine.paths import cache_folder, folds_file, write_json

SHOWN = 20


def check_and_report(config: DatasetConfig, splits: tuple[str, ...]) -> int:
    """Print the findings and write them to check.json; 1 if a study is unusable."""
    findings = [finding for split in splits for finding in check_dataset(config, split)]
    file = Path(config.paths.cache) / "check.json"
    write_json(file, [asdict(finding) for finding in findings])
    for finding in findings:
        _print_finding(finding)
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings; all of them in {file}")
    return 1 if errors else 0


def _print_finding(finding: Finding) -> None:
    print(f"{finding.severity:8}{finding.where}")
    for text in (finding.what, f"-> {finding.remedy}"):
        print(textwrap.fill(text, 110, initial_indent=" " * 8, subsequent_indent=" " * 11))


def prepare_and_report(config: DatasetConfig, splits: tuple[str, ...]) -> int:
    """Deal or verify the folds, fill the cache and print what happened; 1 if a split has no usable study."""
    if "train" in splits:
        # First, because it takes a second and decoding takes hours.
        folds = write_or_verify_folds(config)
        print(f"{folds_file(config)}: {len(folds)} studies in {folds['fold'].nunique()} folds")
    status = 0
    for split in splits:
        summary = build_cache(config, split, config.data.workers)
        _print_summary(config, split, summary)
        if summary.done + summary.kept == 0:
            status = 1
    return status


def _print_summary(config: DatasetConfig, split: str, summary: Summary) -> None:
    folder = cache_folder(config)
    gigabytes = sum(file.stat().st_size for file in folder.glob("[!.]*.npy")) / 1e9
    rate = summary.slices / max(summary.seconds, 1e-9)
    print(
        f"{split}: {summary.done} studies prepared ({summary.slices} slices, {rate:.0f} a second), "
        f"{summary.kept} already there, {len(summary.bad)} bad; {summary.seconds:.1f} s; "
        f"{folder} holds {gigabytes:.2f} GB"
    )
    if summary.skipped:
        print(f"  {sum(summary.skipped.values())} files left out of {len(summary.skipped)} usable studies")
    _print_some("bad", summary.bad)
    _print_some("mask left out", summary.mask_problems)
    if summary.bad:
        print(f"  the bad studies stand in {folder / 'bad.csv'}; for remedies: python src/prepare.py --check")


def _print_some(label: str, reasons: dict[str, str]) -> None:
    for uid in sorted(reasons)[:SHOWN]:
        print(f"  {label}: {uid}: {reasons[uid]}")
    if len(reasons) > SHOWN:
        print(f"  ... and {len(reasons) - SHOWN} more")
