"""Places of pictures on a plane, where neighbours look alike."""

import numpy as np
from numpy.typing import NDArray

from custom_aesthetic.base.machine import threads_for

MOST_PICTURES = 600
"""Of more pictures, the places are the first two principal components: t-SNE would take more than 3 seconds."""

N_COMPONENTS = 50
MOST_NEIGHBOURS = 30


def place_pictures(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the places (n_images, 2) of pictures with these features (n_images, n_features).

    They are found by t-SNE where there are few pictures. The same features give the same places. Features that are not
    finite count as 0.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = np.nan_to_num(np.asarray(features, np.float64), posinf=0.0, neginf=0.0)
    values = (values - values.mean(axis=0)) / (values.std() or 1.0)
    n_images = len(values)
    if n_images < 4 or not values.any():
        return np.column_stack([values[:, :1], np.zeros((n_images, 1))]).astype(np.float32)
    n_components = min(N_COMPONENTS, *values.shape)
    reduced = PCA(n_components, random_state=0).fit_transform(values)
    if n_components == 1:
        return np.column_stack([reduced, np.zeros((n_images, 1))]).astype(np.float32)
    if n_images > MOST_PICTURES:
        return reduced[:, :2].astype(np.float32)
    with threads_for(n_images):  # several would only wait for each other
        places = TSNE(perplexity=min(MOST_NEIGHBOURS, (n_images - 1) / 3), init="pca", random_state=0, n_jobs=1)
        return places.fit_transform(reduced).astype(np.float32)
