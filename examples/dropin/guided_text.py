import torch
from transformers import LlamaConfig, LlamaForCausalLM

import fastguide as fg
from fastguide.adapters.transformers import generate  # the import; below was: model.generate(prompt, ...)

torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
model = LlamaForCausalLM(LlamaConfig(vocab_size=40, bos_token_id=1, eos_token_id=2, pad_token_id=0, **sizes)).eval()
prompt = torch.tensor([[1, 5, 6], [1, 7, 8]])
out = generate(
    model, prompt, reward=lambda x: (x % 7).sum(1), guidance=fg.SMC(alpha=2.0),
    max_new_tokens=8, do_sample=True, top_p=0.95, num_return_sequences=4,
)  # fmt: skip
print("sequences", out.tolist())
