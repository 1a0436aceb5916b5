import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel

import fastguide as fg
from fastguide.adapters.diffusers import SteeringCallback  # the line more

torch.manual_seed(0)
kinds = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
unet = UNet2DConditionModel(8, block_out_channels=(32,), cross_attention_dim=8, attention_head_dim=4, **kinds)
empty = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
scheduler = DDPMScheduler(clip_sample=False, steps_offset=1)
pipe = StableDiffusionPipeline(unet=unet, scheduler=scheduler, requires_safety_checker=False, **empty)
prompts = {"prompt_embeds": torch.randn(2, 4, 8), "negative_prompt_embeds": torch.zeros(2, 4, 8)}
steer = SteeringCallback(lambda x: x.mean((1, 2, 3)), fg.SMC(), particles=8, decode="latent")
pipe(**prompts, num_images_per_prompt=8, callback_on_step_end=steer, num_inference_steps=10, output_type="latent")
print("mean reward of each prompt", steer.rewards.mean(1).tolist())
