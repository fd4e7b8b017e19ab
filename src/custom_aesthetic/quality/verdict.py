"""The verdict on a model, in at most three sentences for readers who do not know statistics."""

import math
from typing import NamedTuple

from custom_aesthetic.quality import metrics
from custom_aesthetic.quality.answers import Taste, judged_by
from custom_aesthetic.quality.baselines import ahead
from custom_aesthetic.quality.closing import Findings
from custom_aesthetic.quality.confidence import CHOSE, Interval, share_in_words

NEAR_THE_CEILING = 0.01
"""If a model's interval comes this close to the noise ceiling, more pictures can hardly improve it."""

CLEARLY = 0.02
"""A smaller difference between two shares of right pairs is not called clear, even if it is significant."""

WORTH_SCORING = 0.005
"""Scoring more pictures is not recommended if it raises the share of right pairs by less than this."""

ENOUGH_ANSWERS = 200
"""From this number of answers on, more of them raise a model of 200 pictures only slowly (`make bench-circle`)."""


class Simple(NamedTuple):
    """A simple method on the same features, to compare the model with."""

    name: str
    share: float
    """Share of pairs in the right order, 0...1."""
    difference: Interval
    """Spearman of the model minus that of the method; where scores come from answers, the difference of the shares."""


def verdict(found: Findings, *, richer: str) -> str:
    """Return how often the model picks as the user would, how that compares to other methods, and what to do next.

    `richer` is the advice, in words, on how to get richer features, given if more scores would not help.
    """
    share = found.share
    if found.believed is None or share is None or not math.isfinite(share.value):
        return (
            "There are not enough pictures with different scores to say how good the model is. Score more pictures: a "
            "model needs about 60 to learn from."
        )
    simple = best_baseline(found)
    taste = found.judged.taste
    by = "" if taste is None else judged_by(taste, found.believed.rows)
    said = f"{share_in_words(share)}{by}{CHOSE * found.eval_chose}."
    parts = (said, _compared(found, share, simple), next_step(found, share, simple, richer))
    return " ".join(part for part in parts if part)


def _compared(found: Findings, share: Interval, simple: Simple | None) -> str:
    parts = []
    perfect = found.perfect
    if perfect is not None and found.judged.taste is not None:
        value, low, high = (f"{100 * end:.0f}" for end in perfect)
        parts.append(
            f"what counts is your answer if you were asked once, so even a perfect model would reach {value} ({low} to "
            f"{high})"
        )
    elif perfect is not None:
        parts.append(f"with scores as noisy as yours, a perfect model would reach {100 * perfect.value:.0f}")
    if simple is not None:
        name, simple_share, difference = simple
        ahead = share.value - simple_share
        is_clear = (difference.low > 0 or difference.high < 0) and abs(ahead) >= CLEARLY
        words = "close to" if not is_clear else "clearly behind" if ahead > 0 else "clearly better than"
        parts.append(
            f"a simple method on the same features ({name}) reaches {100 * simple_share:.0f}, {words} the model"
        )
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""


def best_baseline(found: Findings) -> Simple | None:
    """Return the simple method with the most pairs in the right order; None if there is none."""
    believed = found.believed
    if believed is None or not found.baselines:
        return None
    scores, taste = found.judged.scores[believed.rows], found.judged.taste
    shares = {
        name: metrics.ab(scores, predictions) if taste is None else taste.share(believed.rows, predictions).value
        for name, predictions in found.baselines.items()
    }
    name = max(shares, key=lambda name: shares[name])
    difference = ahead(scores, believed.predictions, found.baselines[name], taste=taste, rows=believed.rows)
    return Simple(name, shares[name], difference) if math.isfinite(shares[name]) else None


def next_step(found: Findings, share: Interval, simple: Simple | None, richer: str) -> str:
    """Return a sentence with the most useful thing to do next."""
    assert found.spearman is not None
    if simple is not None and simple.difference.high < 0:
        return "Next, give the search more --trials: it has not found a good model yet."
    if found.judged.taste is not None:
        return _next_answers(found.judged.taste, richer)
    if found.ceiling is not None and share.high >= found.ceiling.ab.value - NEAR_THE_CEILING:
        return "Next, compare the same pictures more often: the uncertainty of your scores is now the limit."
    if not found.curve.sizes:
        n_images = len(found.judged.rows("train", "eval"))
        return f"Next, score more pictures: {n_images} are few, and every further one helps."
    extra = _extra(found)
    gain = found.curve.gain_in_ab(extra, found.spearman.value)
    if gain is not None and gain.value >= WORTH_SCORING:
        return (
            f"Next, score more pictures: with {extra} more, the model should be right about {100 * gain.value:.1f} "
            f"times more often in 100 ({100 * gain.low:.1f} to {100 * gain.high:.1f})."
        )
    return f"Next, {richer}: scoring more pictures of this kind would help little."


def _next_answers(taste: Taste, richer: str) -> str:
    said = "the A/B page says what more of them would bring"
    if taste.n_answers < ENOUGH_ANSWERS:
        return f"Next, answer more on the A/B page: {taste.n_answers} answers are few, and {said}."
    return f"Next, {richer}, or answer more: {said}."


def _extra(found: Findings) -> int:
    """Return the number of additional scores that the advice names: at most about as many as there are."""
    n_images = len(found.judged.rows("train", "eval"))
    known = sorted(found.curve.gains)
    return max([extra for extra in known if extra <= n_images] or known[:1])
