"""Grey windows: the range of Hounsfield units (HU) that is spread over 0 to 255. The only place that names them."""

import re
from collections.abc import Sequence

from cspine.errors import UserError, nearest

# Lowest and highest HU. Presets are written as level and width: the range is level -/+ width / 2.
WINDOWS = {
    "wide": (-600.0, 1400.0),  # level 400, width 2000: from lung to dense bone in one image
    "bone": (-300.0, 1200.0),  # level 450, width 1500
    "soft_tissue": (-160.0, 240.0),  # level 40, width 400
}
RANGE = re.compile(r"\s*([+-]?\d+(?:\.\d+)?)\s*\.\.\s*([+-]?\d+(?:\.\d+)?)\s*")
# What int16 volumes can hold.
LOWEST_HU, HIGHEST_HU = -32768, 32767


def window_hu(text: str) -> tuple[float, float]:
    """The lowest and highest HU of a window given by name or as "low..high". Raises UserError for another text."""
    if text in WINDOWS:
        return WINDOWS[text]
    match = RANGE.fullmatch(text)
    if match is None:
        raise UserError(f"'{text}' is no window; {nearest(text, WINDOWS)}, or a range in HU such as -600..1400")
    low, high = float(match[1]), float(match[2])
    if not LOWEST_HU <= low < high <= HIGHEST_HU:
        raise UserError(f"the window {text} must rise, within {LOWEST_HU}..{HIGHEST_HU} HU")
    return low, high


def check_windows(texts: Sequence[str]) -> None:
    """Raise UserError unless this is at least one window, each one known."""
    if not texts:
        raise UserError(f"at least one window is needed; {nearest('', WINDOWS)}, or a range in HU such as -600..1400")
    for text in texts:
        window_hu(text)
