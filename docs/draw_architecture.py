"""Draw the rooms of the package and what they import, from the code: `python docs/draw_architecture.py`.

The rooms and their order are those of the import contract in pyproject.toml, the imports are read by grimp. The picture,
docs/images/architecture.svg, shows the imports that no longer path implies (the transitive reduction), and carries all
of them as data in its metadata: `--check` compares these with the code and exits with 1 where they differ.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import sys
from pathlib import Path

import grimp
import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch

DOCS = Path(__file__).resolve().parent
if str(DOCS) not in sys.path:
    sys.path.insert(0, str(DOCS))

from site_hooks import PACKAGE, rooms  # noqa: E402

PICTURE = DOCS / "images" / "architecture.svg"
INCHES = (1.0, 0.72)  # of one unit sideways and of one level upwards
BOX = (0.8, 0.3)  # width and height that an arrow leaves free about the middle of a room, in inches
Imports = dict[str, list[str]]


def imports_of_rooms() -> Imports:
    """Rooms that each room imports, from the top room to the bottom one, imports for type checking included."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=False, cache_dir=None)
    order = rooms()
    found: dict[str, set[str]] = {room: set() for room in order}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            here, there = (module.split(".")[1] if "." in module else "" for module in (importer, imported))
            if here in found and there in found and here != there:
                found[here].add(there)
    return {room: sorted(found[room], key=order.index) for room in order}


def reachable(imports: Imports, start: str) -> set[str]:
    """Rooms that a room imports, directly or by way of others."""
    seen: set[str] = set()
    waiting = list(imports[start])
    while waiting:
        room = waiting.pop()
        if room not in seen:
            seen.add(room)
            waiting += imports[room]
    return seen


def reduced(imports: Imports) -> Imports:
    """The imports without those that a longer path implies."""
    return {
        room: [to for to in direct if not any(to in reachable(imports, other) for other in direct if other != to)]
        for room, direct in imports.items()
    }


def levels(imports: Imports) -> dict[str, int]:
    """Height of each room: the number of imports on the longest path down from it."""
    height: dict[str, int] = {}
    for room in reversed(imports):  # from the bottom: what a room imports has its height already
        upward = [to for to in imports[room] if to not in height]
        if upward:
            raise ValueError(f"{room} imports {', '.join(upward)}, which lie above it: lint-imports says where")
        height[room] = 1 + max((height[to] for to in imports[room]), default=-1)
    return height


def positions(imports: Imports) -> dict[str, tuple[float, float]]:
    """Where each room is drawn: its level upwards; sideways near the rooms it imports."""
    height = levels(imports)
    drawn = reduced(imports)
    where: dict[str, tuple[float, float]] = {}
    for level in range(max(height.values()) + 1):
        here = [room for room in imports if height[room] == level]

        def wanted(room: str) -> float:
            below = [where[to][0] for to in drawn[room]]
            return sum(below) / len(below) if below else 0.0

        here.sort(key=lambda room: (wanted(room), room))
        middle = sum(wanted(room) for room in here) / len(here)
        for k, room in enumerate(here):
            where[room] = (0.6 * middle + 2.0 * (k - (len(here) - 1) / 2), float(level))
    return where


def bend(start: tuple[float, float], end: tuple[float, float], others: list[tuple[float, float]]) -> float:
    """Bend of an arrow (the `rad` of matplotlib's arc3) that crosses fewest other rooms, the smallest of those; inches."""
    (x0, y0), (x1, y1) = start, end

    def crossings(rad: float) -> int:
        control = (x0 + x1) / 2 + rad * (y1 - y0), (y0 + y1) / 2 - rad * (x1 - x0)
        count = 0
        for t in (k / 40 for k in range(1, 40)):
            a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
            x, y = a * x0 + b * control[0] + c * x1, a * y0 + b * control[1] + c * y1
            count += sum(abs(x - u) < BOX[0] / 2 and abs(y - v) < BOX[1] / 2 for u, v in others)
        return count

    return min((0.0, 0.1, -0.1, 0.2, -0.2, 0.3, -0.3, 0.4, -0.4, 0.5, -0.5), key=crossings)


def draw(imports: Imports, path: Path) -> None:
    """Write the picture, byte for byte the same for the same imports and version of matplotlib."""
    plt.rcParams.update({"svg.hashsalt": PACKAGE, "svg.fonttype": "none", "font.family": "sans-serif"})
    where = {room: (x * INCHES[0], y * INCHES[1]) for room, (x, y) in positions(imports).items()}
    xs, ys = zip(*where.values(), strict=True)
    figure = plt.figure(figsize=(max(xs) - min(xs) + 1.4, max(ys) - min(ys) + 0.6))
    axes = figure.add_axes((0, 0, 1, 1))  # one unit is one inch
    for room, targets in reduced(imports).items():
        for to in targets:
            (x0, y0), (x1, y1) = where[room], where[to]
            start, end = (x0, y0 - 0.15), (x1, y1 + 0.15)
            rad = bend(start, end, [where[other] for other in where if other not in (room, to)])
            arrow = FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=9,
                linewidth=0.9,
                color="#8a94a6",
                connectionstyle=f"arc3,rad={rad}",
                shrinkA=0,
                shrinkB=1,
            )
            axes.add_patch(arrow)
    for room, (x, y) in where.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#eaf0fb", "edgecolor": "#3d5a98", "linewidth": 0.9}
        axes.text(x, y, room, ha="center", va="center", fontsize=10, color="#14213d", bbox=box, zorder=3)
    axes.set_xlim(min(xs) - 0.7, max(xs) + 0.7)
    axes.set_ylim(min(ys) - 0.3, max(ys) + 0.3)
    axes.axis("off")
    description = json.dumps(imports, separators=(",", ":"))
    metadata = {"Date": None, "Title": f"Rooms of {PACKAGE} and their imports", "Description": description}
    figure.savefig(path, format="svg", facecolor="white", metadata=metadata)
    plt.close(figure)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def imports_in_picture(path: Path = PICTURE) -> Imports:
    """The imports that a picture was drawn from."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", path.read_text(encoding="utf-8"), re.DOTALL)
    if found is None:
        raise ValueError(f"{path} carries no imports: draw it again with docs/draw_architecture.py")
    imports: Imports = json.loads(html.unescape(found.group(1)))
    return imports


def main() -> int:
    """Draw the picture, or compare it with the code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="draw nothing; exit with 1 where the picture is out of date"
    )
    arguments = parser.parse_args()
    imports = imports_of_rooms()
    if arguments.check:
        if imports_in_picture() == imports:
            return 0
        print(f"{PICTURE.name} does not show the imports of the code: run python docs/draw_architecture.py")
        return 1
    draw(imports, PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
