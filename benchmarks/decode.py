"""Speed of decoding at batch 1, against transformers and against what the memory allows: `python -m benchmarks.decode`.

- tokens a second from a short prompt: transformers' `generate` with the same weights, the model as it was trained, and
  in recorded steps, as a chat does, with the weights laid out for decoding, bfloat16, int8; and the bound, which is
  reading all weights once a token;
- what recording a step takes, once, and what it brings: the same weights in plain steps;
- time to the first token for prompts of 64, 512 and 1000 tokens;
- a step at position 64 against one at position 1000;
- a second turn of a chat against a cold start with the same text;
- what sampling costs over taking the best token.

Memory lies in huge pages for all of them, as it does in the engine of a chat.

All alternatives of a table run in turn, and ratios are taken within a round. On a machine that is busy with other
programs, `--cpu-time` counts one thread's seconds on the processor. Targets on two cores: float32 at least
1.4x of transformers and 55% of the bound; shortened weights at least 2.5x of float32.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from benchmarks.pairs import Timing, compare, show
from lmplay.base.base_model import LMBase
from lmplay.base.runner_list import get_runner
from lmplay.generate import SamplingConfig, generate
from lmplay.generate.context import Context
from lmplay.generate.session import Session
from lmplay.generate.weights import prepare_for_inference, weight_bytes
from lmplay.utils.huge_pages import with_huge_pages

PROMPT = 8
STEPS = 16
Timed = Callable[..., list[Timing]]
PARTS = ("decoding", "recording", "first-token", "positions", "second-turn", "sampling")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="gpt2ish", help="which model of the GPT-2 family to decode with")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens a text")
    parser.add_argument("--rounds", type=int, default=5, help="how often each alternative runs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="cores to use")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part alone; may be repeated")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, and its seconds on the processor")
    options = parser.parse_args(arguments)
    threads = 1 if options.cpu_time else options.threads
    timed = partial(compare, clock=time.process_time if options.cpu_time else time.perf_counter)
    environment = with_huge_pages(os.environ)
    if environment != dict(os.environ):  # the engine of a chat is started so; transformers gains from it too
        asked = sys.argv[1:] if arguments is None else arguments
        subprocess.run([sys.executable, "-m", "benchmarks.decode", *asked], env=environment, check=True)
        return
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    plain = get_runner(options.experiment).build_model().eval().requires_grad_(False)
    print(f"{options.experiment}, {weight_bytes(plain) / 1e6:.0f} MB of weights, {threads} threads")
    kinds = {kind: prepared(plain, kind) for kind in ("float32", "bfloat16", "int8")}
    peer = as_transformers(plain)
    parts = {
        "decoding": partial(show_decoding, timed, plain, kinds, peer, options.tokens, options.rounds),
        "recording": partial(show_recording, timed, kinds, options.tokens, options.rounds),
        "first-token": partial(show_first_token, timed, kinds, peer, options.rounds),
        "positions": partial(show_positions, timed, kinds, options.rounds),
        "second-turn": partial(show_second_turn, timed, kinds["float32"], options.rounds),
        "sampling": partial(show_sampling, timed, kinds, options.tokens, options.rounds),
    }
    with torch.inference_mode():
        for name in options.only or PARTS:
            parts[name]()


def prepared(model: LMBase, kind: str) -> LMBase:
    made = copy.deepcopy(model)
    prepare_for_inference(made, kind)
    return made


def show_decoding(
    timed: Timed, plain: LMBase, kinds: dict[str, LMBase], peer: nn.Module, tokens: int, rounds: int
) -> None:
    print(f"\n{tokens} tokens from a prompt of {PROMPT}, greedy; ratios to the first line")
    # A buffer of the weights' size: larger than any cache, as they are.
    buffer = torch.ones(weight_bytes(plain) // 4)

    def read_all_weights() -> None:
        for _ in range(tokens):
            buffer.sum()

    timings = timed(
        {
            "transformers": peer_generates(peer, PROMPT, tokens),
            "as trained": generates(plain, PROMPT, tokens),
            **{kind: answers(model, PROMPT, tokens) for kind, model in kinds.items()},
            "bound: weights read once a token": read_all_weights,
        },
        rounds=rounds,
    )
    show(timings)
    speed = {timing.name: tokens / timing.seconds for timing in timings}
    times = {timing.name: timing.speedup for timing in timings}
    for name, value in speed.items():
        print(f"{name:<34}{value:8.1f} tokens/s")
    bound = times["bound: weights read once a token"]
    print(f"float32: {times['float32']:.2f}x of transformers, {times['float32'] / bound:.0%} of the bound")
    for kind in ("bfloat16", "int8"):
        print(f"{kind}: {times[kind] / times['float32']:.2f}x of float32")


def show_recording(timed: Timed, kinds: dict[str, LMBase], tokens: int, rounds: int) -> None:
    print(f"\n{tokens} tokens in plain and in recorded steps")
    for kind, model in kinds.items():
        plain = {"plain steps": generates(model, PROMPT, tokens)}
        show(named(kind, timed({**plain, "recorded steps": answers(model, PROMPT, tokens)}, rounds=rounds)))
        (recorded,) = timed({"recording": lambda model=model: warmed_up(model)}, rounds=rounds)
        (unrecorded,) = timed({"two tokens": lambda model=model: warmed_up(model, recorded=False)}, rounds=rounds)
        print(f"{kind}: recording takes {1000 * (recorded.seconds - unrecorded.seconds):.0f} ms")


def warmed_up(model: LMBase, *, recorded: bool = True) -> None:
    Session(model, recorded=recorded).warm_up()


def show_first_token(timed: Timed, kinds: dict[str, LMBase], peer: nn.Module, rounds: int) -> None:
    for length in (64, 512, 1000):
        print(f"\nfirst token of a prompt of {length}")
        alternatives: dict[str, Callable[[], object]] = {"transformers": peer_generates(peer, length, 1)}
        alternatives |= {kind: generates(model, length, 1) for kind, model in kinds.items()}
        show(timed(alternatives, rounds=max(3, rounds - 2)))


def show_positions(timed: Timed, kinds: dict[str, LMBase], rounds: int) -> None:
    print(f"\n{STEPS} steps at position 64, and up to position 1000")
    for kind in ("float32", "int8"):
        near, far = (started_context(kinds[kind], length) for length in (64, 1000 - STEPS))
        show(named(kind, timed({"at 64": steps(near, 64), "at 1000": steps(far, 1000 - STEPS)}, rounds=rounds)))


def show_second_turn(timed: Timed, model: LMBase, rounds: int) -> None:
    print("\nfirst token of a chat's second turn: 500 tokens so far, 20 new ones")
    history, new = token_ids(500), token_ids(520)[500:]
    one = SamplingConfig(temperature=0, max_tokens=1)
    warm = Session(model)
    warm.generate(history, one)
    show(
        timed(
            {
                "cold start": lambda: Session(model).generate(history + new, one),
                "second turn": lambda: warm.generate(history + new, one),
                "second turn, after an undo": lambda: warm.generate([*history, *new[::-1]], one),
            },
            rounds=rounds,
            warmup=0,
        )
    )


def show_sampling(timed: Timed, kinds: dict[str, LMBase], tokens: int, rounds: int) -> None:
    print(f"\n{tokens} tokens with int8 weights by way of sampling")
    settings = {
        "greedy": {"temperature": 0},
        "top-k 50": {},
        "top-k 50, top-p 0.9": {"top_p": 0.9},
        "top-p 0.9": {"top_k": 0, "top_p": 0.9},
        "no filter": {"top_k": 0},
    }
    configs = {name: SamplingConfig(max_tokens=tokens, **chosen) for name, chosen in settings.items()}
    show(
        timed(
            {
                name: lambda config=config: generate(kinds["int8"], [token_ids(PROMPT)], config)
                for name, config in configs.items()
            },
            rounds=rounds,
        )
    )


def token_ids(count: int) -> list[int]:
    return torch.randint(0, 50000, (count,), generator=torch.Generator().manual_seed(1)).tolist()


def generates(model: LMBase, length: int, tokens: int) -> Callable[[], object]:
    config = SamplingConfig(temperature=0, max_tokens=tokens)
    prompt = token_ids(length)

    def run() -> None:
        (result,) = generate(model, [prompt], config)
        assert len(result.tokens) == tokens

    return run


def answers(model: LMBase, length: int, tokens: int) -> Callable[[], object]:
    """As the engine of a chat does, whose session has warmed up: in recorded steps. No prompt is in the cache yet."""
    config = SamplingConfig(temperature=0, max_tokens=tokens)
    session = Session(model, recorded=True)
    session.warm_up()
    prompts = itertools.cycle([token_ids(length), token_ids(length)[::-1]])

    def run() -> None:
        result = session.generate(next(prompts), config)
        assert (len(result.tokens), result.reused_tokens) == (tokens, 0)

    return run


def peer_generates(peer: nn.Module, length: int, tokens: int) -> Callable[[], object]:
    prompt = torch.tensor([token_ids(length)])
    asked = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 50256}
    return lambda: peer.generate(prompt, attention_mask=torch.ones_like(prompt), **asked)


def started_context(model: LMBase, length: int) -> Context:
    context = Context(model, recorded=True)
    context.feed([token_ids(length)])
    context.feed([[0]])
    return context


def steps(context: Context, length: int) -> Callable[[], object]:
    def run() -> None:
        context.rewind(length)
        for token in range(STEPS):
            context.feed([[token]])

    return run


def named(kind: str, timings: list[Timing]) -> list[Timing]:
    return [Timing(f"{kind} {item.name}", item.seconds, item.speedup, item.low, item.high) for item in timings]


def as_transformers(model: LMBase) -> nn.Module:
    """transformers' GPT-2 with the weights of ours."""
    from transformers import GPT2Config, GPT2LMHeadModel

    kwargs, ours = model.init_kwargs, model.state_dict()
    peer = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=model.vocab_size,
            n_positions=model.max_len,
            n_embd=kwargs["embed_dim"],
            n_layer=kwargs["num_blocks"],
            n_head=kwargs["num_heads"],
            activation_function="gelu",
            tie_word_embeddings=False,
        )
    ).eval()
    names = {"wte.weight": "tok_embed.weight", "ln_f.weight": "ln.weight", "ln_f.bias": "ln.bias"}
    state = {f"transformer.{theirs}": ours[own] for theirs, own in names.items()}
    state |= {"transformer.wpe.weight": ours["pos_embed"][0], "lm_head.weight": ours["fc.weight"]}
    layers = {"ln_1": "ln1", "ln_2": "ln2", "attn.c_attn": "attn.qkv", "attn.c_proj": "attn.proj"}
    layers |= {"mlp.c_fc": "ff.up", "mlp.c_proj": "ff.down"}
    for block in range(kwargs["num_blocks"]):
        for theirs, own in layers.items():
            weight = ours[f"blocks.{block}.{own}.weight"]
            # transformers keeps the projections of GPT-2 as (in, out).
            state[f"transformer.h.{block}.{theirs}.weight"] = weight.T if weight.dim() == 2 else weight
            state[f"transformer.h.{block}.{theirs}.bias"] = ours[f"blocks.{block}.{own}.bias"]
    peer.load_state_dict(state)
    prompt = torch.tensor([token_ids(8)])
    with torch.inference_mode():
        torch.testing.assert_close(peer(prompt).logits, model(prompt), rtol=1e-3, atol=1e-3)
    return peer


if __name__ == "__main__":
    main()
