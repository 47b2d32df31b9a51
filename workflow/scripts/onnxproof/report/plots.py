"""Plots for the report: inline SVG that follows the page's colours, light or dark, with real text.

Matplotlib draws in stand-in colours; each is then replaced by a CSS variable of the page. The same figures
give the same bytes: no date, a fixed hash salt, and an own layout that depends on no installed font.
"""

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

SVG = "{http://www.w3.org/2000/svg}"
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
INK, MUTED, LINE, FAIL, PASS = "#010203", "#010204", "#010205", "#010206", "#010207"
PALETTE_SIZE = 8
STAND_INS = {INK: "--ink", MUTED: "--muted", LINE: "--line", FAIL: "--fail", PASS: "--pass"} | {
    f"#0102{16 + index:02x}": f"--v{index}" for index in range(PALETTE_SIZE)
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "onnxproof",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
}
WIDTH_IN = 3.7
ROW_IN = 0.2
ABOVE_IN = 0.05
BELOW_IN = 0.45  # tick labels and the axis' name
CHAR_IN = 0.068  # a label's width a character, with air to spare
GROUP_GAP = 0.35  # in rows
LABEL_CHARS = 30
SCATTER_IN = 2.6
LARGEST_MARK = 420.0  # area in square points
SMALLEST_MARK = 26.0
LABELLED_POINTS = 12
LABEL_GAP = 9.0  # points from a mark's middle to its label


@dataclass(frozen=True)
class Row:
    """One line of a plot: a label, the figure, and the text beside it.

    ``high`` is the far end of a whisker; ``bound`` is a limit the figure is held to.
    """

    label: str
    value: float | None
    text: str
    colour: str = INK
    high: float | None = None
    bound: float | None = None
    passed: bool = True


Groups = Sequence[tuple[str, Sequence[Row]]]


@dataclass(frozen=True)
class Point:
    """One mark of a scatter plot; ``size`` is what its area stands for, ``passed`` its shape."""

    label: str
    x: float
    y: float
    size: float
    colour: str = INK
    passed: bool = True


def variant_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for every variant name, the same for a name all over a page (first come, first)."""
    unique = list(dict.fromkeys(names))
    return {name: f"#0102{16 + index % PALETTE_SIZE:02x}" for index, name in enumerate(unique)}


def bars(title: str, ident: str, groups: Groups, axis: str, baseline: float | None = None) -> str:
    """Draw horizontal bars from zero, grouped under headings, as an inline SVG.

    ``baseline`` draws a line to compare with (1.0 for speed-ups). A row without a value gets no bar.
    """

    def draw(axes: Axes, height: float, row: Row) -> float:
        if row.value is not None:
            axes.barh(height, row.value, height=0.68, color=row.colour)
        return row.value or 0.0

    def finish(axes: Axes, values: Sequence[float]) -> None:
        axes.set_xlim(0, max([*values, baseline or 0.0, 1e-6]) * 1.28)
        if baseline is not None:
            axes.axvline(baseline, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)), zorder=3)

    return _plot(title, ident, groups, axis, draw, finish)


def dots(title: str, ident: str, groups: Groups, axis: str) -> str:
    """Draw one dot a row on a logarithmic axis, with a whisker up to ``high`` where a row has one."""

    def draw(axes: Axes, height: float, row: Row) -> float:
        if row.value is None or row.value <= 0:
            return 0.0
        high = max(row.high or row.value, row.value)
        axes.plot([row.value, high], [height, height], color=row.colour, linewidth=2, solid_capstyle="butt")
        axes.plot([row.value], [height], marker="o", linestyle="none", markersize=5.5, color=row.colour)
        return high

    return _plot(title, ident, groups, axis, draw, _log_limits(groups, min(_positive(groups))))


def margins(title: str, ident: str, groups: Groups, axis: str) -> str:
    """Draw each row's error as a mark (dot: passed, cross: failed) against its bound, on a log axis.

    Left of the bound is good; zero is shown at the left edge. A row without a value (not finite) has its
    bound alone.
    """
    floor = _floor(groups)

    def draw(axes: Axes, height: float, row: Row) -> float:
        bound = max(row.bound or 0.0, floor)
        axes.plot([bound] * 2, [height - 0.34, height + 0.34], color=INK, linewidth=1.6)
        if row.value is None:
            return bound
        value = max(row.value, floor)
        colour, marker, size = (PASS, "o", 5.5) if row.passed else (FAIL, "X", 7)
        axes.plot([value, bound], [height, height], color=colour, linewidth=1.2, linestyle=(0, (1, 1)))
        axes.plot([value], [height], marker=marker, linestyle="none", markersize=size, color=colour)
        return max(value, bound)

    return _plot(title, ident, groups, axis, draw, _log_limits(groups, floor))


def scatter(title: str, ident: str, points: Sequence[Point], x_axis: str, y_axis: str, baseline: float) -> str:
    """Draw points whose area is their size; ``y`` is a positive error on a logarithmic axis, the smallest on top.

    ``baseline`` is the x that everything is compared with. More than ``LABELLED_POINTS`` points get no labels.
    """
    with matplotlib.rc_context(STYLE | {"ytick.color": MUTED}):
        return _as_inline_svg(_draw_scatter(points, x_axis, y_axis, baseline), title, ident)


def save_scatter(path: Path, points: Sequence[Point], x_axis: str, y_axis: str, baseline: float) -> None:
    """Write what ``scatter`` draws as an SVG file, in the points' own colours and near black."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE | {"ytick.color": MUTED}):
        _draw_scatter(points, x_axis, y_axis, baseline).savefig(path, format="svg", metadata={"Date": None})


def _draw_scatter(points: Sequence[Point], x_axis: str, y_axis: str, baseline: float) -> Figure:
    largest = max(point.size for point in points)
    errors = [point.y for point in points]
    high = max([baseline, *(point.x for point in points)])
    figure = Figure(figsize=(WIDTH_IN, SCATTER_IN))
    axes = figure.add_axes((0.17, BELOW_IN / SCATTER_IN, 0.8, 1 - (BELOW_IN + ABOVE_IN) / SCATTER_IN))
    axes.set_yscale("log")
    axes.set_ylim(max(errors) * 6, min(errors) / 6)
    axes.set_xlim(0, high * 1.3)
    axes.axvline(baseline, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
    for point in sorted(points, key=lambda point: -point.size):
        area = max(LARGEST_MARK * point.size / largest, SMALLEST_MARK)
        marker = "o" if point.passed else "X"
        axes.scatter([point.x], [point.y], s=area, marker=marker, color=point.colour, alpha=0.75, linewidths=0)
    if len(points) <= LABELLED_POINTS:
        _label_points(axes, points)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(which="both", color=LINE, labelsize=7)
    axes.yaxis.set_major_formatter(FormatStrFormatter("%.0e"))
    axes.set_xlabel(x_axis, fontsize=7.5)
    axes.set_ylabel(y_axis, fontsize=7.5)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _label_points(axes: Axes, points: Sequence[Point]) -> None:
    """Write each point's label beside it, right where there is room, and a line lower until it covers no other."""
    taken: list[tuple[float, float, float]] = []
    edge = axes.transAxes.transform((1, 0))[0]
    for point in sorted(points, key=lambda point: (point.y, point.x)):
        x, y = axes.transData.transform((point.x, point.y))
        width, line = len(point.label) * CHAR_IN * 72, 9.0
        goes_right = x + LABEL_GAP + width <= edge
        left = x + LABEL_GAP if goes_right else x - LABEL_GAP - width
        while any(abs(y - other) < line and left < end and start < left + width for start, end, other in taken):
            y -= line
        taken.append((left, left + width, y))
        place: Any = axes.transAxes.inverted().transform((x, y))
        axes.annotate(
            point.label,
            place,
            xycoords="axes fraction",
            xytext=(LABEL_GAP if goes_right else -LABEL_GAP, 0),
            textcoords="offset points",
            ha="left" if goes_right else "right",
            va="center",
            fontsize=7.5,
            color=INK if point.passed else FAIL,
        )


def _positive(groups: Groups) -> list[float]:
    """Return every figure a logarithmic axis can show."""
    shown = [value for _, rows in groups for row in rows for value in (row.value, row.high, row.bound)]
    return [value for value in shown if value is not None and value > 0] or [1.0]


def _floor(groups: Groups) -> float:
    """Return where a logarithmic axis shows zero: left of everything else."""
    return min(_positive(groups)) / 3


def _log_limits(groups: Groups, low: float) -> Callable[[Axes, Sequence[float]], None]:
    """Return a finisher that sets a logarithmic axis from ``low`` past every figure, with room for the texts."""
    high = max(_positive(groups))

    def finish(axes: Axes, values: Sequence[float]) -> None:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * max((high / low) ** 0.35, 2.5))
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_locator(NullLocator())

    return finish


def _plot(
    title: str,
    ident: str,
    groups: Groups,
    axis: str,
    draw: Callable[[Axes, float, Row], float],
    finish: Callable[[Axes, Sequence[float]], None],
) -> str:
    """Lay out the rows under their headings, draw each, and return the SVG."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _frame(groups)
        heights, labels, ends = [], [], []
        height = 0.0
        for heading, rows in groups:
            _write(axes, height, _shorten(heading))
            height += 1
            for row in rows:
                end = draw(axes, height, row)
                heights.append(height)
                labels.append(_shorten(row.label))
                ends.append(end)
                _annotate(axes, height, end, row)
                height += 1
            height += GROUP_GAP
        axes.set_ylim(height - GROUP_GAP - 0.4, -0.6)
        axes.set_yticks(heights, labels)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", which="both", color=LINE, labelsize=7)
        axes.set_xlabel(axis, fontsize=7.5)
        axes.spines[["top", "right", "left"]].set_visible(False)
        finish(axes, ends)
        return _as_inline_svg(figure, title, ident)


def _frame(groups: Groups) -> tuple[Figure, Axes]:
    """Return a figure as high as its rows, with axes that leave room for their labels."""
    lines = sum(len(rows) + GROUP_GAP + 1 for _, rows in groups)
    height = lines * ROW_IN + BELOW_IN + ABOVE_IN
    longest = max((len(_shorten(row.label)) for _, rows in groups for row in rows), default=0)
    left = 0.12 + longest * CHAR_IN
    figure = Figure(figsize=(WIDTH_IN, height))
    box = (left / WIDTH_IN, BELOW_IN / height, 1 - (left + 0.06) / WIDTH_IN, 1 - (BELOW_IN + ABOVE_IN) / height)
    return figure, figure.add_axes(box)


def _write(axes: Axes, height: float, text: str) -> None:
    """Write a group's heading over its rows, from the left edge of the axes."""
    axes.annotate(text, (0, height), xycoords=("axes fraction", "data"), va="center", fontsize=8, fontweight="bold")


def _annotate(axes: Axes, height: float, end: float, row: Row) -> None:
    """Write a row's figure just right of where its drawing ends."""
    absent = row.value is None and row.bound is None
    where: Any = (0, height) if absent else (end, height)
    axes.annotate(
        row.text,
        where,
        xycoords=("axes fraction", "data") if absent else "data",
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=INK if row.passed else FAIL,
    )


def _shorten(text: str) -> str:
    """Shorten a long label in its middle; names tend to differ at their ends."""
    if len(text) <= LABEL_CHARS:
        return text
    half = LABEL_CHARS // 2
    return f"{text[:half]}…{text[-half + 1 :]}"


def _as_inline_svg(figure: Figure, title: str, ident: str) -> str:
    """Return a figure as an ``<svg>`` element for an HTML page.

    Its ids start with ``ident``, so several fit one page; it scales with its box and names itself to
    screen readers. Namespaces and metadata, which hold web addresses, are left out.
    """
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    root = ET.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in [child for child in parent if child.tag == f"{SVG}metadata"]:
            parent.remove(child)
    referenced = set(re.findall(r'(?:href="|url\()#([^")]+)', buffer.getvalue().decode()))
    for element in root.iter():
        if element.get("id") not in referenced:
            element.attrib.pop("id", None)
        _localise(element, ident)
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {"viewBox": view, "role": "img", "aria-labelledby": f"{ident}-title", "class": "plot"}
    heading = ET.Element("title", {"id": f"{ident}-title"})
    heading.text = title
    root.insert(0, heading)
    return ET.tostring(root, encoding="unicode", short_empty_elements=False)


def _localise(element: ET.Element, ident: str) -> None:
    """Strip an element's namespace and prefix its ids and its references to ids."""
    element.tag = element.tag.removeprefix(SVG)
    attributes: dict[str, str] = {}
    for name, value in element.attrib.items():
        if name == "id":
            value = f"{ident}-{value}"
        if name == XLINK_HREF:
            name, value = "href", value.replace("#", f"#{ident}-", 1)
        value = value.replace("url(#", f"url(#{ident}-")
        attributes[name] = _with_page_colours(value) if name == "style" else value
    element.attrib.clear()
    element.attrib |= attributes


def _with_page_colours(style: str) -> str:
    """Replace the stand-in colours in a style by the page's CSS variables."""
    return re.sub(r"#0102[0-9a-f]{2}", lambda match: f"var({STAND_INS[match[0]]})", style)


def legend(colours: Mapping[str, str]) -> dict[str, str]:
    """Return each variant's colour as the CSS variable the plots use."""
    return {name: STAND_INS[colour] for name, colour in colours.items()}
