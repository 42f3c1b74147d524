"""Which of a picker's species go into the lists, and what they are called there: `pick --species`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.system.errors import InputError

KEY = "--species"


@dataclass(frozen=True)
class SpeciesChoice:
    """The species that are written. Classes of the lists are numbered from 1 in their order.

    The picker finds all of its species, and limits such as smallest distances hold between all of them. What is not
    chosen is left out afterwards, so that the picks of a species are the same whichever others are written.

    Attributes:
        class_names: the picker's name of class 1, 2, ….
        written: name in the lists of each chosen species, by the picker's name of it. Several may share one.
    """

    class_names: tuple[str, ...]
    written: Mapping[str, str]

    @classmethod
    def of(cls, given: Iterable[str], class_names: Sequence[str]) -> SpeciesChoice:
        """The choice that a user names.

        Args:
            given: `NAME` or `NAME=OTHER`, where OTHER is the name in the lists, several of them with commas between;
                none: all species under the picker's names.
            class_names: the picker's name of class 1, 2, ….

        Raises:
            InputError: a species that the picker does not have or that is named twice, or an empty name.
        """
        written: dict[str, str] = {}
        for text in _entries(given, class_names):
            name, equals, other = (text, "", "") if text in class_names else map(str.strip, text.partition("="))
            if name not in class_names:
                raise InputError(f"no species {name!r}", where=KEY, fix=f"the species are {', '.join(class_names)}")
            if name in written:
                raise InputError(f"{name!r} is named twice", where=KEY, fix="name each species once")
            if equals and not other:
                raise InputError(f"{text!r} gives {name!r} no name", where=KEY, fix="write NAME=OTHER, or NAME alone")
            written[name] = other or name
        return cls(tuple(class_names), written or {name: name for name in class_names})

    @property
    def names(self) -> list[str]:
        """Names in the lists, that of class 1 first."""
        return list(dict.fromkeys(self.written.values()))

    @property
    def is_everything(self) -> bool:
        """Whether every species is written, in the picker's order and under its names."""
        return list(self.written.items()) == [(name, name) for name in self.class_names]

    def species_of(self, name: str) -> list[str]:
        """The picker's names of the species that go by a name in the lists."""
        return [species for species, written in self.written.items() if written == name]

    def renamed(self, names: Mapping[str, str]) -> SpeciesChoice:
        """Those of the species whose name in the lists is known, under other names.

        Args:
            names: the other name by the name in the lists.
        """
        kept = {species: names[name] for species, name in self.written.items() if name in names}
        return SpeciesChoice(self.class_names, kept)

    def of_picks(self, picks: Particles) -> Particles:
        """The chosen ones of the picker's picks, with labels and names as in the lists."""
        if self.is_everything:
            return picks
        label_of = {name: label for label, name in enumerate(self.names, start=1)}
        table = np.array([0, *(label_of.get(self.written.get(name, ""), 0) for name in self.class_names)], np.int32)
        chosen = picks.select(table[picks.labels] > 0)
        labels = table[chosen.labels]
        names = np.array(["", *self.names], dtype=np.str_)[labels]
        return chosen.with_(labels=labels, class_names=names)


def _entries(given: Iterable[str], class_names: Sequence[str]) -> Iterable[str]:
    """The single `NAME` and `NAME=OTHER`; a name with a comma in it is taken as it is."""
    for text in given:
        yield from [text] if text in class_names else map(str.strip, text.split(","))
