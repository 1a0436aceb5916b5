"""Look-ahead estimators of the soft value ``v_t(x_t) = alpha · log E[exp(r(x0) / alpha) | x_t]``."""

from fastguide.values.posterior_mean import PosteriorMean

__all__ = ["PosteriorMean"]
