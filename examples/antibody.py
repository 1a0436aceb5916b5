"""Heavy-chain CDRs of an antibody redesigned by the masked model Sapiens, without cysteine and with a lower instability index.

The frameworks of trastuzumab stay as they are. "No cysteine" is a hard constraint on tokens and so a mask in every draw
(``bias``), not a reward: no sample is lost to it. The reward is Biopython's instability index of the whole chain.

    pip install "fastguide[protein,text,bench]" && pip install --no-deps sapiens==1.0.1
    python examples/antibody.py
"""

from __future__ import annotations

import argparse
import io
from importlib.util import find_spec
from pathlib import Path

import torch
from picture import draw
from transformers import RobertaConfig, RobertaForMaskedLM

import fastguide as fg
from fastguide.protein.alphabet import ALPHABET

VH = "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSLRAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS"
CDRS = (range(25, 35), range(49, 59), range(96, 109))
"""Positions of H1, H2 and H3, counted from 0: Chothia's and Kabat's definitions joined."""


def load() -> fg.models.MaskedLM:
    """Return Sapiens, a RoBERTa of the fairseq package, under the names that transformers gives its parts."""
    spec = find_spec("sapiens")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps sapiens==1.0.1")
    data = (Path(spec.origin).parent / "models" / "v1" / "checkpoint_vh.pt").read_bytes()
    with torch.serialization.safe_globals([argparse.Namespace]):
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)["model"]
    model = RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=25, hidden_size=128, num_hidden_layers=4, num_attention_heads=8, intermediate_size=256,
            max_position_embeddings=146, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        )
    )  # fmt: skip
    names = {
        "decoder.sentence_encoder.embed_tokens.": "roberta.embeddings.word_embeddings.",
        "decoder.sentence_encoder.embed_positions.": "roberta.embeddings.position_embeddings.",
        "decoder.sentence_encoder.emb_layer_norm.": "roberta.embeddings.LayerNorm.",
        "decoder.sentence_encoder.layers.": "roberta.encoder.layer.",
        ".self_attn.q_proj.": ".attention.self.query.",
        ".self_attn.k_proj.": ".attention.self.key.",
        ".self_attn.v_proj.": ".attention.self.value.",
        ".self_attn.out_proj.": ".attention.output.dense.",
        ".self_attn_layer_norm.": ".attention.output.LayerNorm.",
        ".fc1.": ".intermediate.dense.",
        ".fc2.": ".output.dense.",
        ".final_layer_norm.": ".output.LayerNorm.",
        "decoder.lm_head.weight": "lm_head.decoder.weight",
        "decoder.lm_head.": "lm_head.",
    }
    renamed = {}
    for name, weight in weights.items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = weight
    renamed["lm_head.decoder.bias"] = renamed["lm_head.bias"]
    renamed["roberta.embeddings.token_type_embeddings.weight"] = torch.zeros(1, 128)
    model.load_state_dict(renamed)
    return fg.models.from_transformers(model.eval(), tokens=range(4, 24), mask=24, prefix=[0], suffix=[2])


def main(steps: int = 33, particles: int = 64, out: str = "antibody.png") -> dict[str, fg.Result]:
    denoiser = load()
    native = torch.tensor([ALPHABET.index(residue) for residue in VH])
    designed = torch.tensor([i for cdr in CDRS for i in cdr])
    x_init = native.clone()
    x_init[designed] = denoiser.vocab
    no_cysteine = torch.zeros(denoiser.vocab)
    no_cysteine[ALPHABET.index("C")] = -torch.inf
    process = fg.MaskedProcess(len(VH), denoiser.vocab, steps, reveal="count")
    reward = -0.1 * fg.rewards.ProtParam("instability_index")
    guidances = {
        "unguided": fg.BestOfN(alpha=0.0),
        "SMC, alpha 0.15": fg.SMC(alpha=0.15),
        "SVDD, alpha 0.05, 4 children": fg.SVDD(alpha=0.05, branch=4),
    }
    results, rewards, samples = {}, {}, {}
    for name, guidance in guidances.items():
        result = results[name] = fg.sample(
            process, denoiser, reward, guidance, particles=particles, progress=False, x_init=x_init, bias=no_cysteine
        )
        print(f"{name}: {result}")
        rows = result.draw_indices(particles)
        rewards[name] = (-10.0 * result.rewards[rows]).tolist()
        best = result.samples[rows.unique()[:4]].tolist()
        samples[name] = ["   ".join("".join(ALPHABET[row[i]] for i in cdr) for cdr in CDRS) for row in best]
    samples["trastuzumab"] = ["   ".join(VH[cdr.start : cdr.stop] for cdr in CDRS)]
    index = float(-10.0 * reward(native[None])[0])
    print(
        draw(
            out,
            rewards,
            samples,
            f"instability index (trastuzumab: {index:.1f})",
            "CDRs H1, H2, H3 by Sapiens, no cysteine",
        )
    )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=33)
    parser.add_argument("--particles", type=int, default=64)
    parser.add_argument("--out", default="antibody.png")
    main(**vars(parser.parse_args()))
