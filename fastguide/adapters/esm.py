r"""``ESM3GuidedDecoding`` of the ESM SDK (``esm.sdk.experimental``), on `fastguide.sample`.

    from fastguide.adapters.esm import ESM3GuidedDecoding, GuidedDecodingScoringFunction
    # was: from esm.sdk.experimental import ESM3GuidedDecoding, GuidedDecodingScoringFunction

Each step draws ``num_samples_per_step`` candidates of the protein, predicts the rest of each and keeps the best: `SVDD` at
``alpha=0`` with one particle. Theirs asks the network twice a candidate, one candidate after another. Here the candidates are
drawn from one prediction, the network sees all of them in one batch (remote clients, that have no batches: at once, through
their executor), and what it says of the one that is kept serves the next step too. Equal candidates and equal predictions
are computed, decoded and scored once.

What is right here and not there: every step reveals as many positions as any other (theirs the quotient rounded down, and
what is left in the last step at once: all of them where there are fewer masks than steps; ``compat=True`` does so too), and
no special token is ever drawn. Random numbers follow ``torch.manual_seed``, as theirs do with local models.

Source: Li et al., 2408.08252.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastguide import ops
from fastguide.adapters._seeds import torch_seed
from fastguide.errors import BackendUnavailable
from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.protocol import Guidance
from fastguide.guidance.svdd import SVDD
from fastguide.memory import Memory
from fastguide.models.protocol import Denoiser, Prediction, State
from fastguide.ops._checks import choice, count
from fastguide.processes.masked import MaskedProcess
from fastguide.result import Result
from fastguide.rewards.protocol import each
from fastguide.sample import sample
from fastguide.states import States
from fastguide.values.draws import state_seeds

TRACKS = ("sequence", "structure")


class GuidedDecodingScoringFunction(ABC):
    """What a candidate is worth; any callable of a protein will do."""

    @abstractmethod
    def __call__(self, protein: Any) -> float:
        """Return the score of an ``ESMProtein``, larger is better."""


class ESM3GuidedDecoding:
    """Guided decoding of a masked track of a protein by ESM3.

    Args:
        client: a local ``ESM3``, or a remote client with ``logits``.
        scoring_function: from an ``ESMProtein`` to a number.
        compat: reveal as many positions a step as theirs, see the head of this file.

    Raises:
        ValueError: the client is neither.
        BackendUnavailable: the ESM SDK is not installed.
    """

    def __init__(self, client: Any, scoring_function: Callable[[Any], float], *, compat: bool = False) -> None:
        self._local = isinstance(client, torch.nn.Module)
        if not all(callable(getattr(client, name, None)) for name in ("logits", "forward_and_sample", "decode")):
            raise ValueError(
                f"client must be an instance of ESM3 or ESM3ForgeInferenceClient. Got {type(client).__name__}"
            )
        self._api = _sdk("esm.sdk.api")
        self.tokenizers = client.tokenizers if self._local else _sdk("esm.tokenization").get_esm3_model_tokenizers()
        self.client, self.scoring_function, self.compat = client, scoring_function, compat

    def guided_generate(
        self,
        protein: Any,
        num_decoding_steps: int,
        num_samples_per_step: int,
        denoised_prediction_temperature: float = 0.0,
        track: str = "sequence",
        verbose: bool = True,
        *,
        guidance: Guidance | None = None,
        particles: int = 1,
    ) -> Any:
        """Return the ``ESMProtein`` whose masks of ``track`` are filled in, and its other tracks predicted.

        Args:
            protein: an ``ESMProtein``; its sequence has ``_`` where a residue is to be found.
            num_decoding_steps: steps.
            num_samples_per_step: candidates a step (and a particle).
            denoised_prediction_temperature: of the prediction that completes a candidate for its score.
            track: ``"sequence"`` or ``"structure"``.
            verbose: show a progress bar.
            guidance: what keeps candidates; None is the best of ``num_samples_per_step``, `SVDD` at ``alpha=0``.
            particles: proteins that are decoded side by side; the one of highest score is returned.

        Raises:
            ESMProteinError: where the client returned or raised one.
            ValueError: a track that is unknown or that the protein does not have.
        """
        network = self._network(protein, denoised_prediction_temperature, track)
        best = network.template
        if network.masks > 0:
            guidance = guidance or _best_of(count("num_samples_per_step", num_samples_per_step))
            result = self._run(network, num_decoding_steps, guidance, particles, verbose)
            best = network.protein_tensor(result.best(1))
        sampling = self._api.SamplingTrackConfig
        config = self._api.SamplingConfig(sequence=sampling(temperature=0.0), structure=sampling(temperature=0.0))
        whole = _sound(self.client.forward_and_sample(best, config))
        return _sound(self.client.decode(whole.protein_tensor))

    def _network(self, protein: Any, temperature: float, track: str) -> _Network:
        choice("track", track, TRACKS)
        encoded = _sound(self.client.encode(protein))
        if track == "structure":
            encoded = self.maybe_add_default_structure_tokens(encoded)
        if getattr(encoded, track) is None:
            raise ValueError(f"track: the protein has no {track}, so none of it is masked; give '_' at each position")
        return _Network(self, encoded, temperature, track)

    def _run(self, network: _Network, steps: int, guidance: Guidance, particles: int, verbose: bool) -> Result:
        steps = count("num_decoding_steps", steps)
        share = network.masks // steps / network.masks
        schedule = (lambda t: round((1.0 - t) * steps) * share) if self.compat else "linear"
        process = MaskedProcess(network.length, network.vocab, steps, schedule=schedule, reveal="count")
        return sample(
            process, network, each(self.scoring_function), guidance, value=_Denoised(network), particles=particles,
            x_init=network.x_init, decode=network.proteins, seed=network.seed, memory=Memory(ragged=True),
            progress=verbose, device=network.x_init.device,
        )  # fmt: skip

    def get_number_of_masked_positions(self, protein_tensor: Any, track: str = "sequence") -> int:
        """Return how many positions of a track are masked."""
        return int((getattr(protein_tensor, track) == getattr(self.tokenizers, track).mask_token_id).sum())

    def maybe_add_default_structure_tokens(self, protein_tensor: Any) -> Any:
        """Return the protein with a masked structure where it has none."""
        if protein_tensor.structure is not None:
            return protein_tensor
        protein_tensor = copy.copy(protein_tensor)
        protein_tensor.structure = self._empty(protein_tensor).structure
        return protein_tensor

    def _empty(self, protein_tensor: Any) -> Any:
        return self._api.ESMProteinTensor.empty(
            len(protein_tensor) - 2, tokenizers=self.tokenizers, device=protein_tensor.device
        )

    def _at_once(self, call: Callable[[Any], Any], proteins: list[Any]) -> list[Any]:
        """Return what ``call`` makes of each protein; of remote clients through the executor of the SDK."""
        if self._local:
            return [_sound(call(protein)) for protein in proteins]
        # They call by the name of the argument.
        with _sdk("esm.sdk").batch_executor(show_progress=False) as executor:
            return [_sound(found) for found in executor.execute_batch(lambda protein: call(protein), protein=proteins)]


class _Network(Denoiser):
    """ESM3 as the denoiser of one track, with what else it predicts as its state.

    A state has all positions of the track; its tokens are numbered by the columns of ``ids``. A denoised protein is a row twice
    as long: the track, and the tokens of the other track ``[L]`` as the SDK numbers them.
    """

    def __init__(self, decoding: ESM3GuidedDecoding, encoded: Any, temperature: float, track: str) -> None:
        self.decoding, self.temperature, self.track, self.seed = decoding, temperature, track, torch_seed()
        self.other = TRACKS[1 - TRACKS.index(track)]
        self.template = copy.copy(encoded)
        for name, default in _fields(decoding._empty(encoded)).items():
            if getattr(encoded, name) is None:
                setattr(self.template, name, default)
        given = getattr(self.template, track)
        tokenizer = getattr(decoding.tokenizers, track)
        mask = tokenizer.mask_token_id
        self.drawn = self._drawn(track)
        # Tokens that only a given position holds have no probability.
        rest = [i for i in given.unique().tolist() if i != mask and i not in self.drawn]
        self.ids = torch.tensor([*self.drawn, *rest, mask], device=given.device)
        self.vocab, self.length = len(self.ids) - 1, len(given)
        self.x_init = (given[:, None] == self.ids).int().argmax(1)
        self.masks = int((given == mask).sum())

    def _drawn(self, track: str) -> list[int]:
        tokenizer = getattr(self.decoding.tokenizers, track)
        return sorted(set(tokenizer.all_token_ids) - set(tokenizer.special_token_ids))

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        logits = self._logits(x)
        of_track = logits[self.track][..., self.drawn].float()
        padding = self.vocab - len(self.drawn)
        return Prediction(torch.nn.functional.pad(of_track, (0, padding), value=-torch.inf), self._others(x, logits))

    def _logits(self, x: Tensor) -> dict[str, Tensor]:
        """Return the logits ``[n, L, C]`` of both tracks."""
        decoding = self.decoding
        config = decoding._api.LogitsConfig(sequence=True, structure=True)
        if decoding._local:
            batch = _sdk("esm.utils.sampling")._BatchedESMProteinTensor.from_protein_tensor(self.template)
            for name, tensor in _fields(batch).items():
                setattr(batch, name, tensor.expand(len(x), *tensor.shape[1:]))
            setattr(batch, self.track, self.ids[x])
            logits = _sound(decoding.client.logits(batch, config)).logits
            return {name: getattr(logits, name) for name in TRACKS}
        proteins = [self.protein_tensor(row[None]) for row in x]
        found = decoding._at_once(lambda protein: decoding.client.logits(protein, config), proteins)
        return {name: torch.stack([getattr(f.logits, name).view(self.length, -1) for f in found]) for name in TRACKS}

    def _others(self, x: Tensor, logits: dict[str, Tensor]) -> Tensor:
        """Return the tokens ``[n, L]`` of the other track: as they are given, drawn at its masks."""
        given, drawn = getattr(self.template, self.other), self._drawn(self.other)
        ids = torch.tensor(drawn, device=x.device)
        masked = given == getattr(self.decoding.tokenizers, self.other).mask_token_id
        found = self.fill(torch.where(masked, len(drawn), 0).expand(len(x), -1), logits[self.other][..., drawn], x, 1)
        return torch.where(masked, ids[found], given)

    def fill(self, tokens: Tensor, logits: Tensor, x: Tensor, step: int) -> Tensor:
        """Return tokens ``[n, L]`` whose masks are drawn from logits ``[n, L, V]``, by states ``x`` alone."""
        return ops.masked_step(
            tokens.contiguous(), logits.float(), reveal_probability=1.0, temperature=self.temperature,
            seed=state_seeds(x, step, self.seed), slots=torch.zeros(len(x), dtype=torch.int64, device=x.device),
        )[:, 0]  # fmt: skip

    def protein_tensor(self, row: Tensor) -> Any:
        """Return the ``ESMProteinTensor`` of a state ``[1, L]`` or a denoised protein ``[1, 2 L]``."""
        protein = copy.copy(self.template)
        setattr(protein, self.track, self.ids[row[0, : self.length]])
        if row.shape[1] > self.length:
            setattr(protein, self.other, row[0, self.length :])
        return protein

    def proteins(self, x0: Tensor) -> list[Any]:
        """Return the ``ESMProtein`` of denoised proteins ``[n, 2 L]``, or of clean states ``[n, L]``, the rest predicted."""
        if x0.shape[1] == self.length:
            x0 = torch.cat([x0, self._others(x0, self._logits(x0))], 1)
        return self.decoding._at_once(self.decoding.client.decode, [self.protein_tensor(row[None]) for row in x0])


class _Denoised:
    """The score of the protein that the network predicts, all its tracks at one temperature."""

    reads_output: ClassVar[bool] = True

    def __init__(self, network: _Network) -> None:
        self.network = network

    def look(self, states: States) -> Tensor:
        """Return the denoised proteins."""
        assert states.output is not None
        track = self.network.fill(states.x, states.output, states.x, 0)
        return torch.cat([track, states.state], 1)

    def values(self, looked: Tensor, rewards: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return their scores."""
        return rewards(looked)


def _best_of(candidates: int) -> Guidance:
    return SVDD(alpha=0.0, branch=candidates) if candidates > 1 else BestOfN(alpha=0.0)


def _fields(protein: Any) -> dict[str, Tensor]:
    names = ("sequence", "structure", "secondary_structure", "sasa", "function", "residue_annotations", "coordinates")
    values = {name: getattr(protein, name, None) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _sound(answer: Any) -> Any:
    """Return what a client answered, unless that is an error: remote ones return theirs."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def _sdk(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise BackendUnavailable("esm, the SDK of ESM3, is not installed: pip install esm") from error
