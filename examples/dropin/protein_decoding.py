import torch
from esm.models.esm3 import ESM3
from esm.sdk.api import ESMProtein

from fastguide.adapters.esm import ESM3GuidedDecoding  # was: from esm.sdk.experimental import ESM3GuidedDecoding

torch.manual_seed(0)
model = ESM3.from_pretrained("esm3-sm-open-v1")
decoding = ESM3GuidedDecoding(model, lambda protein: protein.sequence.count("L") - protein.sequence.count("G"))
protein = decoding.guided_generate(
    ESMProtein(sequence="A______L"), num_decoding_steps=4, num_samples_per_step=8, verbose=False
)  # fmt: skip
print("sequence", protein.sequence)
