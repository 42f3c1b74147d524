"""YAML file + dotted overrides → checked `Config`, and back to YAML.

Relative paths in a file are relative to that file; relative paths on the command line to the working folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from robpicker_jax.config.copick_species import with_species
from robpicker_jax.config.data_sections import Species
from robpicker_jax.config.derived import with_derived
from robpicker_jax.config.radii import replaced_radii, with_radii
from robpicker_jax.config.schema import Config
from robpicker_jax.config.validation import check
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_text

T = TypeVar("T")
_LONGEST_SHOWN = 100
_MOST_VALUES = 1_000_000
"""Values that a YAML text may stand for with its aliases written out; no configuration comes near."""
_PATH_FIELDS = {"dir", "density", "mask", "tomograms", "tomogram_names", "init_from"}
_MODEL_FIELD = "init_from"
"""Of the fields of paths the one that a model's name may stand in, too."""
_PATHS_FIELD = "lists"
"""A path, several, or some by name."""


_adapter: Callable[..., TypeAdapter[Any]] = cache(TypeAdapter)


def config_folder() -> Path:
    """Folder of the shipped configurations: inside an installed wheel, or `configs/` of a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def default_config_path() -> Path:
    """The embedded default: the quickstart."""
    return config_folder() / "quickstart.yaml"


def load_config(path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML configuration, apply overrides and check it.

    Args:
        path: the file; None for the embedded default.
        overrides: "dotted.key=value" strings, values in YAML.

    Raises:
        InputError: unreadable file, unknown key (with the nearest valid one), wrong type, impossible value.
    """
    source = default_config_path() if path is None else Path(path)
    if not source.is_file():
        raise InputError("no such configuration file", where=source, fix="give --config an existing YAML file")
    data = parse_yaml(read_text(source), source)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise InputError(f"must hold sections such as data and train, got {type(data).__name__}", where=source)
    _resolve_paths(data, source.resolve().parent, source)
    return _build(apply_overrides(data, overrides), source)


def config_of(values: Mapping[str, Any], source: Path) -> Config:
    """Nested plain values, as the file `source` would hold them, as a checked configuration.

    Raises:
        InputError: as `load_config`.
    """
    data: dict[str, Any] = _copy(values)
    _resolve_paths(data, source.resolve().parent, source)
    return _build(data, source)


def parse_yaml(text: str, where: object) -> Any:
    """YAML as plain values.

    Raises:
        InputError: not YAML, a value that is none of its type (an impossible date), nesting without end, or aliases that
            contain themselves or stand for more values than `_MOST_VALUES`.
    """
    try:
        found = yaml.safe_load(text)
        count = _written_out(found, {})
    except RecursionError:
        raise InputError("nested too deeply for a configuration", where=where) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InputError(f"not valid YAML: {error}", where=where) from None
    except (AttributeError, KeyError, TypeError):  # the parser's own answer to `!!timestamp x` and `!!bool x`
        raise InputError("not valid YAML: a value is not of the type that its tag says", where=where) from None
    if count > _MOST_VALUES:
        raise InputError(
            f"its aliases (*name) stand for more than {_MOST_VALUES:,} values", where=where, fix="write the values out"
        )
    return found


def _written_out(value: Any, known: dict[int, int | None]) -> int:
    """How many values nested lists and mappings hold, those that aliases repeat counted each time.

    Args:
        value: what YAML gave.
        known: id → count of what was counted before; None while it is being counted.

    Raises:
        ValueError: something contains itself.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = None
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(each, known) for each in inner)
    count = known[id(value)]
    if count is None:
        raise ValueError("an alias (*name) stands inside what it names")
    return count


def as_plain_values(section: Any) -> dict[str, Any]:
    """A dataclass of the configuration as nested plain values, as in YAML and JSON; the inverse of `validated`."""
    values: dict[str, Any] = _adapter(type(section)).dump_python(section, mode="json")
    return values


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal `Config`."""
    return yaml_text(as_plain_values(config))


def yaml_text(value: Any, **options: Any) -> str:
    """Plain values as YAML that reads back equal, keys in their order, in the letters of their language.

    Args:
        value: nested plain values.
        options: of `yaml.safe_dump`.
    """
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, **options)
    # YAML reads these as ends of lines, and PyYAML writes them as they are unless everything foreign is escaped.
    if any(end in text for end in "\x85\u2028\u2029"):
        text = yaml.safe_dump(value, sort_keys=False, **options)
    return text


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Copy of nested `data` with "dotted.key=value" strings applied; list items are addressed by their index."""
    result: dict[str, Any] = _copy(data)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise InputError("an override must read key=value", where=override)
        try:
            value = parse_yaml(text, key) if text else ""
        except InputError:
            shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
            raise InputError(f"value {shown!r} is not valid YAML", where=key) from None
        parts = key.split(".")
        if parts[-1] in _PATH_FIELDS and isinstance(value, str):
            value = _resolved_field(parts[-1], value, Path(), key)
        elif _PATHS_FIELD in parts[-2:]:
            value = _all_resolved(value, Path(), key)
        _assign(result, parts, value, key)
    for key in replaced_radii([override.partition("=")[0] for override in overrides]):
        _assign(result, key.split("."), None, key)
    return result


def describe_fields(cls: type = Config, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every field as (dotted key, type, default, help), depth first; `--help` and the docs are made from it."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint, text = _unwrap(hints[field.name])
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from describe_fields(hint, f"{name}.")
            continue
        if hint == tuple[Species, ...]:
            yield from describe_fields(Species, f"{name}.N.")
            continue
        if field.default is not dataclasses.MISSING:
            default = str(field.default)
        elif get_origin(hint) is dict:
            default = "none"
        else:
            default = "required" if field.default_factory is dataclasses.MISSING else "preset"
        yield name, _type_name(hint), default, text


def _unwrap(hint: Any) -> tuple[Any, str]:
    text = ""
    while get_origin(hint) is Annotated:
        inner, *metadata = get_args(hint)
        for item in metadata:
            if isinstance(item, FieldInfo) and item.description:
                text = item.description
        hint = inner
    return hint, text


def _type_name(hint: Any) -> str:
    hint = _unwrap(hint)[0]
    if get_origin(hint) is typing.Literal:
        return "|".join(str(value) for value in get_args(hint))
    if get_origin(hint) is tuple:
        return "list"
    if get_origin(hint) is dict:
        return "mapping"
    arguments = [argument for argument in get_args(hint) if argument is not type(None)]
    if arguments:
        return _type_name(arguments[0])
    return getattr(hint, "__name__", str(hint))


def validated(cls: type[T], data: Mapping[str, Any], source: str | Path) -> T:
    """Nested `data` as the dataclass `cls`.

    Args:
        cls: a dataclass whose fields are sections or fields of the configuration.
        data: the values.
        source: where they come from, for messages.

    Raises:
        InputError: unknown key (with the nearest valid one), wrong type, impossible value.
    """
    try:
        checked: T = _adapter(cls).validate_python(data)
    except ValidationError as error:
        messages = [_explain(item) for item in error.errors(include_url=False)]
        # Unknown keys first: a misspelt key often is the cause of the others.
        messages.sort(key=lambda message: "unknown key" not in message)
        more = f" (and {len(messages) - 1} more)" if len(messages) > 1 else ""
        raise InputError(messages[0] + more, where=source) from None
    for key, flag in _flags_as_numbers(data, checked, ""):
        raise InputError(f"{key}: must be a number, got {str(flag).lower()}", where=source)
    return checked


def _flags_as_numbers(given: Any, checked: Any, key: str) -> Iterator[tuple[str, bool]]:
    """Where true or false was given and a number came of it: pydantic takes them as 1 and 0."""
    if isinstance(given, bool):
        if isinstance(checked, int | float) and not isinstance(checked, bool):
            yield key, given
    elif isinstance(given, Mapping):
        for name, value in given.items():
            inner = checked.get(name) if isinstance(checked, Mapping) else getattr(checked, str(name), None)
            yield from _flags_as_numbers(value, inner, f"{key}.{name}" if key else str(name))
    elif isinstance(given, Sequence) and not isinstance(given, str) and isinstance(checked, Sequence):
        for number, (value, inner) in enumerate(zip(given, checked, strict=False)):
            yield from _flags_as_numbers(value, inner, f"{key}.{number}")


def _build(data: dict[str, Any], source: Path) -> Config:
    if isinstance(data.get("data"), dict):
        data["data"] = with_species(data["data"])
    config = validated(Config, with_derived(with_radii(data, source)), source)
    check(config, source)
    return config


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        valid = [name.replace(".N.", ".0.") for name, *_ in describe_fields()]
        valid += sorted({name.rsplit(".", 1)[0] for name in valid} | {name.split(".")[0] for name in valid})
        wanted = ".".join("0" if isinstance(part, int) else str(part) for part in item["loc"])
        near = difflib.get_close_matches(wanted, valid, n=1, cutoff=0.5)
        return f"{key}: unknown key" + (f"; did you mean {near[0]}?" if near else "; see --help for the valid keys")
    message = item["msg"][0].lower() + item["msg"][1:]
    if item["type"] == "missing":
        return f"{key}: missing; give it a value" + (", or radius_angstrom" if key.endswith(".radius_vox") else "")
    return f"{key}: {message}, got {item['input']!r}"


def _resolve_paths(data: Any, folder: Path, where: object) -> None:
    """Make the paths in nested `data` absolute; relative ones are relative to `folder`."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key in _PATH_FIELDS and isinstance(value, str):
                data[key] = _resolved_field(key, value, folder, f"{where}: {key}")
            elif key == _PATHS_FIELD:
                data[key] = _all_resolved(value, folder, f"{where}: {key}")
            else:
                _resolve_paths(value, folder, where)
    elif isinstance(data, list):
        for value in data:
            _resolve_paths(value, folder, where)


def _all_resolved(value: Any, folder: Path, where: str) -> Any:
    if isinstance(value, dict):
        return {name: _all_resolved(path, folder, where) for name, path in value.items()}
    if isinstance(value, list):
        return [_all_resolved(path, folder, where) for path in value]
    return _resolved(value, folder, where) if isinstance(value, str) else value


def _resolved_field(field: str, text: str, folder: Path, where: str) -> str:
    """The path in a field; the name of a model that ships with the package stays a name, unless it is a path's as well."""
    path = _resolved(text, folder, where)
    plain = field == _MODEL_FIELD and len(Path(text).parts) == 1 and not Path(text).suffix and text != "~"
    # What exists in the working folder alone is not meant by a file elsewhere, nor may it pass for what it names.
    return text if plain and not Path(path).exists() and not Path(text).exists() else path


def _resolved(text: str, folder: Path, where: str) -> str:
    try:
        return str((folder / Path(text).expanduser()).resolve())
    except (ValueError, RuntimeError, OSError) as error:  # a zero byte, an unknown ~user, links in a circle
        raise InputError(f"{text!r} cannot be a path: {error}", where=where) from None


def _copy(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data


def _assign(data: Any, parts: Sequence[str], value: Any, key: str) -> None:
    head, *rest = parts
    if isinstance(data, list):
        if not (head.isascii() and head.isdecimal()) or int(head) >= len(data):
            raise InputError(f"{head!r} is no index of a list of {len(data)}", where=key, fix="count from 0")
        if rest:
            _assign(data[int(head)], rest, value, key)
        else:
            data[int(head)] = value
        return
    if not isinstance(data, dict):
        raise InputError("has no such key below it", where=key, fix="see --help for the valid keys")
    if not rest:
        data[head] = value
        return
    if not isinstance(data.get(head), (dict, list)):
        data[head] = {}
    _assign(data[head], rest, value, key)
