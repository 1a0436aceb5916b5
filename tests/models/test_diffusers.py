"""Networks of ``diffusers`` in our own loop."""

from __future__ import annotations

import warnings

import pytest
import torch

import fastguide as fg

pytest.importorskip("diffusers", reason="needs diffusers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that diffusers would like to find
    from diffusers import (
        DDIMScheduler,
        DDPMScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
        UNet2DConditionModel,
    )

    from tests.adapters.pipelines import MixtureNetwork, pays
from tests.oracle.gaussian import Mixture

SCHEDULERS = {
    "ddpm": DDPMScheduler(clip_sample=False, variance_type="fixed_large"),
    "ddim": DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    "euler-ancestral": EulerAncestralDiscreteScheduler(prediction_type="epsilon"),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_process_and_network_fit_together(name):
    """What the network says at each level is the exact prediction of the process there; log Ẑ within 4 standard errors."""
    scheduler = SCHEDULERS[name]
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    network = MixtureNetwork(flow=name == "flow", prediction=kind).eval()
    process, model = fg.models.from_diffusers(network, scheduler, steps=12, eta=0.7 if name == "ddim" else None)
    flat = fg.GaussianProcess(**{**vars_of(process), "shape": 1})
    oracle, x = Mixture(flat), torch.randn(5, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    for step, time in enumerate(process.times[:-1]):
        out = model(x, torch.full((5,), time)).output
        torch.testing.assert_close(out.flatten(), oracle.output(x.flatten(), step).float(), rtol=1e-3, atol=1e-3)
    result = fg.sample(process, model, pays, fg.SMC(), particles=128, groups=48, progress=False)
    error = result.log_normalizer.standard_error
    assert error < 0.2
    assert abs(float(result.log_normalizer) - oracle.target(points=601).log_z) < 4 * error


def vars_of(process: fg.GaussianProcess) -> dict:
    return {name: getattr(process, name) for name in process.__dataclass_fields__}


def test_a_condition_and_classifier_free_guidance():
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        block_out_channels=(32,),
        layers_per_block=1,
        **blocks,
    ).eval()
    process, model = fg.models.from_diffusers(network, DDPMScheduler(), steps=3)
    assert process.shape == (4, 4, 4)
    assert process.clip_x0 == 1.0
    guided = fg.models.classifier_free(model, 2.0, unconditional=torch.zeros(3, 8))
    conditions = [torch.randn(3, 8), torch.randn(3, 8)]
    result = fg.sample(
        process, guided, lambda x0: x0.mean((1, 2, 3)), fg.SMC(alpha=0.1), particles=4, groups=2, condition=conditions,
        progress=False,
    )  # fmt: skip
    assert result.samples.shape == (8, 4, 4, 4)


def test_refusals():
    network = MixtureNetwork()
    with pytest.raises(ValueError, match="training mode"):
        fg.models.from_diffusers(network.train(), DDPMScheduler())
    with pytest.raises(ValueError, match="got EulerDiscreteScheduler"):
        fg.models.from_diffusers(network, EulerDiscreteScheduler())
    with pytest.raises(ValueError, match="variance_type 'learned_range'"):
        fg.models.from_diffusers(network, DDPMScheduler(variance_type="learned_range"))
    with pytest.raises(ValueError, match="thresholding"):
        fg.models.from_diffusers(network, DDPMScheduler(thresholding=True))
    with pytest.raises(ValueError, match="use_dynamic_shifting"):
        fg.models.from_diffusers(network, FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
