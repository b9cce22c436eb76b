"""Names from parameters, and the nearest known name to a mistyped one."""

from __future__ import annotations

from lmplay.utils import to_name
from lmplay.utils.names import did_you_mean, nearest


def test_a_name_tells_the_parameters_and_leaves_out_what_is_off() -> None:
    assert to_name("gpt2ish", num_blocks=6, max_len=1024) == "gpt2ish_num_blocks6_max_len1024"
    assert to_name("x", rotary=True, bias=False, window=None, lr=0.5) == "x_rotary_lr0.5"


def test_nearest_finds_typos_and_the_last_part_of_dotted_keys() -> None:
    known = ["train.lr", "train.batch_size", "model.num_blocks"]
    assert nearest("lr", known) == ["train.lr"]
    assert nearest("train.batchsize", known)[0] == "train.batch_size"
    assert nearest("numblocks", known) == ["model.num_blocks"]
    assert nearest("zzz", known) == []
    assert did_you_mean("Train.LR", known) == "; did you mean train.lr?"
    assert did_you_mean("zzz", known) == ""
