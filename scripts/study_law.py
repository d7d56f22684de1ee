#!/usr/bin/env python3
"""Does the law of two knobs that study 3's losses suggested describe other comparisons, of other domains and other models?

    python3 scripts/study_law.py docs/evidence/1b docs/evidence/4 --v docs/evidence/1a      (or runs/evidence/1b …)
    python3 scripts/study_law.py --swarm docs/results/search-eight-domains-swarm.csv --v docs/evidence/1a
    python3 scripts/study_law.py --self-test

The law is study_knobs's exploratory one, with each domain's noise in it,

    L_i = a_i − s ln alpha_i − t ln(B p_i) + beta ln(Σ alpha²v²/p / B),

and s, t, beta as fitted to docs/evidence/3a, 3b and 2-adamw-95 (three domains, equally noisy, so v = 1 there). Nothing is fitted to the
comparisons named: what is predicted is how each arm differs from its comparison's baseline, domain by domain, from the alpha, p and v of
the runs themselves, means over a run. v is that of the comparison's arms that measure it, or of the comparison behind --v.

Slope: of seen on predicted differences, through 0, over domains and arms; 1 where the law is right, 0 where it says nothing. Missed: the
root mean square of seen less predicted, to be held against that of the seen (what is missed by predicting no difference) and against
that of the baseline's repetition (what chance alone makes). Intervals are 95 %, the jackknife's over seeds unless it says otherwise;
those over arms and over domains say how far the slope rests on which ones there are. Beside it stand laws that share its sum s + t, so
that it is seen what tells them apart, and one fitted to the differences themselves. Of a search's swarm: the mixtures that draw from
every domain against the mean of its even ones, and intervals over mixtures.
"""

import argparse
import math
import random
import sys
import tempfile
from html import escape
from pathlib import Path

from comparison import Comparison, gradient_variance, interval, jackknife, make_up, of_domains, root_mean_square, solve, table, through_0, within
from plot_comparison import INK, MUTED, RULE, opening, tick_text, ticks
from study_knobs import dot, fit_own, points_of

NAMES = ("s", "t", "beta")
SAME = 1e-6     # terms that differ by less are the same, recorded to a few digits fewer than f64 has
COLOURS = ("#0b5394", "#b45f06", "#38761d", "#741b47", "#5b5b5b")
FITTED = [Path(__file__).parent.parent / "docs/evidence" / name for name in ("3a", "3b", "2-adamw-95")]


def coefficients(paths):
    """s, t and beta of the static arms of these comparisons, over the seeds that all have."""
    found, seeds = points_of(paths)
    return fit_own([p for p in found if not p.learned], found[0].study.domains, seeds)[0][-3:]


def terms(shares, v, size):
    """By domain, what s, t and beta are multiplied by, for shares[domain] = {alpha, p}."""
    noise = math.log(gradient_variance(shares, v) / size)
    return {name: (-math.log(own["alpha"]), -math.log(size * own["p"]), noise) for name, own in shares.items()}


class Arm:
    """An arm's differences from its baseline: terms[seed][domain] and seen[seed][domain]."""

    def __init__(self, study, arm, v):
        baseline = study.baseline()
        self.study, self.arm, self.importance = study.name, arm, study.importance
        self.terms, self.seen = {}, {}
        for seed in study.seeds(arm, baseline):
            ours, theirs = (terms(study.shares[of][seed], v, study.batch_size[of]) for of in (arm, baseline))
            self.terms[seed] = {name: [x - y for x, y in zip(ours[name], theirs[name])] for name in study.domains}
            self.seen[seed] = {name: study.losses[arm][seed][name] - study.losses[baseline][seed][name] for name in study.domains}

    def points(self, some):
        """By domain (terms, seen), means over those of `some` that the arm has."""
        seeds = [seed for seed in self.seen if seed in some]
        mean = lambda values: sum(values) / len(seeds)
        return {name: ([mean(self.terms[seed][name][k] for seed in seeds) for k in range(3)], mean(self.seen[seed][name] for seed in seeds))
                for name in self.importance}

    def means(self, law):
        """By domain (predicted, seen) over all seeds."""
        return {name: (dot(found, law), seen) for name, (found, seen) in self.points(self.seen).items()}

    def overall(self, law):
        """Predicted and seen, seed by seed, means over the domains by importance."""
        mean = lambda values: sum(share * values[name] for name, share in self.importance.items())
        predicted = [mean({name: dot(found, law) for name, found in self.terms[seed].items()}) for seed in self.seen]
        return predicted, [mean(self.seen[seed]) for seed in self.seen]


def seeds_of(arms):
    return sorted(set().union(*(arm.seen for arm in arms)))


def points(arms, some, names=None):
    return [point for arm in arms for name, point in arm.points(some).items() if names is None or name in names]


def slope(arms, law, some, names=None):
    return through_0([(dot(found, law), seen) for found, seen in points(arms, some, names)])


def missed(arms, law):
    return root_mean_square(seen - dot(found, law) for found, seen in points(arms, seeds_of(arms)))


def told(arms):
    """What these arms can tell: of s, t and beta (0, 1, 2) those whose terms move, in one list where their terms are the same in every
    arm, as s and t where alpha = p, so that their sum alone is told."""
    found, groups = [of for of, _ in points(arms, seeds_of(arms))], []
    for k in (k for k in range(3) if any(abs(of[k]) > SAME for of in found)):
        alike = [group for group in groups if all(abs(of[k] - of[group[0]]) <= SAME for of in found)]
        if alike:
            alike[0].append(k)
        else:
            groups.append([k])
    return groups


def refitted(arms, some, groups):
    """One factor for each of `groups`, of these arms' differences themselves."""
    found = points(arms, some)
    return solve([[x[group[0]] for group in groups] for x, _ in found], [seen for _, seen in found])[0]


def row(name, arms, law):
    """One row of the table; `arms` are those that it is about."""
    seeds = seeds_of(arms)
    cells = [f"{root_mean_square(seen for _, seen in points(arms, seeds)):.3f}", f"{missed(arms, law):.3f}",
             within(jackknife(lambda some: slope(arms, law, some), seeds), "")]
    means = [within(interval(of)) for of in arms[0].overall(law)] if len(arms) == 1 else ["", ""]
    return f"| {name} | " + " | ".join(means + cells) + " |"


def arms_of(paths, measured=None, without=()):
    """All arms but the baselines, and the baselines' repetitions. `measured`: the comparison whose v serves where a comparison's own arms
    do not measure it."""
    elsewhere = Comparison(measured).deviations() if measured else None
    arms, repeated = [], []
    for study in map(Comparison, paths):
        v = of_domains(study.deviations() or elsewhere, study.name, study.domains)
        repeated.append(Arm(study, study.baseline() + "~", v))
        arms += [Arm(study, arm, v) for arm in study.arms() if arm != study.baseline() and arm not in without]
    return arms, repeated


def refits(arms, seeds):
    """Laws fitted to these arms' differences themselves, each with its name: the same factors, with intervals over seeds and over arms."""
    groups = told(arms)
    factors = dict(zip((group[0] for group in groups), refitted(arms, seeds, groups)))
    law = [factors.get(k, 0.0) for k in range(3)]
    wholes = [("seeds", seeds, lambda some: refitted(arms, some, groups))]
    if len(arms) > 3:    # of fewer, each alone tells some factor
        wholes.append(("arms", list(range(len(arms))), lambda some: refitted([arms[i] for i in some], seeds, groups)))
    for over, whole, refit in wholes:
        own = {" + ".join(NAMES[k] for k in group): jackknife(lambda some, n=n: refit(some)[n], whole) for n, group in enumerate(groups)}
        if [0] in groups and [1] in groups:
            own["s + t"] = jackknife(lambda some: sum(refit(some)[:2]), whole)
        yield f"refitted, intervals over {over}: " + ", ".join(f"{name} {within(found, '')}" for name, found in own.items()), law


def report(arms, repeated, law):
    noise = root_mean_square(seen for again in repeated for _, seen in points([again], again.seen))
    lines = ["s {:.3f}, t {:.3f}, beta {:.3f}; the repeated baselines differ by {:.3f} (root mean square over domains)".format(*law, noise),
             "", "| arm | mean: predicted | mean: seen | domains: seen | missed | slope |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [row(f"{arm.study} {arm.arm}", [arm], law) for arm in arms] + [row("all", arms, law)]
    names, seeds = list(arms[0].importance), seeds_of(arms)
    over_arms = jackknife(lambda some: slope([arms[i] for i in some], law, seeds), list(range(len(arms))))
    over_domains = jackknife(lambda some: slope(arms, law, seeds, some), names)
    lines += ["", f"Slope of all, interval over arms: {within(over_arms, '')}; over domains: {within(over_domains, '')}. By domain: "
              + ", ".join(f"{name} {slope(arms, law, seeds, [name]):.2f}" for name in names)]
    s, t, beta = law
    laws = [("as fitted", law), ("what counts alone", (s + t, 0.0, beta)), ("what is drawn alone", (0.0, s + t, beta)),
            ("no noise", (s, t, 0.0)), *refits(arms, seeds)]
    lines += ["", "| law, over all arms | missed | slope |", "| --- | --- | --- |"]
    lines += [f"| {name} | {missed(arms, other):.3f} | {slope(arms, other, seeds):.2f} |" for name, other in laws]
    lines += ["", "| predicted, seen | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for arm in arms:
        means = arm.means(law)
        lines.append(f"| {arm.study} {arm.arm} | " + " | ".join("{:+.3f}, {:+.3f}".format(*means[name]) for name in names) + " |")
    return "\n".join(lines)


def swarm(path, measured, law):
    """The slope over all domains and mixtures of a search's swarm, and each domain's own."""
    rows = table(path)
    names = [column.removeprefix("p:") for column in rows[0] if column.startswith("p:")]
    v = of_domains(Comparison(measured).deviations(), Path(path).name, names)
    shares = lambda row: {name: {"alpha": float(row[f"a:{name}"]), "p": float(row[f"p:{name}"])} for name in v}
    even = [row for row in rows if row["kind"] == "uniform"]
    mixtures = [row for row in rows if row["kind"] != "uniform" and all(own["p"] > 0 for own in shares(row).values())]
    mean = {name: sum(float(row[f"valid:{name}"]) for row in even) / len(even) for name in v}
    value = lambda row: {name: dot(found, law) for name, found in terms(shares(row), v, 1).items()}
    start = value(even[0])
    found = [{name: (value(row)[name] - start[name], float(row[f"valid:{name}"]) - mean[name]) for name in v} for row in mixtures]
    of = lambda some, names: [found[i][name] for i in some for name in names]
    everything = of(range(len(found)), v)
    lines = [f"{len(found)} mixtures; differences from even, seen and missed: {root_mean_square(seen for _, seen in everything):.3f}, "
             f"{root_mean_square(seen - p for p, seen in everything):.3f}", "", "| domain | slope |", "| --- | --- |"]
    for label, names in [*((name, [name]) for name in v), ("all", list(v))]:
        lines.append(f"| {label} | {within(jackknife(lambda some: through_0(of(some, names)), list(range(len(found)))), '')} |")
    return "\n".join(lines)


def figure(arms, law):
    """Seen on predicted, a point for each domain of each arm, as SVG; on the line the law is right."""
    drawn = [(arm, name, *pair) for arm in arms for name, pair in arm.means(law).items()]
    values = [value for point in drawn for value in point[2:]] + [0.0]
    low, high, size, left, top = min(values), max(values), 420, 70, 12
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    at = lambda value: (value - low) / (high - low) * size
    x, y = (lambda value: left + at(value)), (lambda value: top + size - at(value))
    studies = list(dict.fromkeys(arm.study for arm in arms))
    made = opening(left + size + 170, top + size + 52, "Differences of loss by domain: seen, on predicted")
    for tick in ticks(low, high):
        colour, text = (MUTED if tick == 0 else RULE), tick_text(tick)
        made += [f'<line x1="{x(tick):.1f}" y1="{top}" x2="{x(tick):.1f}" y2="{top + size}" stroke="{colour}"/>',
                 f'<line x1="{left}" y1="{y(tick):.1f}" x2="{left + size}" y2="{y(tick):.1f}" stroke="{colour}"/>',
                 f'<text x="{x(tick):.1f}" y="{top + size + 16}" text-anchor="middle">{text}</text>',
                 f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{text}</text>']
    made.append(f'<line x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(high):.1f}" y2="{y(high):.1f}" stroke="{INK}" stroke-dasharray="4 3"/>')
    for arm, name, predicted, seen in drawn:
        colour = COLOURS[studies.index(arm.study) % len(COLOURS)]
        made.append(f'<circle cx="{x(predicted):.1f}" cy="{y(seen):.1f}" r="3.5" fill="{colour}" fill-opacity="0.75">'
                    f"<title>{escape(f'{arm.study} {arm.arm}, {name}')}</title></circle>")
    for number, study in enumerate(studies):
        names = ", ".join(arm.arm for arm in arms if arm.study == study)
        made += [f'<circle cx="{left + size + 20}" cy="{top + 16 + 20 * number}" r="4.5" fill="{COLOURS[number % len(COLOURS)]}">'
                 f"<title>{escape(names)}</title></circle>",
                 f'<text x="{left + size + 32}" y="{top + 20 + 20 * number}">study {escape(study)}</text>']
    made += [f'<text x="{left + size / 2}" y="{top + size + 40}" text-anchor="middle">'
             "difference of loss from the baseline, predicted, nats a token</text>",
             f'<text transform="translate(16 {top + size / 2}) rotate(-90)" text-anchor="middle">seen</text>']
    return "\n".join([*made, "</svg>", ""])


def self_test():
    """s = 0.3, t = 0.2 and beta = 0.3 in both sets of domains; v = 1 where they are fitted. Then losses that know nothing of the law."""
    draw, uniform = random.Random(9), (1 / 3,) * 3
    fitted = [("even", 12, uniform, uniform), ("small", 5, uniform, uniform), ("skewed", 12, uniform, (.8, .1, .1)),
              ("counted", 12, (.8, .1, .1), uniform), ("both", 12, (.5, .25, .25), (.5, .25, .25))]
    four, v = (.25,) * 4, [1.2, 0.8, 1.0, 1.0]
    other = [("even", 16, four, four), ("even~", 16, four, four), ("drawn", 16, (.4, .3, .2, .1), (.4, .3, .2, .1)),
             ("va", 16, four, (.3, .2, .25, .25)), ("counted", 16, (.1, .2, .3, .4), four)]
    common = [draw.gauss(0, 0.05) for _ in range(8)]

    def made(path, names, arms, v, scale):
        laws = {arm: [3 + i - scale * (0.3 * math.log(a) + 0.2 * math.log(size * q)
                                       - 0.3 * math.log(sum((b * w) ** 2 / r for b, w, r in zip(alpha, v, p)) / size))
                      for i, (a, q) in enumerate(zip(alpha, p))] for arm, size, alpha, p in arms}
        known = {arm: (size, alpha, p, v if arm == "va" else None) for arm, size, alpha, p in arms}
        losses = lambda arm, seed: [x + common[seed] + draw.gauss(0, 0.01) for x in laws[arm]]
        make_up(path, dict.fromkeys(names, 1 / len(names)), known, range(8), losses)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made(folder / "fitted", "abc", fitted, [1.0] * 3, 1)
        made(folder / "right", "wxyz", other, v, 1)
        made(folder / "nothing", "wxyz", [arm for arm in other if arm[0] != "va"], v, 0)
        law = coefficients([folder / "fitted"])
        arms, repeated = arms_of([folder / "right"])
        print(report(arms, repeated, law))
        found, half = jackknife(lambda some: slope(arms, law, some), range(8))
        assert abs(found - 1) < half < 0.1, (found, half)
        for k, true in enumerate((0.3, 0.2, 0.3)):
            found, half = jackknife(lambda some: refitted(arms, some, [[0], [1], [2]])[k], range(8))
            assert abs(found - true) < half < 0.2, (k, found, half)
        assert missed(arms, (0.5, 0.0, 0.3)) > 3 * missed(arms, law) < missed(arms, (0.0, 0.5, 0.3))
        drawn = figure(arms, law)
        assert drawn.count('r="3.5"') == 12 and "right counted, z" in drawn
        others, again = arms_of([folder / "nothing"], folder / "right")
        fixed = report(arms_of([folder / "right"], without=["drawn", "counted"])[0], again, law)
        assert "over seeds: t 0.2" in fixed and "beta 0." in fixed, fixed    # where alpha stays, nothing tells s
        alike = report(arms_of([folder / "right"], without=["va", "counted"])[0], again, law)
        assert "over seeds: s + t 0.5" in alike, alike    # where alpha = p, the sum alone is told
        found, half = jackknife(lambda some: slope(others, law, some), range(8))
        assert abs(found) < half < 0.1, (found, half)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="*", help="folders, or the prefixes of kept tables")
    parser.add_argument("--v", help="the comparison whose v serves where one does not measure it")
    parser.add_argument("--without", nargs="+", default=[], metavar="ARM", help="arms to leave out")
    parser.add_argument("--swarm", help="a search's swarm.csv in place of comparisons")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw seen on predicted, too")
    given = parser.parse_args()
    law = coefficients(FITTED)
    if given.swarm and given.v:
        print(swarm(given.swarm, given.v, law))
    elif given.comparisons:
        arms, repeated = arms_of(given.comparisons, given.v, given.without)
        print(report(arms, repeated, law))
        if given.plot:
            given.plot.write_text(figure(arms, law), encoding="utf-8")
    else:
        parser.error("expected comparisons, or --swarm with --v, found neither")


if __name__ == "__main__":
    self_test() if sys.argv[1:] == ["--self-test"] else main()
