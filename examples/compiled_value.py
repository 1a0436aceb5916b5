"""A reward written in Python, compiled on first use and run by all threads without the interpreter."""

import torch

import fastguide as fg

length, vocab = 40, 4
process = fg.MaskedProcess(length=length, vocab=vocab, steps=20)


@fg.value
def stems(x):  # one sample: tokens 0 to 3, paired 0-3 and 1-2; how many ends would pair as a hairpin
    pairs = 0
    for i in range(len(x) // 2 - 2):
        pairs += x[i] + x[len(x) - 1 - i] == 3
    return pairs


result = fg.sample(
    process, lambda x, t: torch.zeros(len(x), length, vocab), stems, fg.SMC(alpha=0.5), particles=512, progress=False
)
print(f"pairs: {stems(result.draw(100)).mean():.1f} of {length // 2 - 2}, 4.5 by chance")
