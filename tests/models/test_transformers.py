"""Language models as denoisers: small random networks for the mechanics, SmolLM2 and Sapiens weights where installed."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg

transformers = pytest.importorskip("transformers")

VOCAB, LENGTH = 40, 8


def causal(kind="Llama", **settings):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "GPT2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    settings = {"bos_token_id": 1, "eos_token_id": 2, "vocab_size": VOCAB} | sizes | settings
    torch.manual_seed(0)
    name = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    return getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**settings)).eval()


def run(denoiser, guidance, **options):
    process = fg.AutoregressiveProcess(LENGTH, VOCAB, eos=2, temperature=0.2)
    x_init = denoiser.prompts(
        {
            "input_ids": torch.tensor([[0, 5, 6], [0, 0, 7], [8, 9, 0]]),
            "attention_mask": torch.tensor([[0, 1, 1], [0, 0, 1], [1, 1, 0]]),
        },
        LENGTH,
    )
    settings = {"particles": 3, "groups": 4, "progress": False} | options
    return fg.sample(process, denoiser, lambda x: (x % 7).sum(1).float(), guidance, x_init=x_init, **settings)


class TestCausal:
    @pytest.mark.parametrize("kind", ["Llama", "GPT2"])
    @pytest.mark.parametrize("bos", [None, 1])
    @torch.no_grad()
    def test_the_cache_gives_the_logits_of_the_whole_prefix(self, kind, bos):
        denoiser = fg.models.from_transformers(causal(kind), bos=bos)
        x = torch.full((4, LENGTH), VOCAB)
        x[0, :3] = torch.tensor([4, 5, 6])
        x[1, :1] = 7
        x[2] = 9
        x[3, :5] = torch.arange(5)
        state = denoiser.init(4)
        for _ in range(3):
            out = denoiser(x, None, state)
            whole = denoiser._anew(x)
            torch.testing.assert_close(out.output[[0, 1, 3]], whole[[0, 1, 3]], rtol=1e-4, atol=1e-5)
            # Children of rows 1, 0, 0, 3, a token longer each.
            rows = torch.tensor([1, 0, 0, 3])
            x, state = x[rows], out.state
            x[torch.arange(4), (x < VOCAB).sum(1).clamp(max=LENGTH - 1)] = torch.tensor([3, 2, 1, 0])
            x, state = x, denoiser.move(state, rows)

    @pytest.mark.parametrize("guidance", [fg.SMC(alpha=5.0, ess_threshold=1.0), fg.SVDD(alpha=3.0, branch=3)], ids=repr)
    def test_samples_with_and_without_the_cache_are_the_same(self, guidance):
        model = causal()
        cached = run(fg.models.from_transformers(model), guidance)
        anew = run(fg.models.from_transformers(model, cache=False), guidance)
        assert torch.equal(cached.samples, anew.samples)
        assert len(cached.samples.unique(dim=0)) > 3

    @pytest.mark.parametrize("memory", [fg.Memory(limit=1, micro_batch=2), fg.Memory(merge=False)], ids=str)
    def test_caches_follow_their_particles(self, memory):
        denoiser = fg.models.from_transformers(causal())
        guidance = fg.SMC(alpha=5.0, ess_threshold=1.0)
        expected, result = run(denoiser, guidance), run(denoiser, guidance, memory=memory)
        assert torch.equal(expected.samples, result.samples)
        assert torch.equal(result.replay(7)[-1], result.samples[7])

    def test_prompts_are_taken_from_either_side_of_their_padding(self):
        x_init = fg.models.from_transformers(causal()).prompts(
            {"input_ids": [[0, 5, 6], [8, 0, 0]], "attention_mask": [[0, 1, 1], [1, 0, 0]]}, 4
        )
        assert x_init.tolist() == [[5, 6, 40, 40], [8, 40, 40, 40]]

    def test_what_cannot_be_cached_is_refused(self):
        model = causal("Mistral", num_key_value_heads=2, sliding_window=4)
        with pytest.raises(ValueError, match=r"SlidingWindow.*cache=False"):
            fg.models.from_transformers(model)
        run(fg.models.from_transformers(model, cache=False), fg.SMC(alpha=5.0))

    def test_errors_say_what_to_do(self):
        model = causal()
        with pytest.raises(ValueError, match=r"eval\(\)"):
            fg.models.from_transformers(model.train())
        denoiser = fg.models.from_transformers(model.eval())
        with pytest.raises(ValueError, match="at least one token"):
            denoiser(torch.full((1, 4), VOCAB), None, denoiser.init(1))
        with pytest.raises(ValueError, match="tokenizer"):
            denoiser.prompts("hello", 4)
        with pytest.raises(ValueError, match="3 tokens"):
            denoiser.prompts({"input_ids": [[1, 2, 3]], "attention_mask": [[1, 1, 1]]}, 2)
        with pytest.raises(TypeError, match="transformers"):
            fg.models.from_transformers(lambda x: x)


class TestMasked:
    def test_positions_and_tokens_are_those_of_the_process(self):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
        model = transformers.BertForMaskedLM(config).eval()
        denoiser = fg.models.from_transformers(model, tokens=[4, 6, 8], mask=3, prefix=[1], suffix=[2])
        with torch.no_grad():
            out = denoiser(torch.tensor([[0, 3, 2]]), None).output
            whole = model(torch.tensor([[1, 4, 3, 8, 2]])).logits
        assert torch.equal(out[0], whole[0, 1:4][:, [4, 6, 8]])
        process = fg.MaskedProcess(5, denoiser.vocab, 5, reveal="count")
        result = fg.sample(process, denoiser, lambda x: x.sum(1), fg.SMC(), particles=20, progress=False)
        assert (result.samples < 3).all()
        with pytest.raises(ValueError, match="mask"):
            fg.models.from_transformers(model)
