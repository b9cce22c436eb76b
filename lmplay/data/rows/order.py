"""Data order as arithmetic: which row comes when is a pure function of (key, position), at O(1) for any position.

`Permutation` shuffles an epoch without storing it; `Mixture` interleaves datasets by shares without counting rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

_ROUNDS = 8


def derive_key(*parts: object) -> int:
    """64 bits from anything that prints the same on every machine: seeds, names, epochs."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _scramble(values: npt.NDArray[np.uint64], key: np.uint64) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators")."""
    mixed = values + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


class Permutation:
    """A shuffle of `range(size)` that is computed, not stored: position -> element.

    A Feistel network permutes the smallest power of two that holds `size`; results outside the range walk on through
    the network until they fall inside (cycle walking, Black and Rogaway 2002), fewer than two steps on average.
    """

    def __init__(self, size: int, key: int) -> None:
        assert size >= 1
        self.size = size
        bits = (size - 1).bit_length()
        self._low_bits = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << (bits // 2)) - 1)
        self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = [np.uint64(derive_key(key, turn)) for turn in range(_ROUNDS)]

    def __call__(self, positions: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The elements at these positions, each in `range(size)`."""
        values = np.atleast_1d(np.asarray(positions)).astype(np.uint64)
        assert values.size == 0 or int(values.max()) < self.size
        outside = np.arange(values.size)
        while outside.size:
            values[outside] = self._once(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _once(self, values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        high, low = values >> self._low_bits, values & self._low_mask
        for turn, key in enumerate(self._keys):
            if turn % 2:
                low = low ^ (_scramble(high, key) & self._low_mask)
            else:
                high = high ^ (_scramble(low, key) & self._high_mask)
        return (high << self._low_bits) | low


class Mixture:
    """Rows dealt to datasets by their shares: at any position each has had its share to within a row or two.

    A binary tree over the datasets: at each branch the left side has had `floor(rows * share + 1/2)` of the first
    `rows` rows, so a window of any length holds the right number to within one row a branch. Exact integers: no drift
    after any number of rows.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        assert weights
        assert all(weight > 0 for weight in weights)
        exact = [Fraction(weight).limit_denominator(10**12) or Fraction(weight) for weight in weights]
        self._size = len(exact)
        self._left_shares: dict[tuple[int, int], Fraction] = {}
        self._divide(exact, 0, self._size)

    def at(self, position: int) -> tuple[int, int]:
        """(dataset, how many of its rows came before) of the row at this position."""
        first, last = 0, self._size
        while last - first > 1:
            middle = (first + last) // 2
            share = self._left_shares[first, last]
            left = _rounded(position, share)
            if _rounded(position + 1, share) > left:
                position, last = left, middle
            else:
                position, first = position - left, middle
        return first, position

    def count(self, dataset: int, rows: int) -> int:
        """How many of the first `rows` rows are of this dataset."""
        first, last = 0, self._size
        while last - first > 1:
            middle = (first + last) // 2
            left = _rounded(rows, self._left_shares[first, last])
            if dataset < middle:
                rows, last = left, middle
            else:
                rows, first = rows - left, middle
        return rows

    def _divide(self, weights: Sequence[Fraction], first: int, last: int) -> None:
        """The share of the left side at each branch of the tree over the datasets from `first` to `last`."""
        if last - first > 1:
            middle = (first + last) // 2
            self._left_shares[first, last] = sum(weights[first:middle], Fraction()) / sum(
                weights[first:last], Fraction()
            )
            self._divide(weights, first, middle)
            self._divide(weights, middle, last)


def _rounded(rows: int, share: Fraction) -> int:
    return (2 * rows * share.numerator + share.denominator) // (2 * share.denominator)
