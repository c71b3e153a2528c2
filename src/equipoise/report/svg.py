"""Small figures as inline SVG: drawn by matplotlib without a display, then fitted to the page's ids and colours."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

INK, MUTED, FAINT, PAPER = "#1f2328", "#59636e", "#d8dee4", "#fefefe"
THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", FAINT: "var(--faint)", PAPER: "var(--paper)"}
# 340 units wide with text of 11: a phone shows a panel at its own size, so the text stays 11 px there.
WIDTH, HEIGHT = 340, 268
MARGINS = {"left": 0.165, "right": 0.975, "bottom": 0.165, "top": 0.895}

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # nothing above the axes needs room, and looking for it takes a quarter of the time
    "axes.labelsize": 11,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of arms are data, not formulas
    "path.simplify_threshold": 0.5,
}


_FRACTION = re.compile(r"\d+\.\d{3,}")


@dataclass(frozen=True)
class Panel:
    """One figure of a page: its SVG, and what it shows in words, for those who cannot see it."""

    svg: Markup
    label: str


def panel(name: str, label: str, draw: Callable[[Axes], None], *, height: int = HEIGHT) -> Panel:
    """Let `draw` fill one pair of axes, and return it as inline SVG.

    Args:
        name: unique on the page; it goes before every id, so that figures cannot borrow each other's parts.
        label: what is to be seen, in a sentence.
    """
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        axes = figure.add_axes(
            (
                MARGINS["left"],
                MARGINS["bottom"],
                MARGINS["right"] - MARGINS["left"],
                MARGINS["top"] - MARGINS["bottom"],
            )
        )
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=160)
    return Panel(Markup(clean(buffer.getvalue(), name, label)), label)


def clean(text: str, name: str, label: str) -> str:
    """Make matplotlib's SVG fit to stand inside a page: no prologue, own ids, colours of the page's theme, a label."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*|<style.*?</style>\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(href="#|url\(#)([^")]+)', rf"\g<1>{name}-\g<2>", text)
    for colour, variable in THEMED.items():
        text = text.replace(colour, variable)
    text = re.sub(r' (?:d|x|y)="[^"]*"', lambda m: _FRACTION.sub(_rounded, m[0]), text)
    text = re.sub(r"font: (bold |\d+ )?([\d.]+)px [^;\"]+", _font, text)
    text = re.sub(r">\s+<", "><", text)
    viewbox = re.search(r'viewBox="[^"]+"', text)
    assert viewbox
    head = f'<svg {viewbox[0]} role="img" aria-label="{escape(label)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + text[text.index(">") + 1 :].strip()


def plain_log(axis: Axis) -> None:
    """Label the decades of a logarithmic axis in plain figures: exponents would be too small to read on a phone."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plain_percent(axis: Axis) -> None:
    """Label an axis of shares in percent, with as many decimals as its steps need."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))


def _rounded(match: re.Match[str]) -> str:
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _font(match: re.Match[str]) -> str:
    weight = f"font-weight: {match[1].strip()}; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px"
