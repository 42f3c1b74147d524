"""The verbs of the command line, by name: `robpicker VERB` and `python -m robpicker_jax VERB`."""

from __future__ import annotations

import difflib
import importlib
import sys

from robpicker_jax.commands.cli import run
from robpicker_jax.system.errors import InputError

VERBS = {
    "train": "train a picker, pick the test tomograms, evaluate and report",
    "simulate": "make a simulated data set",
    "targets": "write label maps for a data set",
    "segment": "class maps of tomograms",
    "pick": "particles of tomograms",
    "evaluate": "compare picks with the truth",
    "doctor": "what is wrong with a data set, before training",
    "convert": "particle lists from one format to another",
    "report": "write a run's report again",
}


def main() -> None:
    """Run the verb named first on the command line."""
    run(_dispatch, keep_memory=sys.argv[1:2] == ["train"])


def _dispatch(arguments: list[str]) -> int | None:
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, VERBS))
        print("usage: robpicker VERB [options]   (robpicker VERB --help says more)\n")
        print("\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()))
        return 0
    verb, *rest = arguments
    if verb == "--version":
        from robpicker_jax.system.version import __version__

        print(f"robpicker_jax {__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        raise InputError(f"no such verb: {verb}", fix=f"did you mean {near[0]}?" if near else "see robpicker --help")
    code: int | None = importlib.import_module(f"robpicker_jax.commands.{verb}").main(rest)
    return code
