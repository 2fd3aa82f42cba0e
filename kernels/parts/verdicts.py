"""The kernel beside its own fault-free run, once with each fault: one row of a table for each."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parts.faults import BYSTANDERS, FAULTS, VICTIM, Fault, Tree, make_tree, run_in
from parts.sandbox import Ran

from cspine.anatomy import TARGETS
from cspine.errors import UserError, nearest
from cspine.submission_file import read_priors

HEADER = ("fault", "exit", "rows", "whole after", "versions", "predicted", "untouched equal", "the study", "seconds")
WIDTHS = (26, 6, 6, 13, 10, 11, 17, 11, 9)
PRIOR = "its rows hold the prior"
TIME_UP = "the time is up"


@dataclass(frozen=True)
class Verdict:
    cells: tuple[str, ...]
    wrong: tuple[str, ...]


def rehearse_faults(kernel: Path, data: Path, weights: Path, folder: Path, only: Sequence[str] = ()) -> int:
    """Print the table; 0 where nothing suffered that need not. Raises UserError for an unknown fault."""
    names = [fault.name for fault in FAULTS]
    for name in only:
        if name not in names:
            raise UserError(f"--only {name!r}: {nearest(name, names)}")
    chosen = [fault for fault in FAULTS if not only or fault.name in only]
    uids = [path.name for path in sorted((data / "test_images").iterdir()) if path.is_dir()][:BYSTANDERS]
    if not uids:
        raise UserError(f"{data / 'test_images'}: no study to rehearse with")
    baseline = run_in(make_tree(folder / "none" / "data", data, weights, uids), kernel, folder / "none" / "run")
    if baseline.status or PRIOR in baseline.log:
        raise UserError(f"without any fault the kernel fails:\n{baseline.log}")
    priors = {f"{VICTIM}_{target}": repr(prior) for target, prior in read_priors(weights / "manifest.json").items()}
    print(_line(HEADER))
    print(_line(("none", "0", *_cells(baseline, len(uids) + 1), "-", "-", f"{baseline.seconds:.0f}")), flush=True)
    failed = 0
    for number, fault in enumerate(chosen):
        if fault.compiler and shutil.which("cc") is None:
            print(f"{fault.name:26}skipped: it needs a C compiler")
            continue
        own = folder / str(number)
        tree = make_tree(own / "data", data, weights, uids)
        fault.spoil(tree, baseline.seconds)
        ran = run_in(tree, kernel, own / "run")
        verdict = judge(fault, ran, baseline, tree, priors)
        print(_line(verdict.cells), flush=True)
        for text in verdict.wrong:
            print(f"    WRONG: {text}")
        if verdict.wrong:
            print(ran.log)
        failed += bool(verdict.wrong)
        shutil.rmtree(own)
    print(f"rehearsal: {len(chosen) - failed} of {len(chosen)} faults cost only what they must")
    return 1 if failed else 0


def judge(fault: Fault, ran: Ran, baseline: Ran, tree: Tree, priors: dict[str, str]) -> Verdict:
    """The row of a fault in the table, and what is wrong with it."""
    rows, wrong = ran.watch.rows, list(ran.watch.wrong)
    if ran.status:
        wrong.append(f"exit status {ran.status}")
    if ran.watch.first_s is None:
        wrong.append("submission.csv was never whole")
    done = [uid for uid in tree.uids if is_done(uid, rows, priors)]
    mine = {row: rows.get(row) for row in priors}
    same = mine == {row: baseline.watch.rows[row] for row in priors}
    became = "same" if same else "prior" if mine == priors else "predicted"
    # A model that has learnt little may say the same of it as before.
    allowed = {"any": ("same", "prior", "predicted"), "predicted": ("same", "predicted")}.get(
        fault.victim, (fault.victim,)
    )
    if became not in allowed:
        wrong.append(f"the study became {became}, not {fault.victim}")
    if fault.victim == "prior" and f"{VICTIM}: " not in ran.log and TIME_UP not in ran.log:
        wrong.append("no reason in the log")
    others = [uid for uid in tree.uids if uid != VICTIM and uid in done]
    equal = [uid for uid in others if all(rows[f"{uid}_{t}"] == baseline.watch.rows[f"{uid}_{t}"] for t in TARGETS)]
    if fault.bystanders and equal != others:
        wrong.append(f"{len(others) - len(equal)} other studies have other rows than without the fault")
    # How much is done until the time is up depends on what else the machine does.
    all_due = fault.bystanders and fault.victim != "any" and TIME_UP not in ran.log
    if all_due and len(others) != len(tree.uids) - 1:
        wrong.append("other studies hold the prior")
    compared = f"{len(equal)} of {len(others)}" if fault.bystanders else "none is"
    cells = fault.name, str(ran.status), *_cells(ran, len(done)), compared, became, f"{ran.seconds:.0f}"
    return Verdict(cells, tuple(wrong))


def is_done(uid: str, rows: dict[str, str], priors: dict[str, str]) -> bool:
    """Whether a study's rows are other than the priors."""
    return any(rows.get(f"{uid}_{target}") != priors[f"{VICTIM}_{target}"] for target in TARGETS)


def _cells(ran: Ran, predicted: int) -> tuple[str, ...]:
    first = "never" if ran.watch.first_s is None else f"{ran.watch.first_s:.2f} s"
    return str(len(ran.watch.rows)), first, str(ran.watch.versions), str(predicted)


def _line(cells: Sequence[str]) -> str:
    return "".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()
