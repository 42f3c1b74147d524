"""Reading a study's record: estimates of a metric by data set and case, and differences to the references."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.statistics import Estimate, difference, estimate
from robpicker_jax.system.errors import InputError


@dataclass(frozen=True)
class Record:
    """A study's record, as `collect` makes it.

    Attributes:
        content: the parsed JSON.
    """

    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Record:
        """The record of a file.

        Raises:
            InputError: not readable, or no record.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content["metrics"].items(), content["cases"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"is no record of a study ({error})", where=path) from None
        return cls(content)

    @property
    def species(self) -> list[str]:
        """Names of the species, in the order of their labels."""
        return [entry["name"] for entry in self.content["species"]]

    @property
    def groups(self) -> list[str]:
        """Size groups that have members, small to large."""
        found = {entry["group"] for entry in self.content["species"]}
        return [group for group in ("tiny", "small", "medium", "large") if group in found]

    @property
    def data_sets(self) -> dict[str, str]:
        """Labels of the data sets of which some run is finished, by name."""
        return {name: label for name, label in self.content["data_sets"].items() if name in self.content["metrics"]}

    def label(self, case: str) -> str:
        """Label of a case."""
        return str(self.content["cases"][case]["label"])

    def cases(self, data_set: str, *, shown_only: bool = False) -> list[str]:
        """Cases of which some run on a data set is finished; on request those alone that crowded figures show."""
        finished = self.content["metrics"][data_set]
        cases = self.content["cases"].items()
        return [name for name, case in cases if name in finished and (case["shown"] or not shown_only)]

    def references(self, data_set: str) -> list[str]:
        """References of which some run on a data set is finished."""
        return [name for name in self.content["references"] if name in self.cases(data_set)]

    def seeds(self, data_set: str, case: str) -> list[int]:
        """Seeds whose run is finished."""
        return list(self.content["metrics"][data_set][case]["seeds"])

    def by_seed(self, data_set: str, case: str, metric: str) -> dict[int, float | None]:
        """A metric by seed; empty where it is not measured."""
        found = self.content["metrics"][data_set][case]
        return dict(zip(found["seeds"], found["values"].get(metric, []), strict=False))

    def mean(self, data_set: str, case: str, metric: str) -> Estimate:
        """Mean and intervals of a metric over seeds."""
        return estimate(self.by_seed(data_set, case, metric))

    def difference(self, data_set: str, case: str, metric: str, reference: str) -> Estimate:
        """Paired difference of a metric to a reference's."""
        return difference(self.by_seed(data_set, case, metric), self.by_seed(data_set, reference, metric))

    def cases_with_meta_networks(self, data_set: str) -> list[str]:
        """Cases of which weights or corrections are recorded."""
        finished = self.content["metrics"][data_set]
        kinds = ("weight/", "correction/")
        return [
            case for case in self.cases(data_set) if any(name.startswith(kinds) for name in finished[case]["values"])
        ]

    def averaged(self, data_set: str) -> list[str]:
        """Species of which averages are recorded."""
        values = [case["values"] for case in self.content["metrics"][data_set].values()]
        return [name for name in self.species if any(f"average/edge/{name}" in known for known in values)]

    def curves(self, data_set: str) -> dict[str, dict[str, list[list[float]]]]:
        """Mean curves of the cases with meta networks, where the study draws them: case → name → [[step, value], …]."""
        found: dict[str, dict[str, list[list[float]]]] = self.content["curves"].get(data_set, {})
        return found
