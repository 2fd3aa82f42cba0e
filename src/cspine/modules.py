"""Finding a task or a model by the name of its file, so that adding one edits no list."""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from cspine.errors import UserError, nearest


def list_modules(package: str, besides: tuple[str, ...] = ()) -> list[str]:
    """The modules of a package, without importing them."""
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return sorted(item.name for item in pkgutil.iter_modules(places) if item.name not in besides)


def import_module(package: str, name: str, allowed: list[str], key: str) -> ModuleType:
    """Import `package.name`; raises UserError naming the config key and the nearest of the names allowed."""
    if name not in allowed:
        raise UserError(
            f"{key}={name}: there is no such file in src/{package.replace('.', '/')}; {nearest(name, allowed)}"
        )
    return importlib.import_module(f"{package}.{name}")
