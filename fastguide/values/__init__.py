"""Look-ahead estimators of the soft value ``v_t(x_t) = alpha · log E[exp(r(x0) / alpha) | x_t]``, and compiled values."""

from fastguide.values import compiled
from fastguide.values.learned import Regression, SoftQ
from fastguide.values.monte_carlo import MonteCarlo
from fastguide.values.posterior_mean import PosteriorMean
from fastguide.values.protocol import Value

__all__ = ["MonteCarlo", "PosteriorMean", "Regression", "SoftQ", "Value", "compiled"]
