"""Rows of benchmarks as Markdown: one section a benchmark, cases as lines, metrics as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks._common import Row

MISSING = "not measured"


def sections(rows: Sequence[Row]) -> Iterator[tuple[Row, list[Row]]]:
    """Each benchmark's leading row and its figures."""
    head: Row | None = None
    figures: list[Row] = []
    for item in rows:
        if item["case"] == "machine":
            if head is not None:
                yield head, figures
            head, figures = item, []
        else:
            figures.append(item)
    if head is not None:
        yield head, figures


def markdown(rows: Sequence[Row]) -> str:
    """All tables, with the machine, the versions, the date and the command of each benchmark."""
    parts = []
    for head, figures in sections(rows):
        versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
        parts.append(f"## {head['benchmark']}\n")
        parts.append(f"`{head['command']}`, {head['date']}; {head['machine']}, {head['devices']}; {versions}.\n")
        parts += [table(group) for group in _alike(figures)]
        reasons = dict.fromkeys(item["why"] for item in figures if item["value"] is None)
        parts += [f"{reason[0].upper()}{reason[1:]}.\n" for reason in reasons if reason]
    return "\n".join(parts)


def table(cases: dict[str, list[Row]]) -> str:
    """Cases that have the same metrics, as one table."""
    first = next(iter(cases.values()))
    names = [f"{item['metric']}, {item['unit']}" if item["unit"] else item["metric"] for item in first]
    lines = ["| case | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for case, items in cases.items():
        lines.append(f"| {case} | " + " | ".join(map(_value, items)) + " |")
    return "\n".join(lines) + "\n"


def _alike(figures: Sequence[Row]) -> list[dict[str, list[Row]]]:
    """Cases in groups of the same metrics, in the order of their first figures."""
    cases: dict[str, list[Row]] = {}
    for item in figures:
        cases.setdefault(item["case"], []).append(item)
    groups: dict[tuple[tuple[str, str], ...], dict[str, list[Row]]] = {}
    for case, items in cases.items():
        groups.setdefault(tuple((item["metric"], item["unit"]) for item in items), {})[case] = items
    return list(groups.values())


def _value(item: Row) -> str:
    value = item["value"]
    if value is None:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
