"""Guided decoding of the ESM SDK on a tiny stub of it: the peer's law, its answers, and how often the network is asked."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

import fastguide as fg
from fastguide.adapters.esm import ESM3GuidedDecoding, GuidedDecodingScoringFunction
from tests.adapters import stub_esm as sdk


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    sdk.install(monkeypatch)
    monkeypatch.setattr(sdk.Executor, "batches", [])


class Score(GuidedDecodingScoringFunction):
    """Prefers L, then some structure; counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, protein):
        assert "_" not in protein.sequence
        self.asked += 1
        return protein.sequence.count("L") + 0.1 * float(protein.coordinates.sum())


def peer(client, score, sequence, steps, candidates):
    """The SDK's algorithm, in our words: candidates one after another, the best is kept, the last step reveals the rest."""
    whole = sdk.SamplingConfig(sdk.SamplingTrackConfig(0.0), sdk.SamplingTrackConfig(0.0))
    protein = client.encode(sdk.ESMProtein(sequence))
    number = int((protein.sequence == sdk.MASK).sum()) // steps
    for step in range(steps):
        found = []
        for _ in range(candidates):
            masked = (protein.sequence == sdk.MASK).nonzero()[:, 0]
            places = masked[torch.randperm(len(masked))][: len(masked) if step == steps - 1 else number]
            drawn = client.forward_and_sample(protein, sdk.SamplingConfig(sequence=sdk.SamplingTrackConfig()))
            tokens = protein.sequence.clone()
            tokens[places] = drawn.protein_tensor.sequence[places]
            candidate = sdk.ESMProteinTensor(sequence=tokens)
            predicted = client.decode(client.forward_and_sample(candidate, whole).protein_tensor)
            found.append((score(predicted), candidate))
        protein = max(found, key=lambda pair: pair[0])[1]
    return client.decode(client.forward_and_sample(protein, whole).protein_tensor)


class TestLaw:
    def test_with_compat_it_is_the_peers(self):
        """9 sequences, 4,000 draws against 1,000: E[TV] ≈ 0.04; 0.08 is beyond 4 standard deviations."""
        client = sdk.ESM3(sdk.Network(4, strength=0.7))
        decoding = ESM3GuidedDecoding(client, Score(), compat=True)
        torch.manual_seed(0)
        network = decoding._network(sdk.ESMProtein("_A__"), 0.0, "sequence")
        result = decoding._run(network, 2, fg.SVDD(alpha=0.0, branch=2), 4_000, False)
        ours = Counter(tuple(row) for row in network.ids[result.samples].tolist())
        theirs = Counter()
        for _ in range(1_000):
            theirs[tuple(client.encode(peer(client, Score(), "_A__", 2, 2)).sequence.tolist())] += 1
        assert len(theirs) > 4
        assert sum(abs(ours[row] / 4_000 - theirs[row] / 1_000) for row in ours | theirs) / 2 < 0.08

    def test_predictions_are_drawn_at_their_temperature(self):
        """3 residues, 5,000 states that differ; frequencies beyond 0.03 of their probabilities are 4 standard deviations."""
        decoding = ESM3GuidedDecoding(sdk.ESM3(sdk.Network(4)), Score())
        network = decoding._network(sdk.ESMProtein("____"), 0.5, "sequence")
        logits = torch.tensor([1.0, 0.0, -0.5, -torch.inf, -torch.inf])
        drawn = network.fill(torch.full((5_000, 1), 5), logits.expand(5_000, 1, 5), torch.arange(5_000)[:, None], 0)
        frequencies = torch.bincount(drawn[:, 0], minlength=5) / 5_000
        torch.testing.assert_close(frequencies, (logits / 0.5).softmax(0), rtol=0, atol=0.03)

    def test_every_step_reveals_as_many_where_theirs_leaves_all_to_the_last(self):
        decodings = [ESM3GuidedDecoding(sdk.ESM3(sdk.Network(5)), Score(), compat=compat) for compat in (False, True)]
        free = []
        for decoding in decodings:
            network = decoding._network(sdk.ESMProtein("_____"), 0.0, "sequence")
            result = decoding._run(network, 4, fg.SVDD(alpha=0.0, branch=2), 1, False)
            free.append((result.replay(0) == network.vocab).sum(1).tolist())
        assert free == [[5, 4, 3, 1, 0], [5, 4, 3, 2, 0]]


class TestAnswers:
    def test_what_is_given_stays_and_the_rest_is_filled_in(self):
        protein = ESM3GuidedDecoding(sdk.ESM3(sdk.Network(8)), Score()).guided_generate(
            sdk.ESMProtein("A_G__L__"), 3, 4, verbose=False
        )
        assert "_" not in protein.sequence
        assert (protein.sequence[0], protein.sequence[2], protein.sequence[5]) == ("A", "G", "L")
        assert protein.coordinates.shape == (8,)

    def test_more_candidates_score_better(self):
        client, scores = sdk.ESM3(sdk.Network(8)), []
        for candidates in (1, 8):
            decoding = ESM3GuidedDecoding(client, Score())
            torch.manual_seed(0)
            found = [decoding.guided_generate(sdk.ESMProtein("_" * 8), 4, candidates, verbose=False) for _ in range(8)]
            scores.append(sum(map(Score(), found)) / 8)
        assert scores[1] > scores[0] + 1

    def test_structure_is_decoded_likewise(self):
        torch.manual_seed(0)
        client = sdk.ESM3(sdk.Network(6))
        protein = ESM3GuidedDecoding(client, lambda p: float((p.coordinates == 2).sum())).guided_generate(
            sdk.ESMProtein("AG_LLA"), 6, 8, track="structure", verbose=False
        )
        assert "_" not in protein.sequence
        assert float((protein.coordinates == 2).sum()) >= 4

    def test_nothing_masked_is_predicted_only(self):
        client = sdk.ESM3(sdk.Network(3))
        protein = ESM3GuidedDecoding(client, Score()).guided_generate(sdk.ESMProtein("AGL"), 2, 4, verbose=False)
        assert protein.sequence == "AGL"
        assert client.network.calls == 1

    def test_remote_clients_do_what_local_ones_do(self):
        found = []
        for kind in (sdk.ESM3, sdk.Remote):
            torch.manual_seed(3)
            decoding = ESM3GuidedDecoding(kind(sdk.Network(8)), Score())
            found.append(decoding.guided_generate(sdk.ESMProtein("_" * 8), 4, 5, 0.5, verbose=False))
        assert found[0].sequence == found[1].sequence
        assert torch.equal(found[0].coordinates, found[1].coordinates)

    def test_random_numbers_follow_torch(self):
        decoding, runs = ESM3GuidedDecoding(sdk.ESM3(sdk.Network(12)), Score()), []
        for _ in range(2):
            torch.manual_seed(5)
            runs.append([decoding.guided_generate(sdk.ESMProtein("_" * 12), 3, 2, verbose=False) for _ in range(2)])
        assert [p.sequence for p in runs[0]] == [p.sequence for p in runs[1]]
        assert runs[0][0].sequence != runs[0][1].sequence

    def test_other_guidance_and_several_particles(self):
        decoding = ESM3GuidedDecoding(sdk.ESM3(sdk.Network(8)), Score())
        options = {"guidance": fg.SMC(alpha=0.3), "particles": 16, "verbose": False}
        assert decoding.guided_generate(sdk.ESMProtein("_" * 8), 4, 1, **options).sequence.count("L") >= 4


class TestCost:
    def test_a_step_is_one_call_of_at_most_a_row_a_candidate(self):
        """Theirs: 2 · 5 · 6 + 1 = 61 calls of one row each."""
        client, score = sdk.ESM3(sdk.Network(10)), Score()
        ESM3GuidedDecoding(client, score).guided_generate(sdk.ESMProtein("_" * 10), 5, 6, verbose=False)
        # The masked protein, the candidates of 5 steps, and the whole protein at the end.
        assert client.network.calls == 1 + 5 + 1
        assert client.network.rows <= 2 + 5 * 6
        assert score.asked <= 1 + 5 * 6

    def test_remote_clients_are_asked_for_all_candidates_at_once(self):
        ESM3GuidedDecoding(sdk.Remote(sdk.Network(12)), Score()).guided_generate(
            sdk.ESMProtein("_" * 12), 4, 6, verbose=False
        )
        assert max(sdk.Executor.batches) >= 5
        assert len(sdk.Executor.batches) <= 2 * (1 + 4)


class TestErrors:
    def test_they_name_what_is_wrong(self, monkeypatch):
        with pytest.raises(ValueError, match="client must be an instance of ESM3"):
            ESM3GuidedDecoding(torch.nn.Linear(2, 2), Score())
        decoding = ESM3GuidedDecoding(sdk.ESM3(sdk.Network(4)), Score())
        for options, message in (
            ({"track": "sasa"}, "track"),
            ({"num_decoding_steps": 0}, "num_decoding_steps"),
            ({"num_samples_per_step": 0}, "num_samples_per_step"),
        ):
            settings = {"num_decoding_steps": 2, "num_samples_per_step": 2, "verbose": False} | options
            with pytest.raises(ValueError, match=message):
                decoding.guided_generate(sdk.ESMProtein("____"), **settings)
        monkeypatch.setattr(decoding.client, "encode", lambda protein: sdk.ESMProteinError("no"))
        with pytest.raises(sdk.ESMProteinError, match="no"):
            decoding.guided_generate(sdk.ESMProtein("____"), 2, 2)

    def test_a_missing_sdk_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "esm.sdk.api", None)
        with pytest.raises(fg.errors.BackendUnavailable, match="pip install esm"):
            ESM3GuidedDecoding(sdk.ESM3(sdk.Network(4)), Score())
