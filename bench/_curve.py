"""A curve over time as an SVG that any browser shows: p99 by second, with the moments of a load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, GAP = 800, 220, 60, 40, 50
COLOURS = ("#1f77b4", "#d62728")


@dataclass(frozen=True)
class Curve:
    """Points as seconds since the load began and microseconds, and named moments in seconds."""

    points: list[tuple[float, float]] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)


def draw(path: Path, curves: Mapping[str, Curve], mib: int) -> None:
    """One panel per curve, all with the same height of axis."""
    top_us = max((value for one in curves.values() for _, value in one.points), default=1.0)
    panels = [_panel(name, one, top_us, index) for index, (name, one) in enumerate(curves.items())]
    height = TOP + len(curves) * (HEIGHT + GAP)
    title = f"readers' p99 (GET and HGETALL, as the shards count it), second by second, while {mib} MiB are loaded"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 20}" height="{height}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n<text x="{LEFT}" y="18">{title}</text>\n' + "".join(panels) + "</svg>\n",
        encoding="utf-8",
    )


def _panel(name: str, curve: Curve, top_us: float, index: int) -> str:
    begin = min((at for at, _ in curve.points), default=0.0)
    end = max((at for at, _ in curve.points), default=1.0)
    top = TOP + index * (HEIGHT + GAP)

    def x(at: float) -> float:
        return LEFT + (at - begin) / max(end - begin, 1e-9) * WIDTH

    def y(value: float) -> float:
        return top + HEIGHT - value / top_us * HEIGHT

    line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in curve.points)
    parts = [
        f'<path d="M{LEFT} {top}V{top + HEIGHT}H{LEFT + WIDTH}" fill="none" stroke="black"/>',
        f'<text x="{LEFT + 8}" y="{top + 12}" font-weight="bold">{name}</text>',
        f'<polyline points="{line}" fill="none" stroke="{COLOURS[index % len(COLOURS)]}" stroke-width="1.5"/>',
    ]
    for tick in range(5):
        value = top_us * tick / 4
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.0f} us</text>')
    for place, (at, what) in enumerate(curve.marks):
        parts.append(f'<path d="M{x(at):.1f} {top}v{HEIGHT}" stroke="grey" stroke-dasharray="4 3"/>')
        parts.append(f'<text x="{x(at) + 3:.1f}" y="{top + 26 + 14 * place}" fill="grey">{what}, {at:.1f} s</text>')
    parts.append(f'<text x="{LEFT + WIDTH}" y="{top + HEIGHT + 16}" text-anchor="end">{end:.0f} s</text>')
    parts.append(f'<text x="{LEFT}" y="{top + HEIGHT + 16}">{begin:.0f} s</text>')
    return "\n".join(parts) + "\n"
