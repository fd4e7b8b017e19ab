"""The table of `bench_raters`: means, paired differences with intervals, and whether the stated figures are true."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.bench_quality import interval


class Result(NamedTuple):
    """The figures of one method on one task."""

    data: str
    person: str
    """A rater, or a taste of the photographs."""
    draw: int
    n_scores: int
    method: str
    spearman: float
    right_pairs: float
    """Share of pairs of held-out images in the right order, 0...1."""
    seconds: float = 0.0
    """Processor time."""
    stated: float | None = None
    """The share of right pairs that the model file states."""
    bounds: tuple[float, float] | None = None
    """The 95 % interval that it states."""
    n_bytes: int = 0
    """Of the model file."""

    @property
    def task(self) -> tuple[str, str, int, int]:
        return self.data, self.person, self.draw, self.n_scores


def table_of(results: Sequence[Result], program: str) -> str:
    """Return mean Spearman of each method by number of scores, then the program's difference to each, with intervals.

    Differences are means of one rater's draws, or of the tastes on one draw of the photographs.
    """
    sizes = sorted({result.n_scores for result in results})
    methods = list(dict.fromkeys(result.method for result in results))
    people = sorted({result.person for result in results})
    lines = [
        f"{results[0].data}: mean Spearman of {len(people)}, {len({result.draw for result in results})} draws each",
        f"{'scores':28}" + "".join(f"{size:>27}" for size in sizes),
    ]
    for method in methods:
        means = [np.mean(list(_values(results, method, size).values())) for size in sizes]
        lines.append(f"{method:28}" + "".join(f"{mean:27.4f}" for mean in means))
    lines.append(f"{program} less")
    for method in [name for name in methods if name != program]:
        gaps = [interval(_gaps(results, program, method, size)) for size in sizes]
        lines.append(f"{method:28}" + "".join(f"{gap:>27}" for gap in gaps))
    own = [result for result in results if result.method == program]
    seconds = [np.mean([result.seconds for result in own if result.n_scores == size]) for size in sizes]
    largest = [max(result.n_bytes for result in own if result.n_scores == size) / 1e6 for size in sizes]
    lines.append(f"{'processor time, s':28}" + "".join(f"{value:27.1f}" for value in seconds))
    lines.append(f"{'largest model file, MB':28}" + "".join(f"{value:27.1f}" for value in largest))
    return "\n".join(lines)


def coverage_lines(results: Sequence[Result], program: str) -> str:
    """Return how often the stated share of right pairs has the true share, on held-out images, in its interval."""
    known = [result for result in results if result.method == program and result.stated is not None and result.bounds]
    lines = []
    for size in [*sorted({result.n_scores for result in known}), None]:
        chosen = [result for result in known if size in (None, result.n_scores)]
        within = [low <= result.right_pairs <= high for result in chosen for low, high in [result.bounds or (0, 0)]]
        gap = np.mean([(result.stated or 0.0) - result.right_pairs for result in chosen])
        what = "all sizes" if size is None else f"{size} scores"
        lines.append(
            f"{what}: the true share of right pairs lies in the stated 95 % interval in {sum(within)} of "
            f"{len(within)} runs ({np.mean(within):.0%}); stated less true {gap:+.4f}"
        )
    return "\n".join(lines)


def _values(results: Sequence[Result], method: str, size: int) -> dict[tuple[str, int], float]:
    found = [result for result in results if result.method == method and result.n_scores == size]
    return {(result.person, result.draw): result.spearman for result in found}


def _gaps(results: Sequence[Result], program: str, method: str, size: int) -> list[float]:
    """Return the differences between two methods, by rater, or by draw of the photographs."""
    own, other = _values(results, program, size), _values(results, method, size)
    unit = 0 if results[0].data == "raters" else 1
    units = sorted({key[unit] for key in own}, key=str)
    return [float(np.mean([own[key] - other[key] for key in own if key[unit] == one])) for one in units]
