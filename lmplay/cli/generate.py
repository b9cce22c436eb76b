"""`lmplay generate`: continue prompts with a trained model."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lmplay.generate.answers import generation_as_dict
from lmplay.generate.config import SamplingConfig, sampling_config
from lmplay.utils.errors import LMPlayError, WrongUsageError
from lmplay.utils.files import to_json

if TYPE_CHECKING:
    from lmplay.base.base_model import LMBase
    from lmplay.generate.engine import Generation


# All but line feed and tab.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
COMPILE_HELP = "Compile the decoding step, on a GPU as a CUDA graph; takes up to a minute, worth it for long texts."


def sampling_option(name: str, *flags: str) -> Any:
    """A command-line option with the default and the description of the sampling setting of that name."""
    field = SamplingConfig.model_fields[name]
    return typer.Option(field.default, *flags, help=field.description)


def register(app: typer.Typer) -> None:
    app.command("generate")(generate_command)


def generate_command(
    checkpoint: str = typer.Argument(
        help="A run (its newest checkpoint, or RUN@best, RUN@STEP), or the folder of a checkpoint."
    ),
    prompt: list[str] = typer.Option(
        None,
        "--prompt",
        "-p",
        help="The text to continue; give it several times for several texts in one batch, "
        "or leave it out to read one from standard input.",
    ),
    samples: int = typer.Option(1, "--samples", min=1, help="How many continuations of each prompt."),
    max_tokens: int = sampling_option("max_tokens", "--max-tokens"),
    temperature: float = sampling_option("temperature", "--temperature"),
    top_k: int = sampling_option("top_k", "--top-k"),
    top_p: float = sampling_option("top_p", "--top-p"),
    min_p: float = sampling_option("min_p", "--min-p"),
    repetition_penalty: float = sampling_option("repetition_penalty", "--repetition-penalty"),
    seed: int = sampling_option("seed", "--seed"),
    stop: list[str] = typer.Option(None, "--stop", help="End a text before this string; may be given several times."),
    probabilities: int = typer.Option(
        None, "--probs", min=0, max=100, help="Show each token's probability, and this many of the likeliest tokens."
    ),
    device: str = typer.Option("auto", "--device", help="Where to compute: auto, cpu, cuda or cuda:0."),
    weights: str = typer.Option(
        "float32",
        "--weights",
        help="float32 are the checkpoint's own; bfloat16 and int8 are read faster and change the text a little; "
        "auto is the fastest kind for the device.",
    ),
    compiled: bool = typer.Option(False, "--compile", help=COMPILE_HELP),
    comparing: bool = typer.Option(
        False, "--compare-weights", help="Generate nothing: state what each kind of weights costs and gains."
    ),
    text_file: Path | None = typer.Option(
        None, "--text", help="File to measure perplexity on, for --compare-weights; else Python's own documentation."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a text, one a line."),
) -> None:
    """Continue prompts with a trained model, and print what it writes."""
    config = sampling_config(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=tuple(stop or ()),
    )
    if text_file is not None and not comparing:
        raise WrongUsageError("--text goes with --compare-weights")
    if comparing:
        _compare_weights(checkpoint, text_file, device, as_json=as_json)
        return
    prompts = _prompts(prompt)

    import torch

    from lmplay.generate.engine import generate
    from lmplay.generate.loading import load

    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what a model prints is no part of its text
        model = load(checkpoint, device=device, weights=weights).model
    texts = [text for text in prompts for _ in range(samples)]
    streaming = len(texts) == 1 and not as_json and probabilities is None

    def show(_: int, text: str) -> None:
        out.write(visible(text) if out.isatty() else text)
        out.flush()

    if streaming:
        show(0, texts[0])
    with torch.inference_mode(), contextlib.redirect_stdout(sys.stderr):
        results = generate(
            model,
            prompts,
            config,
            samples=samples,
            probabilities=probabilities,
            on_text=show if streaming else None,
            compiled="inductor" if compiled else None,
        )
    if streaming:
        show(0, "\n")
    for index, (text, result) in enumerate(zip(texts, results, strict=True)):
        if as_json:
            typer.echo(to_json(generation_as_dict(text, result)))
        elif not streaming:
            _print_text(index, len(texts), text, result)
    _say_what_is_odd(model, results)


def _compare_weights(checkpoint: str, text: Path | None, device: str, *, as_json: bool) -> None:
    if text is None:
        from pydoc_data.topics import topics

        content = "\n\n".join(topics.values())
    else:
        try:
            content = text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LMPlayError(f"{text} can't be read as text: {error}") from error

    from lmplay.generate.weight_report import WeightReport, compare_weights

    def measuring(kind: str) -> None:
        if not as_json and sys.stderr.isatty():
            typer.echo(f"measuring {kind} ...", err=True)

    row = "{:<10} {:>14} {:>12} {:>12} {:>9}"
    reports: list[WeightReport] = []
    for report in compare_weights(checkpoint, content, device=device, progress=measuring):
        if as_json:
            reports.append(report)
            continue
        if report.weights == "float32":
            typer.echo(row.format("weights", "MB read/token", "tokens/s", "perplexity", "change"))
        typer.echo(
            row.format(
                report.weights,
                f"{report.weight_bytes / 1e6:.1f}",
                f"{report.tokens_per_second:.1f}",
                f"{report.perplexity:.3f}",
                f"{report.change:+.2%}",
            )
        )
    if as_json:
        typer.echo(to_json([asdict(report) for report in reports]))


def visible(text: str) -> str:
    """Control characters as pictures: a model may write any bytes, and none of them may steer the terminal."""
    return CONTROL.sub(lambda found: chr(0x2400 + ord(found[0])) if found[0] < " " else "\ufffd", text)


def _prompts(given: list[str] | None) -> list[str]:
    if given:
        # Bytes of the command line that are no UTF-8 have come as half surrogates, which nothing could print.
        return [text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for text in given]
    if sys.stdin.isatty():
        raise WrongUsageError('what shall be continued? Give --prompt "some text", or text on standard input')
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return [sys.stdin.read()]


def _print_text(index: int, count: int, prompt: str, result: Generation) -> None:
    if count > 1:
        typer.secho(f"[{index + 1} of {count}]", dim=True)
    text = prompt + result.text
    typer.echo(visible(text) if sys.stdout.isatty() else text)
    for item in result.probabilities:
        others = "  ".join(f"{other.text!r} {other.probability:.1%}" for other in item.alternatives)
        typer.echo(f"  {item.probability:6.1%}  {item.text!r:<16} {others}")


def _say_what_is_odd(model: LMBase, results: list[Generation]) -> None:
    if any(result.slides for result in results):
        typer.echo(
            f"note: longer than the model's {model.max_len} tokens, so the oldest were dropped on the way", err=True
        )
    if results and results[0].not_compiled is not None:
        typer.echo(f"note: not compiled: {results[0].not_compiled}", err=True)
    if any(result.stopped_by == "not_finite" for result in results):
        raise LMPlayError("the model's logits are not numbers (NaN); its weights are broken, try an older checkpoint")
