"""Nested values as YAML that a person reads and edits, with comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from robpicker_jax.config.loading import yaml_text

_WIDTH = 118


def commented_yaml(values: Mapping[str, Any], comments: Mapping[str, str], head: Sequence[str] = ()) -> str:
    """YAML with two levels of block style, everything below in flow style.

    Args:
        values: sections of keys.
        comments: by dotted key; each stands above its key, before a section or a list of mappings too.
        head: lines of comment at the top.
    """
    lines = [f"# {line}".rstrip() for line in head]
    for section, content in values.items():
        lines += ["", *_comment(comments.get(section), ""), f"{section}:"]
        for key, value in content.items():
            lines += _comment(comments.get(f"{section}.{key}"), "  ")
            lines += _entry(key, value)
    return "\n".join(lines) + "\n"


def _comment(text: str | None, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(text or "", _WIDTH - len(indent) - 2):
        yield f"{indent}# {line}"


def _entry(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        yield f"  {key}:"
        for item in value:
            yield f"    - {_flow(item)}"
    elif isinstance(value, Mapping) and len(_flow(value)) + len(key) > _WIDTH - 4:
        yield f"  {key}:"
        for name, inner in value.items():
            yield f"    {_flow(str(name))}: {_flow(inner)}"
    else:
        yield f"  {key}: {_flow(value)}"


def _flow(value: Any) -> str:
    text = yaml_text(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
