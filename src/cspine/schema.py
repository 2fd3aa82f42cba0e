"""A frozen dataclass as a schema: its fields' types and limits, held against plain mappings.

Every error names the place and the key, and the nearest key or the values allowed.
"""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from cspine.errors import UserError, nearest

T = TypeVar("T")

NAMES = {"tuple": "a list such as [one, two]"}  # how errors call a type


def setting(
    default: Any,
    choices: tuple[Any, ...] = (),
    low: float | None = None,
    high: float | None = None,
    check: Callable[[Any], None] | None = None,
) -> Any:
    """A dataclass field with a default and the range or list of the values allowed; `check` raises UserError."""
    return dataclasses.field(default=default, metadata={"choices": choices, "low": low, "high": high, "check": check})


def build(schema: type[T], values: dict[str, Any], where: str, prefix: str = "") -> T:
    """Make a (nested) dataclass from a mapping; `where` and `prefix` name the place in errors."""
    hints = typing.get_type_hints(schema)
    fields = {item.name: item for item in dataclasses.fields(schema)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UserError(f"{where}: unknown key '{prefix}{key}'; {nearest(str(key), fields)}")
    made = {}
    for key, value in values.items():
        made[key] = _convert(hints[key], value, f"{where}: {prefix}{key}", f"{prefix}{key}.")
        _check_range(fields[key].metadata, made[key], f"{where}: {prefix}{key}")
    missing = [name for name, item in fields.items() if name not in made and _is_required(item)]
    if missing:
        raise UserError(f"{where}: the key '{prefix}{missing[0]}' is missing")
    return schema(**made)


def _is_required(item: dataclasses.Field) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str, prefix: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{where} is a section and needs keys below it, not the value {value!r}")
        return build(hint, value, where.rpartition(": ")[0], prefix)  # type: ignore[arg-type]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_convert(typing.get_args(kind)[0], item, where, prefix) for item in value)
    if kind is float:
        return _to_float(value, where)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    names = " or ".join(
        "null" if option is type(None) else NAMES.get(option.__name__, option.__name__) for option in options
    )
    raise UserError(f"{where} must be {names}, not {value!r}")


def _to_float(value: Any, where: str) -> float:
    # YAML 1.1 reads 1e-3, without a dot, as text.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise UserError(f"{where} must be a number, not {value!r}")
    try:
        return float(value)
    except ValueError:
        raise UserError(f"{where} must be a number, not {value!r}") from None


def _check_range(limits: Any, value: Any, where: str) -> None:
    if not limits or value is None:
        return
    if limits["choices"] and value not in limits["choices"]:
        raise UserError(f"{where} is {value!r}; {nearest(str(value), map(str, limits['choices']))}")
    for bound, outside in ((limits["low"], lambda v, b: not v >= b), (limits["high"], lambda v, b: not v <= b)):
        if bound is not None and outside(value, bound):
            side = "at least" if bound == limits["low"] else "at most"
            raise UserError(f"{where} must be {side} {bound}, not {value}")
    if limits["check"]:
        try:
            limits["check"](value)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
