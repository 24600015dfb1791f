"""The stylometry of one book as a folder of tables and pictures, and as a few lines of text."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hlm_jax.analysis.authorship.delta import Scale, distances
from hlm_jax.analysis.stylometry import (
    PER,
    Components,
    Features,
    Preference,
    Slice,
    coordinates,
    figures,
    rolling_distances,
    slices,
    stylo,
    ward,
    zeta,
)
from hlm_jax.analysis.tables import write_csv
from hlm_jax.book.chapters import Chapter
from hlm_jax.errors import UserError
from hlm_jax.numbers import written_numbers

FEWEST = 3  # chapters that can be compared
MOST_NAMED, MOST_DRAWN = 15, 20  # markers of each side in the lines and in the picture
STYLO_ROWS = 5000  # of the table of frequencies: stylo's mfw.list.cutoff
DISTANCES = {
    "delta": "Burrows' Delta",
    "cosine": "Cosine Delta",
    "eder": "Eder's Delta",
    "manhattan": "Manhattan distance",
}
_PER = "per_10000_units"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to count.

    Attributes:
      features: how many of the most frequent n-grams are compared.
      n: units of an n-gram, 1 or 2.
      measure: the distance, one of delta.MEASURES.
      size, step: of a slice, in units.
      segment: of Zeta, in units.
      punctuation: whether marks are units.
      milestones: numbers of chapters after which the curve has an upright line.
    """

    features: int = 150
    n: int = 1
    measure: str = "delta"
    size: int = 5000
    step: int = 1000
    segment: int = 2000
    punctuation: bool = False
    milestones: tuple[int, ...] = ()


class Survey:
    """The chapters of a book, counted and compared.

    Args:
      chapters: what is compared, below their headings.
      a, b: two sets of them for rolling distances and Zeta; both or none.

    Attributes:
      groups: the set of each chapter, "A", "B" or "other".
      features, frequencies_NF, scale, components, slices: as in stylometry.
      distances_NN: between chapters.

    Raises:
      UserError: fewer than three chapters, sets that share one or lie outside, a slice longer than
        the text, a milestone that is no chapter.
    """

    def __init__(
        self,
        chapters: Sequence[Chapter],
        settings: Settings,
        a: Sequence[Chapter] = (),
        b: Sequence[Chapter] = (),
    ):
        if len(chapters) < FEWEST:
            raise UserError(f"{len(chapters)} chapters: stylometry compares at least {FEWEST}")
        self.chapters, self.settings, self.sets = chapters, settings, {"A": a, "B": b}
        self.numbers = [chapter.number for chapter in chapters]
        self.texts = [chapter.body for chapter in chapters]
        self.groups = self._groups()
        for after in settings.milestones:
            if after not in self.numbers:
                raise UserError(f"milestone {after}: no such chapter among those compared")
        self.features = self.most_frequent(settings.features)
        self.frequencies_NF = self.features.frequencies(self.texts)
        self.scale = Scale.of(self.frequencies_NF)
        x_NF = coordinates(self.frequencies_NF, self.scale, settings.measure)
        self.distances_NN = distances(x_NF, x_NF, settings.measure)
        self.components = Components.of(self.scale.z(self.frequencies_NF))
        self.slices = slices(self.features, self.texts, settings.size, settings.step)

    def most_frequent(self, count: int) -> Features:
        """The most frequent n-grams of the book, of the kind that the settings name."""
        kind = self.settings
        return Features.of(self.texts, count, kind.n, punctuation=kind.punctuation)

    @functools.cached_property
    def rolling(self) -> dict[str, np.ndarray]:
        """{"A": distances of the slices from the rest of A, "B": …}, [slices]; {} without sets."""
        if "A" not in self.groups:
            return {}
        members = {side: np.array([group == side for group in self.groups]) for side in self.sets}
        known = self.slices, self.frequencies_NF, self.scale
        measure = self.settings.measure
        return {side: rolling_distances(*known, m, measure) for side, m in members.items()}

    @functools.cached_property
    def zetas(self) -> dict[int, list[Preference]]:
        """Zeta of single units and of pairs, {1: …, 2: …}; {} without sets."""
        if "A" not in self.groups:
            return {}
        kind = {"segment": self.settings.segment, "punctuation": self.settings.punctuation}
        texts = [[chapter.body for chapter in side] for side in self.sets.values()]
        return {n: zeta(*texts, n=n, **kind) for n in (1, 2)}  # type: ignore[arg-type]

    def place_of(self, one: Slice) -> float:
        """A slice's middle on the axis of chapters: chapter n reaches from n - 0.5 to n + 0.5."""
        at = min(int(one.place), len(self.numbers) - 1)
        return self.numbers[at] + (one.place - at) - 0.5

    def _groups(self) -> list[str]:
        held = {side: {chapter.number for chapter in some} for side, some in self.sets.items()}
        if bool(held["A"]) != bool(held["B"]):
            raise UserError("give both sets, --a and --b, or none")
        if both := held["A"] & held["B"]:
            raise UserError(f"chapters {written_numbers(both)} stand in both --a and --b")
        if missing := (held["A"] | held["B"]) - set(self.numbers):
            raise UserError(
                f"chapters {written_numbers(missing)} of --a or --b are not among --chapters"
            )
        return [next((s for s in held if n in held[s]), "other") for n in self.numbers]


# --- tables ---


def write_tables(found: Survey, out: Path) -> None:
    """Writes the CSV files of docs/stylometry.md into a folder."""
    features, scale, numbers = found.features, found.scale, found.numbers
    ranks = range(1, len(features.names) + 1)
    counted = zip(
        ranks, features.names, features.counts, scale.mean_F, scale.deviation_F, strict=True
    )
    head = ["rank", "feature", "count", f"mean_{_PER}", f"deviation_{_PER}"]
    write_csv(out / "features.csv", head, counted)
    z_NF = scale.z(found.frequencies_NF)
    for name, columns, table in (
        ("frequencies", features.names, found.frequencies_NF),
        ("zscores", features.names, z_NF),
        ("distances", tuple(map(str, numbers)), found.distances_NN),
    ):
        rows = ([number, *row] for number, row in zip(numbers, table, strict=True))
        write_csv(out / f"{name}.csv", ["chapter", *columns], rows)
    both = ["component_1", "component_2"]
    scores = zip(numbers, found.groups, *found.components.scores_NK.T, strict=True)
    write_csv(out / "pca.csv", ["chapter", "set", *both], scores)
    loadings = zip(ranks, features.names, *found.components.loadings_FK.T, strict=True)
    write_csv(out / "loadings.csv", ["rank", "feature", *both], loadings)
    rolled = {
        "slice": range(1, len(found.slices) + 1),
        "first_chapter": [numbers[one.first] for one in found.slices],
        "last_chapter": [numbers[one.last] for one in found.slices],
        "start_unit": [one.start for one in found.slices],
        "chapter": [found.place_of(one) for one in found.slices],
        "component_1": first_component(found),
    } | {f"distance_{side.lower()}": values for side, values in found.rolling.items()}
    write_csv(out / "rolling.csv", list(rolled), zip(*rolled.values(), strict=True))
    for n, ranked in found.zetas.items():
        head = ["feature", "zeta", "share_a", "share_b", f"{_PER}_a", f"{_PER}_b"]
        write_csv(out / f"zeta-{n}.csv", head, map(dataclasses.astuple, ranked))


def first_component(found: Survey) -> np.ndarray:
    """The slices on the chapters' first component, [slices]."""
    z_NF = found.scale.z(np.stack([one.frequencies_F for one in found.slices]))
    return found.components.project(z_NF)[:, 0]


# --- pictures ---


def draw(found: Survey, out: Path) -> None:
    """Writes the PNG files of docs/stylometry.md into a folder."""
    settings, features, components = found.settings, found.features, found.components
    labels = [str(number) for number in found.numbers]
    names = {side: _named(side, some) for side, some in found.sets.items()} | {"other": "other"}
    groups = [names[group] for group in found.groups]
    kind = features.unit if features.n == 1 else f"pairs of {features.unit}"
    title = f"Chapters by the {len(features.names)} most frequent {kind}"
    measure = DISTANCES[settings.measure]
    linkage = ward(found.distances_NN)
    tree = figures.tree(linkage, labels, groups, title, f"{measure}, Ward's linkage")
    figures.save(tree, out / "dendrogram.png")
    scores = components.scores_NK, components.explained_K, labels, groups
    plane = figures.map_of_texts(*scores, components.loadings_FK, features.names, title)
    figures.save(plane, out / "pca.png")
    along = f"Slices of {settings.size:,} {features.unit}, every {settings.step:,}"
    y, y_label = first_component(found), "component 1"
    if found.rolling:
        y, y_label = found.rolling["A"] - found.rolling["B"], f"{measure} to A minus to B"
        along += ": below 0 nearer to A, above 0 nearer to B"
    curve = figures.along_the_book(
        {y_label: (np.array([found.place_of(one) for one in found.slices]), y)},
        [after + 0.5 for after in settings.milestones],
        x_label="chapter",
        y_label=y_label,
        title=along,
        zero=True,
    )
    figures.save(curve, out / "rolling.png")
    for n, ranked in found.zetas.items():
        sides = {
            f"preferred by {names[side]}": [(m.name, m.zeta) for m in markers(ranked, side)]
            for side in found.sets
        }
        of = features.unit if n == 1 else f"pairs of {features.unit}"
        title = f"Craig's Zeta of {of}, segments of about {settings.segment:,}"
        figures.save(
            figures.opposed_bars(sides, x_label="Zeta", title=title), out / f"zeta-{n}.png"
        )


def _named(side: str, chapters: Sequence[Chapter]) -> str:
    words = written_numbers(chapter.number for chapter in chapters)
    return f"{side}: {words if len(words) <= 24 else f'{len(chapters)} chapters'}"


def markers(ranked: Sequence[Preference], side: str) -> list[Preference]:
    """The strongest markers of a side, at most MOST_DRAWN."""
    of_a = side == "A"
    order = ranked if of_a else reversed(ranked)
    return [one for one in order if (one.zeta > 1 if of_a else one.zeta < 1)][:MOST_DRAWN]


# --- text ---


def lines(found: Survey) -> list[str]:
    """What was found, for a terminal."""
    features, components = found.features, found.components
    share = found.frequencies_NF.sum(axis=1).mean() / PER
    covered = f", {share:.0%} of the text" if features.n == 1 else ""
    out = [
        f"{len(found.chapters)} chapters; {len(features.names)} features{covered}; "
        f"{DISTANCES[found.settings.measure]}; most frequent: {', '.join(features.names[:20])}"
    ]
    for k, part in enumerate(components.explained_K):
        order = np.argsort(components.loadings_FK[:, k])
        low, high = ([features.names[f] for f in some] for some in (order[:8], order[:-9:-1]))
        out.append(
            f"component {k + 1}: {part:.1%} of the variance; "
            f"above 0 {', '.join(high)}; below 0 {', '.join(low)}"
        )
    if found.rolling:
        parts = filter(None, (_nearer(found, side) for side in found.sets))
        out.append(f"slices: {', '.join(parts) or 'none lies inside one set'}")
    for n, ranked in found.zetas.items():
        of = "single" if n == 1 else "pairs"
        for side in found.sets:
            names = ", ".join(one.name for one in markers(ranked, side)[:MOST_NAMED])
            out.append(f"Zeta, {of}, preferred by {side}: {names or 'none'}")
    return out


def _nearer(found: Survey, side: str) -> str:
    """How many slices inside a set lie nearer to the rest of it, and where the others are."""
    difference = found.rolling["A"] - found.rolling["B"]
    near, others = 0, []
    for one, value in zip(found.slices, difference, strict=True):
        if set(found.groups[one.first : one.last + 1]) == {side}:
            if value < 0 if side == "A" else value > 0:
                near += 1
            else:
                others.append(round(found.place_of(one)))
    if not near and not others:
        return ""
    where = f" (not: {written_numbers(others)})" if others else ""
    return f"{near} of {near + len(others)} of {side} are nearer to the rest of {side}{where}"


def write_stylo(found: Survey, folder: str | Path) -> Path:
    """The book for R's stylo: classes A and B, or "other"; without sets "chapter".

    Raises:
      UserError: as stylo.write_stylo.
    """
    classes = found.groups if "A" in found.groups else ["chapter"] * len(found.chapters)
    table = found.most_frequent(max(STYLO_ROWS, found.settings.features))
    return stylo.write_stylo(folder, found.chapters, classes, table)
