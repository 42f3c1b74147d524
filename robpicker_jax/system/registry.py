"""Look-up of functions by a name from the configuration, and the check of the options that go with the name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from robpicker_jax.system.errors import InputError

T = TypeVar("T")


def look_up(registry: Mapping[str, T], name: str, *, key: str) -> T:
    """The entry of a registry.

    Args:
        registry: name → entry.
        name: the name that the user gave.
        key: key of the configuration that holds the name, for the message.

    Raises:
        InputError: an unknown name; the message names the nearest ones and lists all.
    """
    if name not in registry:
        near = difflib.get_close_matches(str(name), registry, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "choose one"
        raise InputError(f"{key}: unknown name {name!r}", fix=f"{hint} (known: {', '.join(registry)})")
    return registry[name]


def check_option_names(
    function: Callable[..., Any], options: Collection[str], *, key: str, reserved: Collection[str] = ()
) -> None:
    """Refuse options that are not keyword-only parameters of a function.

    Args:
        function: the function that the options are for.
        options: their names.
        key: what the options belong to, for the message.
        reserved: parameters that the caller sets itself.

    Raises:
        InputError: an option that the function does not have; the message lists those that it has.
    """
    parameters = option_parameters(function)
    known = [
        name
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in reserved
    ]
    further = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in options:
        if name in reserved or (name not in known and not further):
            valid = f"its options are {', '.join(known)}" if known else "it has no options"
            raise InputError(f"{key}: unknown option {name!r}", fix=valid)


def checked_options(
    function: Callable[..., Any], options: Mapping[str, Any], *, key: str, reserved: Collection[str] = ()
) -> dict[str, Any]:
    """Options that a user gave for a function's keyword-only parameters, checked against its signature.

    Values take the types of the parameters' annotations, so that `1e-4`, which YAML reads as text, becomes a number.

    Args:
        function: the function that the options are for; parameters before the `*` are not options.
        options: name → value, from the configuration.
        key: key of the configuration that holds the options, for messages.
        reserved: parameters that the caller sets itself.

    Returns:
        The options with converted values. Those that only a `**` parameter takes are passed on as they are.

    Raises:
        InputError: an option that the function does not have, or a value of another type.
    """
    check_option_names(function, options, key=key, reserved=reserved)
    parameters = option_parameters(function)
    return {
        name: _converted(parameters[name], value, f"{key}.{name}") if name in parameters else value
        for name, value in options.items()
    }


def option_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function by name, and its `**` parameter if it has one."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # an annotation that is imported for type checkers alone: names are checked, types are not
        signature = inspect.signature(function)
    return {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
    }


def _converted(parameter: inspect.Parameter, value: Any, key: str) -> Any:
    if parameter.annotation is parameter.empty or isinstance(parameter.annotation, str):
        return value
    try:
        return TypeAdapter(parameter.annotation).validate_python(value)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"]
        raise InputError(f"{key}: {message[0].lower()}{message[1:]}, got {value!r}") from None
