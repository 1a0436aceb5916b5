"""Networks that learn what guidance does."""

from fastguide.distill.student import Distill

__all__ = ["Distill"]
