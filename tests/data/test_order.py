"""The arithmetic of the order: permutations are permutations, mixtures hold their shares in every window."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lmplay.data.rows.order import Mixture, Permutation, derive_key

keys = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(size=st.integers(1, 3000), key=keys)
def test_a_permutation_meets_each_element_once(size: int, key: int) -> None:
    assert sorted(Permutation(size, key)(np.arange(size)).tolist()) == list(range(size))


@settings(deadline=None)
@given(size=st.integers(1, 10**12), key=keys, data=st.data())
def test_a_position_gives_the_same_element_alone_and_among_others(size: int, key: int, data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    together = Permutation(size, key)(positions).tolist()
    assert together == [int(Permutation(size, key)(position)[0]) for position in positions]
    assert all(0 <= element < size for element in together)


def test_permutations_spread_every_position_evenly() -> None:
    size, draws = 12, 2000
    counts = np.zeros((size, size))
    for key in range(draws):
        counts[np.arange(size), Permutation(size, key)(np.arange(size))] += 1
    expected = draws / size
    # Each cell is binomial; six standard deviations would be met by chance less than once in a million suites.
    assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


weights = st.lists(st.floats(0.01, 1), min_size=1, max_size=6)


@settings(deadline=None)
@given(weights=weights, start=st.integers(0, 10**12), length=st.integers(1, 300))
def test_any_window_of_a_mixture_holds_the_shares(weights: list[float], start: int, length: int) -> None:
    mixture = Mixture(weights)
    seen = np.zeros(len(weights))
    for position in range(start, start + length):
        dataset, before = mixture.at(position)
        assert before == mixture.count(dataset, position)
        seen[dataset] += 1
    for dataset, weight in enumerate(weights):
        assert abs(seen[dataset] - length * weight / sum(weights)) <= 4  # one row a branch, and both ends


def test_seven_to_three_is_exact_in_any_ten_thousand_rows() -> None:
    mixture = Mixture([0.7, 0.3])
    for start in (0, 1, 7, 123_456_789, 10**15):
        rows = mixture.count(0, start + 10_000) - mixture.count(0, start)
        assert abs(rows / 10_000 - 0.7) <= 0.0001


def test_keys_depend_on_every_part_and_its_type() -> None:
    assert len({derive_key(0, 1), derive_key(1, 0), derive_key("0", 1), derive_key(0, "1"), derive_key("01")}) == 5
    assert derive_key("a", 1) == 5981427342772527336  # a fixed value: the order survives releases


def test_the_order_survives_releases() -> None:
    assert Permutation(1000, 7)([0, 1, 2, 3, 999]).tolist() == [480, 652, 312, 65, 141]
    mixture = Mixture([0.7, 0.3])
    assert [mixture.at(position)[0] for position in range(10)] == [0, 1, 0, 0, 0, 1, 0, 0, 1, 0]
