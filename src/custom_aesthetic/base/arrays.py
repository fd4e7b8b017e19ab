"""The array types that cross module boundaries."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""Real numbers; the docstring of whatever takes one gives its shape."""
