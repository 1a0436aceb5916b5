"""Proposals guided by derivatives of the reward: which way, in each state, the value rises."""

from fastguide.guidance.gradients.proposal import Estimator, GradientProposal, check_gradient

__all__ = ["Estimator", "GradientProposal", "check_gradient"]
