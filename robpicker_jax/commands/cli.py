"""What all commands share: arguments, dotted overrides, and errors turned into exit codes.

Exit codes: 0 done, 2 bad input (one line on standard error), 1 our fault (a traceback, so that it can be reported),
130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.faults import outside_fault
from robpicker_jax.system.large_pages import restart_with_large_pages
from robpicker_jax.system.progress import console, error_console, progress

if TYPE_CHECKING:
    from robpicker_jax.config import Config

__all__ = ["ArgumentParser", "configured_parser", "console", "parse_configured", "progress", "run"]

SHORT = {"--name-pattern": "--data.name_pattern", "--checkpoint.minutes": "--train.checkpoint_minutes"}
"""Flags that stand for a field of the configuration."""

_DOTTED = re.compile(r"--([A-Za-z_]\w*(?:\.[^\s.=]+)+)(?:=(.*))?", re.DOTALL)
"""Keys below a field are names that users gave, such as `data.lists.apo-ferritin`, or `data.lists.*` for all of them."""


class ArgumentParser(argparse.ArgumentParser):
    """argparse with errors of one line, as for every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, where=self.prog, fix="see --help")


def parser(verb: str, description: str, **kwargs: object) -> ArgumentParser:
    """An argument parser for `python -m robpicker_jax.VERB`."""
    return ArgumentParser(
        prog=f"robpicker {verb}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **kwargs,  # type: ignore[arg-type]
    )


def configured_parser(verb: str, description: str, sections: Sequence[str] = ()) -> ArgumentParser:
    """A parser for a command that takes a configuration: `--config` and one dotted flag for each field.

    Args:
        verb: the command.
        description: what it does.
        sections: the sections of the configuration that it reads and its help lists; none: all.
    """
    from robpicker_jax.config import describe_fields  # a fifth of a second that verbs without fields do not need

    fields = [field for field in describe_fields() if not sections or field[0].partition(".")[0] in sections]
    width = max(len(name) for name, *_ in fields)
    lines = [f"  --{name:<{width}}  {text} [{kind}; default {default}]" for name, kind, default, text in fields]
    epilog = "configuration fields (each overrides the file; N counts species from 0):\n" + "\n".join(lines)
    if sections:
        epilog += "\nthe file may hold the other sections too; `robpicker train --help` lists all fields"
    result = parser(verb, description, epilog=epilog)
    result.add_argument("--config", metavar="FILE", help="YAML configuration; default: the embedded quickstart")
    result.add_argument("--name-pattern", metavar="REGEX", help="short for --data.name_pattern")
    return result


def split_overrides(arguments: Sequence[str], short: Mapping[str, str] | None = SHORT) -> tuple[list[str], list[str]]:
    """Take dotted flags out of a command line: (other arguments, "key=value" overrides).

    A dotted flag without a value means true. `short` gives the full names of flags that stand for a dotted one; what
    follows such a flag is taken as text.
    """
    arguments = list(arguments)
    for index, argument in enumerate(arguments):
        flag, equals, text = argument.partition("=")
        if short and flag in short and (equals or index + 1 < len(arguments)):
            value = text if equals else arguments.pop(index + 1)
            arguments[index] = f"{short[flag]}={json.dumps(value)}"
    rest: list[str] = []
    overrides: list[str] = []
    index = 0
    while index < len(arguments):
        match = _DOTTED.fullmatch(arguments[index])
        if match is None:
            rest.append(arguments[index])
        elif match[2] is not None:
            overrides.append(f"{match[1]}={match[2]}")
        elif index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            overrides.append(f"{match[1]}={arguments[index + 1]}")
            index += 1
        else:
            overrides.append(f"{match[1]}=true")
        index += 1
    return rest, overrides


def parse_configured(
    argument_parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, Config]:
    """Parse a command line whose parser came from `configured_parser`."""
    from robpicker_jax.config import load_config

    rest, overrides = split_overrides(arguments)
    options = argument_parser.parse_args(rest)
    return options, load_config(options.config, overrides)


def run(main: Callable[[list[str]], int | None], *, keep_memory: bool = False) -> NoReturn:
    """Run a command's `main` on the process's arguments and exit with the contract's code.

    Args:
        main: the command.
        keep_memory: see `large_pages`; for what takes the same memory again and again.
    """
    if "--help" not in sys.argv:
        restart_with_large_pages(keep_memory)
    sys.exit(call(main, sys.argv[1:]))


def call(main: Callable[[list[str]], int | None], arguments: Sequence[str]) -> int:
    """Run a command's `main` and give its exit code; bad input becomes one line on standard error.

    So do faults of the machine that the user can mend: the disk, the memory, a device that is not there.
    """
    try:
        return main(list(arguments)) or 0
    except InputError as error:
        _say_error(error)
        return 2
    except KeyboardInterrupt:
        error_console.print("interrupted; run the same command again to go on", style="yellow", highlight=False)
        return 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        fault = outside_fault(error)
        if fault is None:
            raise
        _say_error(fault)
        return 2


def _say_error(error: InputError) -> None:
    error_console.print(f"error: {error}", style="bold red", highlight=False, markup=False, soft_wrap=True)


def positive_number(text: str) -> float:
    """A command line's number above 0, not infinite.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    return _number(text, lambda value: 0 < value < float("inf"), "is not a positive number")


def fraction(text: str) -> float:
    """A command line's number above 0 and not above 1.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    return _number(text, lambda value: 0 < value <= 1, "does not lie above 0 and not above 1")


def _number(text: str, fits: Callable[[float], bool], otherwise: str) -> float:
    """The number in a text; `otherwise` says what is wrong where it is none, or does not fit."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} {otherwise}")
    return value
