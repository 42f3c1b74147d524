"""Griffe extension for the reference: shared descriptions, and each definition once.

A docstring may describe several parameters at once, as in `x, y: positions in voxels.` The reference shows the description
under each of the names; Griffe by itself takes `x, y` for one parameter. And a room's face (`__init__.py`) exports names that
its modules define: they are documented where they are defined, not a second time in the face.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Module, Object

SHARED = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*(?:\n(?P=indent) +\S.*)*)", re.MULTILINE)


def one_by_one(docstring: str) -> str:
    """The docstring with each shared description repeated for each of its names."""
    return SHARED.sub(
        lambda found: "\n".join(f"{found['indent']}{name}: {found['text']}" for name in found["names"].split(", ")),
        docstring,
    )


def hide_copies(module: Module) -> None:
    """Take names that other modules of the package define out of the exports of this room and those within it."""
    for member in list(module.members.values()):
        if isinstance(member, Module):
            hide_copies(member)
    if module.exports is not None:
        copies = {name for name, member in module.members.items() if member.is_alias}
        module.exports = [name for name in module.exports if str(name) not in copies]


class ReferenceDocstrings(Extension):
    """Repeat shared descriptions when a docstring is read, and show each definition once."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Hide copies in the rooms; the package's own face shows what it exports."""
        for member in list(pkg.members.values()):
            if isinstance(member, Module):
                hide_copies(member)

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = one_by_one(obj.docstring.value)
