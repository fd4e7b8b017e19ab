"""The verdict on a model, in at most three sentences for somebody who knows no statistics."""

import math
from typing import NamedTuple

from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.closing import Findings
from custom_aesthetic.quality.confidence import Interval, share_in_words, spearman_difference

NEAR_THE_CEILING = 0.01
"""A model whose interval comes this near to the noise ceiling can hardly be improved by more pictures."""

CLEARLY = 0.02
"""A smaller difference between two shares of right pairs is not called clear, even where it is significant."""

WORTH_SCORING = 0.005
"""A gain in the share of right pairs below this is not worth scoring more pictures for."""


class Simple(NamedTuple):
    """A simple method on the same features, beside the model."""

    name: str
    share: float
    """Of pairs in the right order, 0...1."""
    difference: Interval
    """By how much the model's Spearman is above its."""


def verdict(found: Findings, *, richer: str) -> str:
    """Return how often the model picks as the user would, how that compares, and the one thing to do next.

    `richer` says how to get richer features, for where more scores would not help.
    """
    if found.believed is None or found.share is None or not math.isfinite(found.share.value):
        return (
            "There are not enough pictures with different scores to say how good the model is. Score more of them: "
            "from about 60 on there is something to learn."
        )
    simple = best_baseline(found)
    parts = (f"{share_in_words(found.share)}.", _compared(found, simple), next_step(found, simple, richer))
    return " ".join(part for part in parts if part)


def _compared(found: Findings, simple: Simple | None) -> str:
    parts = []
    if found.ceiling is not None:
        parts.append(f"as noisy as your scores are, a perfect model would reach {100 * found.ceiling.ab.value:.0f}")
    if simple is not None:
        name, share, difference = simple
        assert found.share is not None
        ahead = found.share.value - share
        is_clear = (difference.low > 0 or difference.high < 0) and abs(ahead) >= CLEARLY
        words = "close to" if not is_clear else "clearly behind" if ahead > 0 else "clearly better than"
        parts.append(f"a simple method on the same features ({name}) reaches {100 * share:.0f}, {words} the model")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def best_baseline(found: Findings) -> Simple | None:
    """Return the simple method with the most pairs in the right order; None where there is none to compare with."""
    believed = found.believed
    if believed is None or not found.baselines:
        return None
    scores = found.judged.scores[believed.rows]
    shares = {name: metrics.ab(scores, own) for name, own in found.baselines.items()}
    name = max(shares, key=lambda name: shares[name])
    difference = spearman_difference(scores, believed.predictions, found.baselines[name])
    return Simple(name, shares[name], difference) if math.isfinite(shares[name]) else None


def next_step(found: Findings, simple: Simple | None, richer: str) -> str:
    """Return the one thing to do next."""
    assert found.share is not None and found.spearman is not None
    if simple is not None and simple.difference.high < 0:
        return "Next, give the search more --trials: it has not found a good model yet."
    if found.ceiling is not None and found.share.high >= found.ceiling.ab.value - NEAR_THE_CEILING:
        return "Next, make your scores more certain by comparing the same pictures more often: they are the limit now."
    if not found.curve.sizes:
        n_images = len(found.judged.rows("train", "eval"))
        return f"Next, score more pictures: {n_images} are few, and each one more helps."
    extra = _extra(found)
    gain = found.curve.gain_in_ab(extra, found.spearman.value)
    if gain is not None and gain.value >= WORTH_SCORING:
        return (
            f"Next, score more pictures: {extra} more should make it right about {100 * gain.value:.1f} times more in "
            f"100 ({100 * gain.low:.1f} to {100 * gain.high:.1f})."
        )
    return f"Next, {richer}: more scores of such pictures would bring little."


def _extra(found: Findings) -> int:
    """Return how many more scores to speak of: at most about as many as there are."""
    n_images = len(found.judged.rows("train", "eval"))
    known = sorted(found.curve.gains)
    return max([extra for extra in known if extra <= n_images] or known[:1])
