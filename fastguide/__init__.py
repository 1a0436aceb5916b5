"""Reward-guided generation from pretrained diffusion models at inference time."""
