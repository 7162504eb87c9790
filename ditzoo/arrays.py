"""The functions of an array's own library, under the names of the Python array API."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace


def library_of(array: Any) -> Any:
    """The library of an array, with the functions of the array API, such as `concat`.

    numpy has them by itself, from version 2 on. `array_api_compat` gives those of other libraries. For numpy it would import
    all of numpy's parts, the parser of Fortran too, and that takes as long as importing numpy.
    """
    return np if isinstance(array, np.ndarray) else array_namespace(array)
