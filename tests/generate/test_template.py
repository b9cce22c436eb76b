"""A chat gives a model what training gave it, token for token, in the template that its run was taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmplay.data.text.documents import Reader, Row
from lmplay.data.text.tokens import encode_text
from lmplay.generate.conversation import Conversation, Turn
from lmplay.generate.template import MESSAGES, PLAIN, Template, named_template, taught_template
from lmplay.plans import DatasetSpec
from lmplay.runs import create_run
from lmplay.utils import get_tokenizer
from lmplay.utils.errors import WrongUsageError

EXCHANGE = [("What is 2 + 2?", "4"), ("And 3 + 3?", "6 of course")]


def chatted(template: Template) -> list[int]:
    """The tokens a model has seen after the exchange, had it answered so."""
    tokenizer = get_tokenizer()
    conversation = Conversation(template, tokenizer.eot_token)
    for question, answer in EXCHANGE:
        parts = conversation.prompt_for(question)
        # Parts are encoded apart, and an answer is the tokens that the model chose.
        prompt = [token for part in parts for token in tokenizer.encode_ordinary(part)]
        tokens = tokenizer.encode_ordinary(f" {answer}" if template is MESSAGES else answer)
        turn = {"prompt_tokens": prompt, "tokens": tokens, "stopped_by": "end_of_text", "seed": 0}
        conversation.turns.append(Turn(text=question, prompt="".join(parts), answer=answer, **turn))
    return conversation.tokens


def trained(spec: dict[str, Any], row: dict[str, Any]) -> list[int]:
    document = Reader(DatasetSpec(source="json", args={"data_files": "x"}, **spec))(Row(row, "x", 1))
    assert document is not None
    tokenizer = get_tokenizer()
    return [
        int(token)
        for part in document.parts
        for token in [*encode_text(tokenizer, part.text), *([tokenizer.eot_token] if part.ended else [])]
    ]


def test_a_chat_is_token_for_token_what_training_on_messages_reads() -> None:
    said = [(("user", question), ("assistant", answer)) for question, answer in EXCHANGE]
    messages = [{"role": role, "content": content} for turn in said for role, content in turn]
    assert chatted(MESSAGES) == trained({"fields": {"messages": "m"}}, {"m": messages})


@pytest.mark.parametrize("given", [None, "Question: {prompt}\nAnswer: {truth}"])
def test_a_chat_is_token_for_token_what_training_on_pairs_reads(run_taught_by: Any, given: str | None) -> None:
    spec = {"fields": {"prompt": "q", "truth": "a"}, "template": given}
    template = taught_template(run_taught_by(spec) / "checkpoints" / "30")
    rows = [trained(spec, {"q": question, "a": answer}) for question, answer in EXCHANGE]
    assert chatted(template) == [token for row in rows for token in row]


@pytest.fixture
def run_taught_by(tmp_path: Path) -> Any:
    def make(spec: dict[str, Any]) -> Path:
        """A run whose second of three stages, from step 10 to 20, trained on `spec`, and the others on plain text."""
        stages = [
            {"name": name, "datasets": {data: 1.0}} for name, data in (("a", "web"), ("b", "taught"), ("c", "web"))
        ]
        content = {"datasets": {"web": {"fields": {"text": "t"}}, "taught": spec}, "stages": stages}
        run = create_run("test_runner", name="taught", root=tmp_path, plan={"name": "p", "content": content})
        begun = [{"event": "stage", "stage": name, "step": step} for name, step in (("a", 0), ("b", 10), ("c", 20))]
        (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in begun))
        return run

    return make


def test_a_checkpoint_speaks_the_template_of_the_stages_it_has_been_through(run_taught_by: Any, tmp_path: Path) -> None:
    run = run_taught_by({"fields": {"messages": "m"}})
    found = {step: taught_template(run / "checkpoints" / str(step)) for step in (5, 10, 15, 30)}
    assert found == {5: PLAIN, 10: PLAIN, 15: MESSAGES, 30: MESSAGES}
    assert taught_template(tmp_path) is PLAIN


def test_a_template_is_a_name_or_a_form_of_ones_own() -> None:
    assert named_template("auto") is None
    assert named_template("messages") is MESSAGES
    assert named_template("Q: {}\\nA:") == Template(("Q: {}\nA:",))
    with pytest.raises(WrongUsageError, match=r"no \{\}"):
        named_template("Q:")
