"""Griffe extension: a docstring may describe several parameters at once, as in `x, y: positions in voxels.`

The reference shows the description under each of the names. Griffe by itself takes `x, y` for one parameter of that name.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

SHARED = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*(?:\n(?P=indent) +\S.*)*)", re.MULTILINE)


def one_by_one(docstring: str) -> str:
    """The docstring with each shared description repeated for each of its names."""
    return SHARED.sub(
        lambda found: "\n".join(f"{found['indent']}{name}: {found['text']}" for name in found["names"].split(", ")),
        docstring,
    )


class SharedDescriptions(Extension):
    """Repeat shared descriptions when a docstring is read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = one_by_one(obj.docstring.value)
