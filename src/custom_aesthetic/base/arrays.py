"""The array types that cross module boundaries."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""An array of float64; functions give its shape in their docstrings."""
