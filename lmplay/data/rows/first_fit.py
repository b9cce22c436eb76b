"""First-fit decreasing bin packing of document pieces into rows (Johnson 1973), vectorised over pieces of equal length.

Called by `rowplan.py`. Lengths are whole numbers up to the row's length, so there are few different ones: all pieces
of one length are dealt to the open rows at once, in the rows' order, as dealing them one by one would.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def first_fit_decreasing(lengths: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.int64]:
    """(pieces,) the row of each piece: the longest pieces first, each into the first row that has room.

    Every length is in [1, capacity].
    """
    rows = np.zeros(lengths.size, dtype=np.int64)
    if not lengths.size:
        return rows
    order = np.argsort(-lengths, kind="stable")
    room = np.zeros(lengths.size, dtype=np.int64)  # of the rows opened so far, and as many to come as could be needed
    opened = 0
    values, counts = np.unique(lengths, return_counts=True)
    taken = 0
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        fits = room[:opened] // length
        filled = np.cumsum(fits)
        last = int(np.searchsorted(filled, count))  # the row that takes the last piece, if it is an open one
        dealt = np.minimum(fits[: last + 1], count - np.concatenate([[0], filled[:last]])[: fits[: last + 1].size])
        room[: dealt.size] -= dealt * length
        where = np.repeat(np.arange(dealt.size), dealt)
        left = count - where.size
        if left:
            each = capacity // length
            new = -(-left // each)
            fresh = np.repeat(np.arange(opened, opened + new), each)[:left]
            room[opened : opened + new] = capacity - np.bincount(fresh - opened, minlength=new) * length
            opened += new
            where = np.concatenate([where, fresh])
        rows[order[taken : taken + count]] = where
        taken += count
    return rows
