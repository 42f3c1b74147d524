"""`constraints-lowest.txt` from the lower bounds in pyproject.toml: each requirement pinned to the lowest version allowed.

python .ci/lowest_versions.py [--check]
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "constraints-lowest.txt"
EXTRAS = ("hdf", "zarr", "test")
# What the requirements leave open, and their own lowest versions need.
FURTHER = {"jaxlib": "jax"}


def lowest() -> dict[str, str]:
    """Version by package, of the requirements themselves and of those extras that tests need.

    Raises:
        ValueError: a requirement without a lower bound.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    found = {}
    for line in wanted:
        if line.startswith("robpicker-jax"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9_.-]+)(?:\[.*\])?\s*>=\s*([0-9.]+)", line)
        if match is None:
            raise ValueError(f"{line}: no lower bound, and nothing else")
        found[match[1]] = match[2]
    return found | {name: found[like] for name, like in FURTHER.items()}


def text() -> str:
    """The file's content."""
    return "".join(
        f"{name}=={version}\n" for name, version in sorted(lowest().items(), key=lambda item: item[0].lower())
    )


def main() -> int:
    """Write the file, or with --check compare it."""
    if "--check" not in sys.argv:
        TARGET.write_text(text(), encoding="utf-8")
        return 0
    if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text():
        print(f"{TARGET.name} is not what pyproject.toml says: run python .ci/lowest_versions.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
