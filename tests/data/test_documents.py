"""Field maps: which tokens are learned, and what the text of a pair or a conversation is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmplay.data import IGNORED, open_stage, open_validation
from lmplay.data.shards.prepare import prepare
from lmplay.data.text.documents import Reader, Row
from lmplay.plans import DatasetSpec, parse_plan
from lmplay.utils import get_tokenizer
from lmplay.utils.errors import LMPlayError

PAIR = {"prompt": "question", "truth": "answer"}


def read(values: dict[str, Any], fields: dict[str, str], template: str | None = None) -> list[tuple[str, bool]] | None:
    spec = DatasetSpec(source="json", args={"data_files": "a"}, fields=fields, template=template)
    document = Reader(spec)(Row(values, "a.jsonl", 3))
    if document is None:
        return None
    assert document.parts[-1].ended
    return [(part.text + "<END>" * part.ended, part.learned) for part in document.parts]


def test_of_a_pair_the_truth_and_its_end_are_learned() -> None:
    assert read({"question": "2 + 2?", "answer": "4"}, PAIR) == [("2 + 2?\n", False), ("4<END>", True)]


def test_a_template_says_how_a_pair_is_joined() -> None:
    found = read({"question": "2 + 2?", "answer": "{4}"}, PAIR, template="Q: {prompt}\nA: {truth}")
    assert found == [("Q: 2 + 2?\nA: ", False), ("{4}<END>", True)]


def test_of_a_conversation_the_assistants_turns_and_their_ends_are_learned() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2? "},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "Thanks."},
    ]
    expected = [
        ("System: Be brief.\n\n", False),
        ("User: 2 + 2?\n\n", False),
        ("Assistant:", False),
        (" 4<END>", True),
        ("User: Thanks.\n\n<END>", False),
    ]
    assert read({"m": turns}, {"messages": "m"}) == expected
    assert read({"m": json.dumps(turns)}, {"messages": "m"}) == expected


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"text": ""}, {"text": "text"}),
        ({"text": None}, {"text": "text"}),
        ({"question": "a", "answer": ""}, PAIR),
        ({"m": []}, {"messages": "m"}),
        ({"m": [{"role": "user", "content": "nobody answers"}]}, {"messages": "m"}),
    ],
)
def test_rows_with_nothing_to_learn_are_left_out(values: dict[str, Any], fields: dict[str, str]) -> None:
    assert read(values, fields) is None


@pytest.mark.parametrize(
    ("values", "fields", "message"),
    [
        ({"text": 7}, {"text": "text"}, "a.jsonl, row 3, column 'text': text is needed, and this is int"),
        ({"question": "a"}, PAIR, "a.jsonl, row 3: there is no column 'answer'; there are question"),
        ({"m": "hello"}, {"messages": "m"}, "a list of {role, content} is needed, and this is text"),
        ({"m": [{"role": "user"}]}, {"messages": "m"}, "the content of turn 1 is NoneType"),
        ({"m": [{"role": "asistant", "content": ""}]}, {"messages": "m"}, "'asistant'; did you mean assistant"),
        ({"m": ["a"]}, {"messages": "m"}, "turn 1 is no object with `role` and `content`"),
    ],
)
def test_rows_that_do_not_fit_are_named(values: dict[str, Any], fields: dict[str, str], message: str) -> None:
    with pytest.raises(LMPlayError) as caught:
        read(values, fields)
    assert message in str(caught.value)


def test_the_mask_follows_the_tokens_into_the_rows(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + {n}?", "answer": f"It is {2 * n}."} for n in range(40)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"source": "json", "args": {"data_files": "qa.jsonl"}, "fields": PAIR}
    stages = [{"name": "s", "datasets": {"qa": 1}, "epochs": 1}]
    plan = parse_plan({"version": 1, "datasets": {"qa": dataset}, "stages": stages}, name="t", folder=tmp_path)
    tokenizer = get_tokenizer()
    store = prepare(plan.datasets["qa"], folder=tmp_path)
    assert store.manifest.learned == sum(len(tokenizer.encode_ordinary(row["answer"])) + 1 for row in rows)
    answers = {row["answer"] + "<|endoftext|>" for row in rows}
    for packing in ("stream", "document", "pad"):
        found: list[str] = []
        for data in (
            open_stage(plan, 0, sequence_length=64, packing=packing),
            open_validation(plan, sequence_length=64, packing=packing),
        ):
            batch = data.rows(0, data.num_rows)
            for targets in batch.targets:
                found += tokenizer.decode(targets[targets != IGNORED].tolist()).split("<|endoftext|>")
            learned = batch.targets != IGNORED
            follows = np.roll(batch.tokens, -1, axis=1)
            inside = learned.copy()
            inside[:, -1] = False
            if packing == "stream":
                assert (batch.targets[inside] == follows[inside]).all()
        if packing != "stream":  # a window of a stream may cut an answer in two
            assert sorted(text + "<|endoftext|>" for text in found if text) == sorted(answers)
        assert "".join(sorted("".join(found))) == "".join(sorted("".join(row["answer"] for row in rows)))
