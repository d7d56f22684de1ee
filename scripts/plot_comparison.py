#!/usr/bin/env python3
"""A comparison as a figure: each arm's loss less the baseline's, its 95 % interval and every seed.

    python3 scripts/plot_comparison.py docs/evidence/3a --margin 0.02 [--by-domain] [--out FILE.svg]
    python3 scripts/plot_comparison.py --self-test

Reads a comparison's folder, or the table NAME.csv that scripts/comparison.py keeps of one, and
writes NAME.svg (NAME-domains.svg) beside it. The baseline is the arm that is there again with other
draws (`NAME~`), whose row shows what chance alone does. The band is the margin, within which a
difference is said not to matter. Intervals are Student's over the pairs of seeds on the windows that
were evaluated, not corrected for the number of arms; those of `cuvee compare` also have what other
windows would change. Needs nothing but Python.
"""

import argparse
import math
import sys
import tempfile
from html import escape
from pathlib import Path

from comparison import Comparison, interval, make_up

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 760, 190, 20, 24, 12, 48
INK, MUTED, MEAN, BAND, RULE = "#24292f", "#8c959f", "#0b5394", "#eaf2fb", "#d0d7de"


def rows_of(study, by_domain):
    """(label, differences seed by seed, whether it is an arm's own row) from the top down."""
    baseline = study.baseline()

    def differences(arm, domain):
        return [study.losses[arm][seed][domain] - study.losses[baseline][seed][domain] for seed in study.seeds(arm, baseline)]

    arms = [arm for arm in study.losses if arm != baseline]
    arms.sort(key=lambda arm: (arm.endswith("~"), interval(study.differences(arm, baseline))[0]))
    rows = []
    for arm in arms:
        rows.append((arm, study.differences(arm, baseline), True))
        if by_domain:
            rows += [(name, differences(arm, name), False) for name in study.domains]
    return baseline, rows


def ticks(low, high):
    """Round numbers, four to nine of them, that lie within."""
    step = 10 ** math.floor(math.log10(high - low))
    step = next(step * k for k in (0.1, 0.2, 0.5, 1.0) if (high - low) / (step * k) < 9)
    return [round(k * step, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_text(tick):
    return f"{tick:+g}".replace("-", "−") if tick else "0"


def opening(width, height, title):
    """The first lines of a figure: its size, font and ground."""
    return [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="{INK}">',
            f"<title>{escape(title)}</title>", '<rect width="100%" height="100%" fill="#ffffff"/>']


def figure(study, margin, by_domain):
    """The SVG."""
    baseline, rows = rows_of(study, by_domain)
    values = [value for _, differences, _ in rows for value in differences] + [0.0, margin, -margin]
    for _, differences, _ in rows:
        mean, half = interval(differences)
        values += [mean - (half or 0.0), mean + (half or 0.0)]
    low, high = min(values), max(values)
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    if low == high:
        low, high = -1.0, 1.0
    bottom = TOP + ROW * len(rows)
    x = lambda value: LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    made = opening(WIDTH, bottom + BOTTOM, f"{study.name}: loss less that of {baseline}")
    if margin:
        made.append(f'<rect x="{x(-margin):.1f}" y="{TOP}" width="{x(margin) - x(-margin):.1f}" height="{bottom - TOP}" fill="{BAND}"/>')
    for tick in ticks(low, high):
        colour, text = (MUTED if tick == 0 else RULE), tick_text(tick)
        made.append(f'<line x1="{x(tick):.1f}" y1="{TOP}" x2="{x(tick):.1f}" y2="{bottom}" stroke="{colour}"/>')
        made.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>')
    for number, (label, differences, own) in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        mean, half = interval(differences)
        chance = label.endswith("~") and own
        colour = MUTED if chance or not own else MEAN
        weight = ' font-weight="bold"' if own and by_domain else ""
        made.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end"{weight} fill="{INK if own else MUTED}">{escape(label)}</text>')
        made += [f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="2" fill="{MUTED}" fill-opacity="0.55"/>' for value in differences]
        if half is not None:
            made.append(f'<line x1="{x(mean - half):.1f}" y1="{y:.1f}" x2="{x(mean + half):.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2.5"/>')
        made.append(f'<circle cx="{x(mean):.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
    made.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{bottom + 38}" text-anchor="middle">'
                f"loss less that of {escape(baseline)}, nats a token (left: better)</text>")
    return "\n".join([*made, "</svg>", ""])


def self_test():
    """An arm 0.2 better and one equal: means where they belong, names escaped, each seed drawn."""
    arms = {"base": (12, (.5, .5), (.5, .5), None), "base~": (12, (.5, .5), (.5, .5), None), "a<b": (12, (.5, .5), (.5, .5), None)}
    gains = {"base": 0.0, "base~": 0.01, "a<b": -0.2}
    with tempfile.TemporaryDirectory() as folder:
        make_up(Path(folder) / "made", {"x": .5, "y": .5}, arms, range(4),
                lambda arm, seed: [3 + gains[arm] + 0.001 * seed * (arm != "base")] * 2)
        study = Comparison(Path(folder) / "made")
        baseline, rows = rows_of(study, True)
        assert baseline == "base" and [label for label, _, _ in rows] == ["a<b", "x", "y", "base~", "x", "y"], rows
        assert abs(interval(rows[0][1])[0] + 0.1985) < 1e-9, rows[0]
        text = figure(study, 0.05, False)
        assert "a&lt;b" in text and text.count('r="2"') == 8 and text.count('r="4.5"') == 2
    assert ticks(-0.213, 0.02) == [-0.2, -0.15, -0.1, -0.05, 0.0] and 4 <= len(ticks(-3.7, 11.2)) <= 9


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--margin", type=float, default=0.0)
    parser.add_argument("--by-domain", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    ending = "-domains.svg" if given.by_domain else ".svg"
    out = given.out or given.comparison.with_name(given.comparison.name + ending)
    out.write_text(figure(Comparison(given.comparison), given.margin, given.by_domain), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    self_test() if sys.argv[1:] == ["--self-test"] else main()
