"""What `prepare.py` prints: the findings of a check, and what became of every study."""

from pathlib import Path

from cspine.config import DatasetConfig
from cspine.data.cache import Summary, build_cache
from cspine.data.check import check_dataset
from cspine.data.check_report import health_text
from cspine.data.fingerprint import fingerprint_file, write_fingerprint
from cspine.data.folds import write_or_verify_folds
from cspine.paths import cache_folder, folds_file, write_json

SHOWN = 20


def check_and_report(config: DatasetConfig, splits: tuple[str, ...]) -> int:
    """Print the dataset's health and write it to check.json; 1 if a study is unusable."""
    health = check_dataset(config, splits)
    file = Path(config.paths.cache) / "check.json"
    write_json(file, health.to_json())
    print(health_text(health, file))
    return 1 if health.count("error") else 0


def prepare_and_report(config: DatasetConfig, splits: tuple[str, ...], verify: bool = False) -> int:
    """Deal or verify the folds, fill the cache and print what happened; 1 if a split has no usable study."""
    if "train" in splits:
        # First, because it takes a second and decoding takes hours.
        folds = write_or_verify_folds(config)
        print(f"{folds_file(config)}: {len(folds)} studies in {folds['fold'].nunique()} folds")
        # Should this run be interrupted, no old fingerprint stands beside a cache that has changed.
        fingerprint_file(config).unlink(missing_ok=True)
    status = 0
    for split in splits:
        summary = build_cache(config, split, config.data.workers, verify=verify)
        _print_summary(config, split, summary)
        if summary.done + summary.kept == 0:
            status = 1
    if "train" in splits:
        print(f"{fingerprint_file(config)}: the training data is {write_fingerprint(config)['hash']}")
    return status


def _print_summary(config: DatasetConfig, split: str, summary: Summary) -> None:
    folder = cache_folder(config)
    gigabytes = sum(file.stat().st_size for file in folder.glob("[!.]*.np[yz]")) / 1e9
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
