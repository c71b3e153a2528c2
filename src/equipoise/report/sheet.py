"""Several panels as one SVG file that stands alone: for documents that show figures as images."""

import re
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import escape

from equipoise.report.arms import GLYPHS, Arm
from equipoise.report.svg import THEMED, WIDTH, Panel

GAP, LINE, MARGIN = 18, 19, 10
FONT = "DejaVu Sans, Verdana, sans-serif"
CHARACTER = 6.7  # width of one at size 11, for breaking a legend into lines
Key = tuple[str, str, str]  # glyph, its colour, label


def arm_keys(arms: Mapping[str, Arm]) -> list[Key]:
    """Give the keys of a legend of arms."""
    return [(GLYPHS.get(arm.marker, "●"), arm.colour, arm.label) for arm in arms.values()]


def scale_keys(steps: Iterable[tuple[str, str]]) -> list[Key]:
    """Give the keys of a scale of colours."""
    return [("■", colour, label) for label, colour in steps]


def sheet(panels: Sequence[Panel], *, columns: int, legends: Sequence[Sequence[Key]] = ()) -> str:
    """Lay panels out in a grid on a light background, with lines of keys above, and return the file's text.

    Colours that follow the theme of a page are those of its light form here.
    """
    columns = min(columns, len(panels))
    width = columns * WIDTH + (columns - 1) * GAP + 2 * MARGIN
    lines = [line for keys in legends for line in _broken(keys, width - 2 * MARGIN)]
    body = [f'<text y="{MARGIN + LINE * (i + 0.7):g}">{_keys(line)}</text>' for i, line in enumerate(lines)]
    top = MARGIN + LINE * len(lines)
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        heights = [_height(one) for one in row]
        for i, (one, height) in enumerate(zip(row, heights)):
            place = f'x="{MARGIN + i * (WIDTH + GAP)}" y="{top}" width="{WIDTH}" height="{height:g}"'
            body.append(str(one.svg).replace("<svg ", f"<svg {place} ", 1))
        top += max(heights) + GAP
    height = top - GAP + MARGIN
    label = escape(" ".join(one.label for one in panels))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} '
        f'{height:g}" width="{width}" height="{height:g}" role="img" aria-label="{label}" font-family="{FONT}" '
        f'font-size="11"><rect width="100%" height="100%" fill="#fefefe"/>'
    )
    text = "\n".join([head, *body, "</svg>"]) + "\n"
    for colour, variable in THEMED.items():
        text = text.replace(variable, colour)
    return text


def _height(one: Panel) -> float:
    found = re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', one.svg)
    assert found, "a panel's SVG begins at 0 0"
    return float(found[1])


def _broken(keys: Sequence[Key], width: float) -> list[list[Key]]:
    lines: list[list[Key]] = [[]]
    used = 0.0
    for key in keys:
        wide = _wide(key)
        if lines[-1] and used + wide > width:
            lines.append([])
            used = 0.0
        lines[-1].append(key)
        used += wide
    return [line for line in lines if line]


def _keys(line: Sequence[Key]) -> str:
    parts, x = [], float(MARGIN)
    for key in line:
        glyph, colour, label = key
        parts.append(f'<tspan x="{x:g}" fill="{colour}">{glyph}</tspan><tspan dx="4">{escape(label)}</tspan>')
        x += _wide(key)
    return "".join(parts)


def _wide(key: Key) -> float:
    return CHARACTER * (len(key[0]) + len(key[2]) + 3)
