"""What a check of the data finds, always with what to do about it."""

from dataclasses import dataclass

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """`error`: a study or a table cannot be used. `warning`: it is used, with what the remedy says. `note`: it is
    unusual and dealt with. `kind` is what findings are grouped by.
    """

    severity: str
    kind: str
    where: str
    what: str
    remedy: str
