r"""``model.generate`` of the ``transformers`` package, guided by a reward; and masked models filled in, likewise.

    from fastguide.adapters.transformers import generate
    out = generate(model, **inputs, max_new_tokens=24, do_sample=True, top_p=0.9, reward=…, guidance=fg.SMC(alpha=0.2))
    # was:   model.generate(**inputs, max_new_tokens=24, do_sample=True, top_p=0.9)

Arguments, defaults, errors and the layout of what is returned are those of `generate`, which prepares all of them and then
hands its loop to `fastguide.sample`: a prompt is a group, its sequences are drawn by weight from ``particles`` of them. The
pretrained law that guidance tilts is sampling *as asked for*, with every logits processor and the end forced at
``max_new_tokens``. Keys and values move with the particles, one token a state is computed, and a finished sequence costs no
network row. What cannot be honoured is refused by name: beams and assistants, caches that are not one key and value a token
(``use_cache=False`` takes such models), streamers, criteria other than length and end tokens, and processors that are no
function of a prefix and its scores alone. Random numbers follow ``torch.manual_seed``, as theirs do.
"""

from fastguide.adapters.transformers.causal import generate
from fastguide.adapters.transformers.masked import fill_mask
from fastguide.adapters.transformers.output import GuidedOutput

__all__ = ["GuidedOutput", "fill_mask", "generate"]
