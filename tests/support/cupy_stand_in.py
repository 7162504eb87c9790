"""A stand-in for CuPy on machines without a GPU. Its arrays are on the host."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.support.cuda_stand_in import Cuda

NULL = 0
"""The stream that CuPy works on if the caller has chosen none."""


class Stream:
    """A cupy.cuda.Stream. Inside its block, the library works on it."""

    def __init__(self, library: Library, ptr: int) -> None:
        self._library, self.ptr = library, ptr

    def __enter__(self) -> Stream:
        self._library.streams.append(self.ptr)
        return self

    def __exit__(self, *_: object) -> None:
        self._library.streams.pop()

    def __del__(self) -> None:
        if self.ptr != NULL:
            self._library.device.cudaStreamDestroy(self.ptr)

    def synchronize(self) -> None:
        self._library.device.finish(self.ptr)


class Library:
    """The functions of CuPy that ditzoo uses. `moved` lists the copies between host and device.

    Arrays are computed at once, but each counts as unfinished until its stream has been waited for.
    """

    def __init__(self, device: Cuda) -> None:
        self.__name__ = "cupy"
        self.device, self.streams, self.moved = device, [NULL], list[str]()
        self.cuda = SimpleNamespace(
            Stream=self._new_stream,
            get_current_stream=lambda: SimpleNamespace(synchronize=lambda: device.finish(self.streams[-1])),
        )

    def _new_stream(self, *, non_blocking: bool) -> Stream:
        return Stream(self, int(self.device.cudaStreamCreateWithFlags(int(non_blocking))[1]))

    def made(self, value: np.ndarray) -> DeviceArray:
        """An array that the current stream writes."""
        self.device.foreign[value.ctypes.data] = self.streams[-1]
        return DeviceArray(value, self)

    def asarray(self, array: np.ndarray) -> DeviceArray:
        self.moved.append("to the device")
        return self.made(array)

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        return self.made(np.empty(shape, dtype))

    def concat(self, arrays: Sequence[DeviceArray], axis: int = 0) -> DeviceArray:
        return self.made(np.concatenate([array.value for array in arrays], axis=axis))

    def ascontiguousarray(self, array: DeviceArray) -> DeviceArray:
        return self.made(np.ascontiguousarray(array.value))

    def isfinite(self, array: DeviceArray) -> DeviceArray:
        return self.made(np.isfinite(array.value))

    def all(self, array: DeviceArray) -> bool:
        return bool(array.value.all())

    def exp(self, array: DeviceArray) -> DeviceArray:
        return self.made(np.exp(array.value))


class DeviceArray:
    """An array of the stand-in. It computes with other such arrays and with Python numbers. numpy cannot read it."""

    def __init__(self, value: np.ndarray, library: Library) -> None:
        self.value, self.library = value, library
        self.dtype, self.shape, self.ndim, self.nbytes = value.dtype, value.shape, value.ndim, value.nbytes
        self.data = SimpleNamespace(ptr=value.ctypes.data)

    __array_ufunc__ = None

    def __del__(self) -> None:
        self.library.device.foreign.pop(self.data.ptr, None)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return self.library

    def __array__(self) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> DeviceArray:
        return self.library.made(self.value[index])

    def __add__(self, other: DeviceArray | float) -> DeviceArray:
        return self.library.made(self.value + (other.value if isinstance(other, DeviceArray) else float(other)))

    def __mul__(self, other: DeviceArray | float) -> DeviceArray:
        return self.library.made(self.value * (other.value if isinstance(other, DeviceArray) else float(other)))

    def __sub__(self, other: DeviceArray) -> DeviceArray:
        return self.library.made(self.value - other.value)

    def __rsub__(self, other: float) -> DeviceArray:
        return self.library.made(float(other) - self.value)

    def __truediv__(self, other: float) -> DeviceArray:
        return self.library.made(self.value / float(other))

    __radd__, __rmul__ = __add__, __mul__

    def get(self) -> np.ndarray:
        self.library.moved.append("to the host")
        return self.value
