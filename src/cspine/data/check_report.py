"""The health of a dataset as text for a terminal: its numbers, then the findings by kind, a few of each."""

import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cspine.data.check import Health
from cspine.data.findings import SEVERITIES, Finding

SHOWN = 20
WIDTH = 118
PERCENTILES = ("slices_per_study", "extent_mm", "spacing_mm", "pixel_spacing_mm", "thickness_mm")
COUNTS = ("sizes", "numbering", "transfer_syntaxes")


def health_text(health: Health, file: Path) -> str:
    """Everything that `prepare.py --check` prints; `file` holds the rest."""
    lines = [line for split, summary in health.summary.items() for line in (*_summary_lines(split, summary), "")]
    groups: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in health.findings:
        groups[finding.severity, finding.kind, finding.remedy].append(finding)
    for (severity, kind, remedy), found in sorted(groups.items(), key=lambda item: SEVERITIES.index(item[0][0])):
        lines += [*_group_lines(severity, kind, remedy, found, file.name), ""]
    if health.fingerprint:
        lines.append(f"fingerprint of the training data: {health.fingerprint['hash']}")
    counts = ", ".join(f"{health.count(severity)} {severity}s" for severity in SEVERITIES)
    return "\n".join([*lines, f"{counts}; all of them in {file}"])


def _group_lines(severity: str, kind: str, remedy: str, found: Sequence[Finding], rest: str) -> Iterator[str]:
    yield f"{severity}: {kind}" + (f" ({len(found)})" if len(found) > 1 else "")
    for finding in found[:SHOWN]:
        # The place may stand in the message already, as the name of a file that cannot be read.
        place = "" if finding.where in finding.what else f"{finding.where}: "
        yield _wrap(place + finding.what, "  ", "      ")
    if len(found) > SHOWN:
        yield f"  and {len(found) - SHOWN} more in {rest}"
    yield _wrap(remedy, "  -> ", "      ")


def _wrap(text: str, first: str, rest: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )


def _summary_lines(split: str, summary: dict[str, Any]) -> Iterator[str]:
    unusable = f", {summary['unusable']} of them unusable" if summary["unusable"] else ""
    yield f"{split}: {summary['studies']:,} studies{unusable}, {summary['files']:,} files, {summary['slices']:,} slices"
    columns = ("min", "p5", "median", "p95", "max")
    yield f"  {'':18}" + "".join(f"{name:>10}" for name in columns)
    for key in PERCENTILES:
        if values := summary[key]:
            yield f"  {key:18}" + "".join(f"{values[name]:10.4g}" for name in columns)
    for key in COUNTS:
        yield f"  {key:18}  " + _counts(summary[key])
    if labels := summary.get("labels"):
        shares = [f"{name} {n} ({n / labels['studies']:.1%})" for name, n in labels["positives"].items()]
        yield _wrap(", ".join(shares), f"  {'positives':18}  ", " " * 22)
        yield f"  {'fractured_levels':18}  " + _counts(labels["fractured_levels"])
    for key in ("masks", "boxes"):
        if values := summary.get(key):
            yield f"  {key:18}  " + _counts({name: n for name, n in values.items() if isinstance(n, int)})


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in values.items())
