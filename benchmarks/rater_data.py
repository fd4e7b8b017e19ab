"""The ratings of single people, and linear prior models of what the others like."""

import csv
from pathlib import Path

import numpy as np

from custom_aesthetic.base.arrays import Array
from custom_aesthetic.heads.linear_members import LinearModel, fit_linear_models

RATERS = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "raters"


def read_ratings(folder: Path) -> tuple[list[str], Array, Array]:
    """Return the raters' names, features (n_pictures, n_features), and ratings (n_pictures, n_raters).

    Features are in half precision; a rating is nan where a rater gave none.
    """
    with np.load(folder / "features.npz") as opened:
        row_of = {str(path): row for row, path in enumerate(opened["paths"])}
        features = opened["features"]
    with (folder / "ratings.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    raters = [name for name in rows[0] if name != "relative_path"]
    ratings = np.full((len(row_of), len(raters)), np.nan)
    for row in rows:
        ratings[row_of[row["relative_path"]]] = [float(row[rater] or "nan") for rater in raters]
    return raters, features, ratings


def prior_of_others(features: Array, ratings: Array, rater: int, *, shuffled: bool = False) -> LinearModel:
    """Return ridge regression on the mean standardised rating of all others, of pictures that the rater has not rated.

    `features` are (n_pictures, n_features), `ratings` (n_pictures, n_raters). `shuffled` means are those of other
    pictures: the prior then knows nothing.
    """
    standard = (ratings - np.nanmean(ratings, axis=0)) / np.nanstd(ratings, axis=0)
    others = np.delete(standard, rater, axis=1)
    n_others = np.isfinite(others).sum(axis=1)
    mean = np.where(n_others > 0, np.nansum(others, axis=1) / np.maximum(n_others, 1), np.nan)
    taught = np.flatnonzero((n_others > 0) & np.isnan(ratings[:, rater]))
    if shuffled:
        mean[taught] = mean[np.random.default_rng(rater).permutation(taught)]
    return fit_linear_models(features, mean, taught)["ridge"]
