r"""Names of tomograms: one rule for which names mean the same tomogram, and one for the name that lists are written with.

Programs name a tomogram by its tilt series (`TS_01`), its volume (`/data/rec_TS_01.mrc`), Warp's file
(`TS_01.tomostar`), or a volume whose name says how it was made (`TS_01_10.00Apx`, `TS_01_bin4`, `TS_01_denoised`).

Matching: two names mean one tomogram where they agree after the folder, suffixes of files, `rec_` at the start, the
endings in `_ENDINGS` and zero padding of bare numbers are left out. Where some candidates agree more closely, these
alone count, so that `TS_01_half1` finds itself rather than `TS_01_half2`.

Writing: a name is written without folder and suffix, and otherwise as it is. What is left out for matching may be part
of the name that the next program expects.

A pattern, where the user gives one, goes first in both: a name is what the pattern's first group catches in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from robpicker_jax.system.errors import InputError

TOMOSTAR = ".tomostar"
"""How Warp's names of tomograms end; they are the tilt series' names without it."""

_PREFIX = re.compile(r"rec[_-]", re.IGNORECASE)
_ENDINGS = re.compile(
    r"[_.-](?:\d+(?:\.\d+)?apx|bin_?\d+(?:\.\d+)?|half_?[12]?|even|evn|odd|full|rec|recon|reconstruction|ali|aligned"
    r"|denoised|dn|filtered|filt|deconv|deconvolved|ctf|dctf|wbp|sirt|isonet|corrected|cryocare|topaz|flipx|rotx)$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?:tomo(?:gram)?[_-]?)?0*(\d+)")


@cache
def _suffixes() -> tuple[str, ...]:
    """Suffixes that are no part of a name, the longer ones first."""
    from robpicker_jax.volumes import VOLUME_SUFFIXES  # `convert --help` needs names of formats and no volumes

    return tuple(sorted((*VOLUME_SUFFIXES, TOMOSTAR, ".mdoc", ".eer", ".hdf", ".h5"), key=len, reverse=True))


def plain_name(name: str) -> str:
    """The name that lists are written with: without folder and suffixes of files; `name` itself where nothing is left."""
    stem = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    while suffix := next((suffix for suffix in _suffixes() if stem.lower().endswith(suffix)), None):
        stem = stem[: -len(suffix)]
    return stem if stem.strip(".") else name


def plain_names(names: np.ndarray) -> np.ndarray:
    """`plain_name` of each particle's tomogram, str (n,).

    Raises:
        InputError: two tomograms would get one name.
    """
    plain = {name: plain_name(name) for name in dict.fromkeys(names.tolist())}
    if len(set(plain.values())) < len(plain):
        first: dict[str, str] = {}
        for name, short in plain.items():
            if short in first:
                raise InputError(
                    f"the tomograms {first[short]!r} and {name!r} would both be written as {short!r}",
                    fix="rename one of them, or say with --name-pattern what tells them apart",
                )
            first[short] = name
    return np.array([plain[name] for name in names.tolist()], np.str_)


@dataclass(frozen=True)
class NameRule:
    """How names of tomograms are compared and written.

    Attributes:
        pattern: what of a name counts: its first group, or all that it matches; None for the names as they are.
    """

    pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, text: str | None, where: str = "--name-pattern") -> NameRule:
        """The rule with a pattern given as text, without one where there is no text.

        Raises:
            InputError: not a regular expression.
        """
        try:
            return cls(re.compile(text) if text else None)
        except re.error as error:
            raise InputError(f"not a regular expression ({error})", where=where) from None

    def written(self, name: str) -> str:
        """The name that lists give a tomogram.

        Raises:
            InputError: the pattern does not occur in the name, or matches nothing of it.
        """
        found = self._caught(name) if self.pattern is not None else plain_name(name)
        if not found:
            raise InputError(
                f"{self.pattern.pattern!r} does not occur in {name!r}" if self.pattern else f"{name!r} is no name",
                where="--name-pattern",
                fix="for example 'rec_(.*)'",
            )
        return found

    def same(self, one: str, other: str) -> bool:
        """Whether two names mean one tomogram."""
        return self.key(one) == self.key(other)

    def key(self, name: str) -> str:
        """What names of one tomogram have in common, by which they can be looked up."""
        stem = _PREFIX.sub("", self._shortest(name), count=1)
        while (shorter := _ENDINGS.sub("", stem)) and shorter != stem:
            stem = shorter
        number = _NUMBER.fullmatch(stem)
        return number.group(1) if number else stem

    def matching(self, name: str, candidates: Iterable[str]) -> list[str]:
        """Those of the candidates that mean the tomogram `name`, by the closest agreement that any of them has.

        Raises:
            InputError: different names among the candidates would have to be taken for it.
        """
        candidates = list(candidates)
        found: list[str] = []
        for agree in (str.__eq__, self._same_but_for_files, self.same):
            found = found or [other for other in candidates if agree(name, other)]
        if len({self._shortest(other) for other in found}) > 1:
            raise InputError(
                f"{', '.join(map(repr, sorted(found)[:4]))} may all mean the tomogram {name!r}",
                fix="rename all but one, or say with --name-pattern what of the names counts",
            )
        return found

    def _caught(self, name: str) -> str | None:
        """What the pattern catches in the name without its folder and suffixes, else in all of it."""
        assert self.pattern is not None
        for text in (plain_name(name), name):
            if match := self.pattern.search(text):
                return match.group(1) if self.pattern.groups else match.group()
        return None

    def _shortest(self, name: str) -> str:
        return ((self._caught(name) if self.pattern is not None else None) or plain_name(name)).lower()

    def _same_but_for_files(self, one: str, other: str) -> bool:
        return self._shortest(one) == self._shortest(other)


def same_tomogram(one: str, other: str) -> bool:
    """Whether two names mean one tomogram, without a pattern."""
    return NameRule().same(one, other)
