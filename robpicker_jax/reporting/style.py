"""One look for all figures: class colours, type, and PNG files of bounded size."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

# Okabe and Ito's colour-blind-safe hues, then Tol's muted ones; beyond the seventh the line style differs too.
_CLASS_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#999933",
    "#AA4499",
    "#44AA99",
    "#332288",
    "#C9B400",
    "#CC6677",
    "#661100",
)
LINE_STYLES = ("-", "--", ":", "-.")
BACKGROUND_COLOUR = "#8a8f98"
INK = "#1d232b"
FAINT = "#737a85"
ACCENT = "#7b3fa0"
SCORE_MAP = "viridis"
MAX_PNG_BYTES = 200_000
PNG_DPI = 150
_CHARACTER_POINTS, _MARK_POINTS, _ROW_INCHES = 4.9, 44, 0.17  # of a legend: mean width of a letter, its mark, its rows
_BELOW_INCHES = 0.36  # a panel's tick and axis labels

THEME: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": "#b9bec6",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8ec",
    "grid.linewidth": 0.8,
    "xtick.color": "#4a525d",
    "ytick.color": "#4a525d",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.color": INK,
    "text.usetex": False,
    "text.parse_math": False,  # names from users may hold "$"
    "figure.facecolor": "white",
    "image.interpolation": "antialiased",
}


def class_colours(names: Sequence[str]) -> dict[str, str]:
    """Colour of each class by name, in the order of the labels; the background is grey."""
    colours = {name: _CLASS_COLOURS[index % len(_CLASS_COLOURS)] for index, name in enumerate(names)}
    return {"background": BACKGROUND_COLOUR, **colours}


def score_colours(count: int) -> list[str]:
    """Colours of scores from the lowest to the highest: matplotlib's viridis, readable by the colour-blind."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps[SCORE_MAP](np.linspace(0, 1, count))]


def short(name: str, length: int = 36) -> str:
    """A name as figures show it: one line, not too long; matplotlib hides legend texts that begin with "_"."""
    text = " ".join(name.split()) or "unnamed"
    text = text if len(text) <= length else f"{text[: length - 1]}…"
    return f" {text}" if text.startswith("_") else text


def line_style(index: int) -> str:
    """Line style of the class at `index`: a second mark beside its colour, where colours become many."""
    return LINE_STYLES[(index // 7) % len(LINE_STYLES)]


def legend_below(figure: Figure, handles: Sequence[Any], columns: int, **options: Any) -> None:
    """One legend under all axes, reading row by row: as many columns as fit, and a figure that is higher by its rows."""
    width_points = 72 * figure.get_figwidth()
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(columns, len(handles), int(width_points / (_CHARACTER_POINTS * longest + _MARK_POINTS))))
    rows = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + _ROW_INCHES * (rows - 1))
    # matplotlib fills column by column; readers read row by row
    ordered = [handles[index] for start in range(columns) for index in range(start, len(handles), columns)]
    figure.legend(handles=ordered, loc="outside lower center", ncols=columns, **options)


def legend_under(axes: Axes, columns: int = 2, **options: Any) -> None:
    """The legend of one panel, below its axis label, where it hides no curve."""
    from matplotlib.transforms import ScaledTranslation

    handles, labels = axes.get_legend_handles_labels()
    figure: Any = axes.figure
    if handles:
        below = axes.transAxes + ScaledTranslation(0, -_BELOW_INCHES, figure.dpi_scale_trans)
        place: Any = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "bbox_transform": below}
        axes.legend(handles, labels, ncols=min(columns, len(handles)), **place, **options)


def plain_image_axes(axes: Axes) -> None:
    """Axes for a picture: a thin frame and nothing else."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color("#b9bec6")


def png_bytes(figure: Figure, *, max_bytes: int = MAX_PNG_BYTES, dpi: int = PNG_DPI) -> bytes:
    """Render a figure as PNG of at most `max_bytes`: fewer shades of grey first, fewer pixels only then."""
    scale = 1.0
    for _ in range(6):
        image = _render(figure, dpi * scale)
        for greys in (None, 64, 32):
            encoded = _encode(image, greys)
            if len(encoded) <= max_bytes:
                return encoded
        # the size goes about as the number of pixels
        scale *= 0.97 * min((max_bytes / len(encoded)) ** 0.5, 0.95)
    return encoded


def _render(figure: Figure, dpi: float) -> Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(figure)  # Any: these methods have no types
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _encode(image: Image, greys: int | None) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    if greys is not None:
        palette = Image.new("P", (1, 1))
        palette.putpalette(_palette(greys))
        white = image.getpixel((0, 0)) == (255, 255, 255)
        image = image.quantize(palette=palette, dither=Image.Dither.NONE)
        if (
            white
        ):  # Pillow matches colours to about 2 % only, and on a white page an almost white picture has visible edges
            entries = image.getpalette() or []
            corner = 3 * int(np.asarray(image)[0, 0])
            entries[corner : corner + 3] = [255, 255, 255]
            image.putpalette(entries)
    image.save(buffer, format="PNG", compress_level=7)
    return buffer.getvalue()


def _palette(greys: int) -> list[int]:
    """Shades of grey, and each class colour blended with white, grey and black as its smoothed edges are.

    A palette made from the picture would hold many greys, which cover most of it, and too few class colours.
    """
    shades = [(value, value, value) for value in np.linspace(0, 255, greys)]
    for colour in (*_CLASS_COLOURS, ACCENT):
        base = 255 * np.array(rgb(colour))
        shades.append(tuple(base))
        for other in (255, 128, 0):
            shades += [tuple(base * share + other * (1 - share)) for share in (0.75, 0.5, 0.25)]
    shades += [tuple(255 * np.array(rgb(colour))) for colour in score_colours(8)]
    return [round(channel) for shade in shades for channel in shade]


def theme() -> Any:
    """Context in which figures are built and rendered."""
    import matplotlib

    return matplotlib.rc_context(rc=THEME)


def rgb(colour: str) -> tuple[float, float, float]:
    """A colour as three numbers in [0, 1]."""
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def colour_of(colours: Mapping[str, str], name: str) -> str:
    """Colour of a class by name, grey where it is unknown."""
    return colours.get(name, BACKGROUND_COLOUR)
