"""The command line by verbs: `robpicker VERB` and `python -m robpicker_jax VERB`.

Each module at the root of the package is a verb, a *door*: it has a function `main(arguments) -> exit code`, and its
docstring is "`VERB`: what it does". Adding such a file adds the verb.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path

import robpicker_jax
from robpicker_jax.commands.cli import run
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.version import __version__

_FIRST = ("train", "simulate", "targets", "segment", "pick", "evaluate", "export", "card")


def verbs() -> dict[str, str]:
    """What each verb does, by its name: first those of the usual course of work, in its order, then the others.

    The doors are read and not imported.
    """
    doors = [path for folder in robpicker_jax.__path__ for path in Path(folder).glob("[!_]*.py")]
    found = {path.stem: _summary(path) for path in sorted(doors)}
    return {verb: found[verb] for verb in (*_FIRST, *found) if verb in found}


def _summary(door: Path) -> str:
    """What the docstring of a door says after the verb."""
    docstring = ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))) or ""
    return docstring.partition(": ")[2].removesuffix(".")


def main() -> None:
    """Run the verb named first on the command line."""
    run(dispatch, keep_memory=sys.argv[1:2] == ["train"])


def dispatch(arguments: list[str]) -> int | None:
    """Run the verb named first among the arguments; its exit code."""
    known = verbs()
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, known))
        print("usage: robpicker VERB [options]   (robpicker VERB --help says more)\n")
        print("\n".join(f"  {verb:<{width}}  {text}" for verb, text in known.items()))
        return 0
    verb, *rest = arguments
    if verb == "--version":
        print(f"robpicker_jax {__version__}")
        return 0
    if verb not in known:
        near = difflib.get_close_matches(verb, known, n=1)
        raise InputError(f"no such verb: {verb}", fix=f"did you mean {near[0]}?" if near else "see robpicker --help")
    code: int | None = importlib.import_module(f"robpicker_jax.{verb}").main(rest)
    return code
