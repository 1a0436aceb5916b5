"""What the ESM SDK has that guided decoding touches, in our words and tiny: types, tokenizers, a local and a remote client.

The network knows 3 residues and 4 structure tokens, has columns to spare as the real one has, and counts its calls and rows.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from types import ModuleType, SimpleNamespace

import torch

RESIDUES = "AGL"
CLS, PAD, EOS, MASK, COLUMNS, CODES = 0, 1, 2, 6, 9, 4


@dataclass
class ESMProtein:
    sequence: str | None = None
    coordinates: torch.Tensor | None = None


class ESMProteinError(Exception):
    pass


class Tokenizer:
    def __init__(self, size, mask, special):
        self.mask_token_id, self.all_token_ids, self.special_token_ids = mask, list(range(size)), special


TOKENIZERS = SimpleNamespace(
    sequence=Tokenizer(7, MASK, [CLS, PAD, EOS, MASK]),
    structure=Tokenizer(CODES + 3, CODES, [CODES, CODES + 1, CODES + 2]),
)


@dataclass(eq=False)
class ESMProteinTensor:
    sequence: torch.Tensor | None = None
    structure: torch.Tensor | None = None
    function: torch.Tensor | None = None
    potential_sequence_of_concern: bool = False

    def __len__(self):
        return len(self._any())

    def _any(self):
        return next(x for x in (self.sequence, self.structure, self.function) if x is not None)

    @property
    def device(self):
        return self._any().device

    @classmethod
    def empty(cls, length, tokenizers=None, device="cpu"):
        sequence = torch.tensor([CLS, *[MASK] * length, EOS], device=device)
        structure = torch.tensor([CODES + 1, *[CODES] * length, CODES + 2], device=device)
        return cls(sequence, structure, torch.zeros(length + 2, 2, dtype=torch.int64, device=device))


class Batched(ESMProteinTensor):
    @classmethod
    def from_protein_tensor(cls, protein):
        values = {f.name: getattr(protein, f.name) for f in fields(protein)}
        return cls(**{k: v[None] if isinstance(v, torch.Tensor) else v for k, v in values.items()})


@dataclass
class SamplingTrackConfig:
    temperature: float = 1.0


@dataclass
class SamplingConfig:
    sequence: SamplingTrackConfig | None = None
    structure: SamplingTrackConfig | None = None


@dataclass
class LogitsConfig:
    sequence: bool = False
    structure: bool = False


class Network:
    """Logits that depend on all residues that are revealed, and where; special columns are as likely as any."""

    def __init__(self, length, strength=1.0):
        draw = torch.Generator().manual_seed(0)
        self.own = strength * torch.randn(length + 2, COLUMNS, generator=draw)
        self.pairs = strength * torch.randn(length + 2, length + 2, COLUMNS, COLUMNS, generator=draw)
        self.codes = torch.randn(COLUMNS, CODES, generator=draw)
        self.calls = self.rows = 0

    def logits(self, sequence, structure):
        self.calls, self.rows = self.calls + 1, self.rows + len(sequence)
        seen = torch.nn.functional.one_hot(sequence, COLUMNS).float() * (sequence != MASK)[..., None]
        of_sequence = self.own + torch.einsum("njc,ijcd->nid", seen, self.pairs)
        return of_sequence, of_sequence.softmax(-1) @ self.codes


class Client:
    """What both clients do."""

    def encode(self, protein):
        ids = [CLS, *(MASK if r == "_" else 3 + RESIDUES.index(r) for r in protein.sequence), EOS]
        return ESMProteinTensor(sequence=torch.tensor(ids))

    def decode(self, protein):
        assert protein.sequence.ndim == 1
        assert (protein.structure[1:-1] < CODES).all()
        letters = "".join("_" if i == MASK else RESIDUES[i - 3] for i in protein.sequence[1:-1].tolist())
        return ESMProtein(letters, protein.structure[1:-1].float())

    def forward_and_sample(self, protein, config):
        whole = replace(protein, structure=protein.structure if protein.structure is not None else self._masks(protein))
        logits = self.network.logits(whole.sequence[None], whole.structure[None])
        for name, mask, of_track in (("sequence", MASK, logits[0][..., 3:6]), ("structure", CODES, logits[1])):
            track, settings = getattr(whole, name), getattr(config, name)
            if settings is None:
                continue
            at = settings.temperature
            drawn = of_track[0].argmax(-1) if at == 0 else torch.multinomial((of_track[0] / at).softmax(-1), 1)[:, 0]
            whole = replace(
                whole, **{name: torch.where(track == mask, drawn + (3 if name == "sequence" else 0), track)}
            )
        return SimpleNamespace(protein_tensor=whole)

    @staticmethod
    def _masks(protein):
        return ESMProteinTensor.empty(len(protein) - 2).structure


class ESM3(Client, torch.nn.Module):
    tokenizers = TOKENIZERS

    def __init__(self, network):
        super().__init__()
        self.network = network

    def logits(self, protein, config):
        assert isinstance(protein, Batched)
        sequence, structure = self.network.logits(protein.sequence, protein.structure)
        return SimpleNamespace(logits=SimpleNamespace(sequence=sequence, structure=structure))


class Remote(Client):
    """A client without batches."""

    def __init__(self, network):
        self.network = network

    def logits(self, protein, config):
        if protein.sequence.ndim != 1:
            return ESMProteinError("one protein at a time")
        sequence, structure = self.network.logits(protein.sequence[None], protein.structure[None])
        return SimpleNamespace(logits=SimpleNamespace(sequence=sequence[0], structure=structure[0]))


class Executor:
    """Calls one after another and counts how many it was given at once."""

    batches: list[int] = []  # noqa: RUF012

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def execute_batch(self, user_func, **lists):
        rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        self.batches.append(len(rows))
        return [user_func(**row) for row in rows]


def install(monkeypatch):
    """Put the stub where the SDK would be."""
    here = sys.modules[__name__]
    contents = {
        "esm": {},
        "esm.sdk": {"batch_executor": lambda show_progress: Executor()},
        "esm.sdk.api": {
            kind.__name__: kind
            for kind in (
                ESMProtein,
                ESMProteinError,
                ESMProteinTensor,
                SamplingConfig,
                SamplingTrackConfig,
                LogitsConfig,
            )
        },
        "esm.tokenization": {"get_esm3_model_tokenizers": lambda: TOKENIZERS},
        "esm.utils": {},
        "esm.utils.sampling": {"_BatchedESMProteinTensor": Batched},
        "esm.models": {},
        "esm.models.esm3": {"ESM3": type("ESM3", (), {"from_pretrained": lambda name: here.ESM3(Network(8))})},
    }
    for name, things in contents.items():
        module = ModuleType(name)
        module.__dict__.update(things)
        monkeypatch.setitem(sys.modules, name, module)
