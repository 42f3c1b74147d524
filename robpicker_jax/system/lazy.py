"""A package whose names are imported from its modules when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any


def make_lazy(package: str, origins: Mapping[str, str]) -> None:
    """Let a package offer names that are imported on first use.

    A name may also be that of a module of the package. Importing that module would replace the name, as Python does
    with sub-modules; here the name keeps its meaning, and the module is reached by `importlib` or
    `from package.module import …`.

    Args:
        package: name of the package, which is being imported.
        origins: name → "module:attribute", the module relative to the package.
    """

    class LazyPackage(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name not in origins:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            module, _, attribute = origins[name].partition(":")
            value = getattr(importlib.import_module(f"{package}.{module}"), attribute)
            setattr(self, name, value)
            return value

        def __setattr__(self, name: str, value: object) -> None:
            if not (name in origins and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted((*origins, "__version__"))

    sys.modules[package].__class__ = LazyPackage
