import torch

from fastguide.adapters.tds import smc_FK  # was: from smc_utils.feynman_kac_pf import smc_FK


def M(t, xtp1, extra_vals, P):  # noqa: N802, N803
    return (torch.zeros(P) if xtp1 is None else xtp1) + torch.randn(P), extra_vals


def G(t, xtp1, xt, extra_vals):  # noqa: N802
    return -0.5 * (xt - (10 - t) / 5).square()


xt, log_w, w, ancestors, ess, log_w_trace, _ = smc_FK(M, G, "systematic", T=10, P=1000, ess_threshold=0.5)
print("posterior mean", float((w * xt).sum()), "ESS", ess.tolist())
