"""Windows by name or by range; a bad one is answered with the nearest."""

import pytest

from cspine.errors import UserError
from cspine.windows import WINDOWS, window_hu


def test_names_and_ranges() -> None:
    assert window_hu("wide") == (-600, 1400)
    assert window_hu("-600..1400") == window_hu("wide")
    assert window_hu("-0.5 .. +20.25") == (-0.5, 20.25)
    assert all(window_hu(name) == window_hu("..".join(map(str, hu))) for name, hu in WINDOWS.items())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("boen", "did you mean 'bone'"),
        ("x", "allowed: bone, soft_tissue, wide"),
        ("1...2", "no window"),
        ("5..5", "must rise"),
        ("-40000..0", "within"),
    ],
)
def test_a_bad_window_says_what_is_allowed(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        window_hu(text)
