"""Charts as SVG, made here: bars that are stacked, and lines over time. Pure.

Each is drawn twice, wide and narrow; the style sheet shows one of them. `static/console.js` shows what a slot says in
its `data-tip` under pointer or arrow keys; without scripts the browser shows its `<title>`. The numbers stand in a
table beside the chart as well.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from markupsafe import Markup, escape

from analytics.web.formats import usd

SERIES_MAX = 7
"""With colours of their own; all others together are `OTHER`."""
OTHER = "all others"
HEIGHT, LEFT, BOTTOM, TOP = 240, 64, 26, 10
WIDTHS = {"wide": 960, "narrow": 380}
TICKS = 4
GAP = 0.2
"""Of a slot, between bars."""
THICKEST = 56


@dataclass(frozen=True)
class Bars:
    """Amounts by slot (a day) and series (a team)."""

    slots: Sequence[str]
    series: Sequence[str]
    amounts: Mapping[tuple[str, str], Decimal]
    """By slot and series."""

    @property
    def is_empty(self) -> bool:
        """Nothing that is to be drawn has an amount."""
        return not any(self.amounts.values())

    def total(self, slot: str) -> Decimal:
        return sum((self.amounts.get((slot, name), Decimal()) for name in self.series), Decimal())


@dataclass(frozen=True)
class Line:
    name: str
    kind: str
    """Class of the line: `spent`, `limit`, `forecast`."""
    points: Sequence[tuple[int, Decimal]]
    """Number of the slot, amount."""


def bars(slots: Sequence[str], rows: Sequence[tuple[str, str, Decimal]]) -> Bars:
    """Of rows (slot, series, amount). The series with most come first; those beyond `SERIES_MAX` become one."""
    sums: dict[str, Decimal] = {}
    for _, name, amount in rows:
        sums[name] = sums.get(name, Decimal()) + amount
    largest = sorted(sums, key=lambda name: (-sums[name], name))
    kept = largest if len(largest) <= SERIES_MAX else largest[: SERIES_MAX - 1]
    amounts: dict[tuple[str, str], Decimal] = {}
    for slot, name, amount in rows:
        at = slot, name if name in kept else OTHER
        amounts[at] = amounts.get(at, Decimal()) + amount
    return Bars(slots, [*kept, OTHER] if len(kept) < len(largest) else kept, amounts)


def stacked(chart: Bars) -> Markup:
    """Drawn, without title and legend."""
    top = _ceiling(max((chart.total(slot) for slot in chart.slots), default=Decimal()))
    return Markup("").join(_stacked(chart, top, kind, width) for kind, width in WIDTHS.items())


def _stacked(chart: Bars, top: Decimal, kind: str, width: int) -> Markup:
    slot_width = (width - LEFT) / max(1, len(chart.slots))
    thick = min(slot_width * (1 - GAP), THICKEST)
    drawn = [_axes(top, chart.slots, slot_width, width)]
    for number, slot in enumerate(chart.slots):
        x, parts, lines, height = LEFT + number * slot_width, [], [], 0.0
        for index, name in enumerate(chart.series):
            amount = chart.amounts.get((slot, name), Decimal())
            if not amount:
                continue
            part = _length(amount, top)
            parts.append(
                Markup('<rect class="s{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.2f}"/>').format(
                    index, x + (slot_width - thick) / 2, _y(0.0) - height - part, thick, part
                )
            )
            height += part
            lines.append(f"{name}: {usd(amount)}")
        drawn.append(_slot(slot, [f"{slot}: {usd(chart.total(slot))}", *lines], x, slot_width, parts))
    return _svg(drawn, kind, width)


def lines(slots: Sequence[str], drawn_lines: Sequence[Line]) -> Markup:
    """Lines over slots, each from the middle of one to the middle of the next."""
    top = _ceiling(max((amount for line in drawn_lines for _, amount in line.points), default=Decimal()))
    return Markup("").join(_lines(slots, drawn_lines, top, kind, width) for kind, width in WIDTHS.items())


def _lines(slots: Sequence[str], drawn_lines: Sequence[Line], top: Decimal, kind: str, width: int) -> Markup:
    slot_width = (width - LEFT) / max(1, len(slots))
    drawn = [_axes(top, slots, slot_width, width)]
    for line in drawn_lines:
        points = " ".join(
            f"{LEFT + (number + 0.5) * slot_width:.1f},{_y(_length(amount, top)):.1f}" for number, amount in line.points
        )
        drawn.append(Markup('<polyline class="line {}" points="{}"/>').format(line.kind, points))
    for number, slot in enumerate(slots):
        told = [f"{line.name}: {usd(amount)}" for line in drawn_lines for at, amount in line.points if at == number]
        drawn.append(_slot(slot, [slot, *told], LEFT + number * slot_width, slot_width, []))
    return _svg(drawn, kind, width)


def _svg(drawn: Sequence[Markup], kind: str, width: int) -> Markup:
    return Markup('<svg class="chart {}" viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(
        kind, width, HEIGHT, Markup("").join(drawn)
    )


def _slot(slot: str, told: Sequence[str], x: float, width: float, parts: Sequence[Markup]) -> Markup:
    tip = "\n".join(told)
    return Markup(
        '<g class="slot" data-tip="{}"><title>{}</title>'
        '<rect class="hit" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>{}</g>'
    ).format(tip, tip, x, TOP, width, HEIGHT - TOP - BOTTOM, Markup("").join(parts))


def _axes(top: Decimal, slots: Sequence[str], slot_width: float, width: int) -> Markup:
    drawn = []
    amounts = [top * tick / TICKS for tick in range(TICKS + 1)]
    for amount, text in zip(amounts, _ticks(amounts), strict=True):
        y = _y(_length(amount, top))
        drawn.append(Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(LEFT, y, width, y))
        drawn.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 6, y + 4, text)
        )
    every = max(1, math.ceil(len(slots) * 84 / max(1, width - LEFT)))
    for number in range(0, len(slots), every):
        x = LEFT + (number + 0.5) * slot_width
        if x > width - 18 > LEFT + 18:
            break
        drawn.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x, HEIGHT - 8, slots[number][-5:] if len(slots[number]) == 10 else slots[number]
            )
        )
    return Markup("").join(drawn)


def _length(amount: Decimal, top: Decimal) -> float:
    return float(amount / top) * (HEIGHT - TOP - BOTTOM) if top else 0.0


def _y(length: float) -> float:
    return HEIGHT - BOTTOM - length


def _ceiling(most: Decimal) -> Decimal:
    """The next round number, for the top of an axis."""
    if most <= 0:
        return Decimal(1)
    power = Decimal(10) ** most.adjusted()
    return next(
        step * power
        for step in map(Decimal, ("1", "1.2", "1.6", "2", "2.4", "3", "4", "5", "6", "8", "10"))
        if step * power >= most
    )


def _ticks(amounts: Sequence[Decimal]) -> list[str]:
    """For an axis, all as fine as the finest: `$0.60`, `$1.20`, or `$1.5k`, `$3.0k`."""
    size, sign = next(
        (
            (size, sign)
            for size, sign in ((Decimal(1_000_000), "M"), (Decimal(1_000), "k"))
            if max(amounts) >= 10 * size
        ),
        (Decimal(1), ""),
    )
    parts = [(amount / size).normalize() for amount in amounts]
    digits = max(-min(int(part.as_tuple().exponent), 0) for part in parts)
    digits = 2 if digits == 1 and not sign else digits
    return [f"${part:,.{digits}f}{sign}" if part else "$0" for part in parts]


def table(chart: Bars, what: str) -> Markup:
    """The same numbers, for who sees no bars."""
    head = Markup("").join(
        Markup('<th scope="col" class="number">{}</th>').format(name) for name in ("all", *chart.series)
    )
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            slot,
            Markup("").join(
                Markup('<td class="number">{}</td>').format(usd(amount))
                for amount in (
                    chart.total(slot),
                    *(chart.amounts.get((slot, name), Decimal()) for name in chart.series),
                )
            ),
        )
        for slot in chart.slots
    )
    return Markup(
        '<table><caption>{}</caption><thead><tr><th scope="col">{}</th>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(what, "month" if chart.slots and len(chart.slots[0]) == len("2026-11") else "day", head, rows)


def legend(chart: Bars) -> Markup:
    return Markup("").join(
        Markup('<li><span class="key s{}"></span>{}</li>').format(index, escape(name))
        for index, name in enumerate(chart.series)
    )
