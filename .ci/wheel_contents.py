"""What a wheel and an sdist must hold, and must not: `python .ci/wheel_contents.py dist/*`."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def expected() -> set[str]:
    """Files of the package that have to be in both, as paths within the wheel."""
    package = ROOT / "robpicker_jax"
    files = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    found = {path.relative_to(ROOT).as_posix() for path in files}
    return found | {f"robpicker_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}


def wheel_faults(names: set[str]) -> list[str]:
    """What is wrong with a wheel of these files."""
    missing = [f"lacks {name}" for name in sorted(expected() - names)]
    own = ("robpicker_jax/", "robpicker_jax-")
    return missing + [f"holds {name}" for name in sorted(names) if not name.startswith(own)]


def sdist_faults(names: set[str]) -> list[str]:
    """What is wrong with an sdist of these files, whose folder's name has been taken off."""
    configs = {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
    wanted = {name for name in expected() if not name.startswith("robpicker_jax/configs/")} | configs
    wanted |= {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"}
    # The tests are in it, and some of them run these or read them.
    wanted |= {
        ".dockerignore",
        *(path.relative_to(ROOT).as_posix() for path in (ROOT / ".ci").iterdir() if path.is_file()),
    }
    return [f"lacks {name}" for name in sorted(wanted - names)]


def main() -> int:
    """Look at each file; 1 where one is faulty."""
    faults = []
    for path in map(Path, sys.argv[1:]):
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as archive:
                found = wheel_faults({name for name in archive.namelist() if not name.endswith("/")})
        else:
            with tarfile.open(path) as archive:
                found = sdist_faults({name.partition("/")[2] for name in archive.getnames()})
        faults += [f"{path.name} {fault}" for fault in found]
    print("\n".join(faults) or "the archives hold what they should")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
