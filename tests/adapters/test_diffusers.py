"""Steering inside stock pipelines of ``diffusers``: exact laws, no call more, random states, refusals."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

import fastguide as fg

pytest.importorskip("diffusers", reason="needs diffusers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that diffusers would like to find
    from diffusers import (
        DDIMPipeline,
        DDIMScheduler,
        DDPMPipeline,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        FlowMatchEulerDiscreteScheduler,
        PNDMScheduler,
    )
    from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

    from fastguide.adapters.diffusers import SteeringCallback, schedulers
    from tests.adapters import pipelines
    from tests.adapters.pipelines import STEPS, call, law, pays, stable_diffusion, stable_diffusion_3, target

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

SCHEDULERS = {
    "ddpm": (lambda: DDPMScheduler(clip_sample=False), {}),
    "ddpm-large": (lambda: DDPMScheduler(variance_type="fixed_large", clip_sample=False), {}),
    "ddim": (lambda: DDIMScheduler(clip_sample=False, timestep_spacing="trailing"), {"eta": 0.7}),
    "ddim-clipped": (
        lambda: DDIMScheduler(clip_sample_range=2.5, set_alpha_to_one=False, steps_offset=1),
        {"eta": 1.0},
    ),
    "euler-ancestral": (EulerAncestralDiscreteScheduler, {}),
}
GUIDANCES = {
    "SMC": fg.SMC(),
    "window": fg.SMC(value_steps=range(3, 9)),
    "max": fg.SMC(potential="max_difference"),
    "NestedSMC": fg.NestedSMC(branch=3),
    "TDS": fg.TDS(clip=1.0),
    "decoded": fg.TDS(clip=1.0, gradient="decoded"),
    "BestOfN": fg.BestOfN(),
}


def steer(guidance=None, particles=128, **options) -> SteeringCallback:
    settings = {"decode": "latent", "at_end": "keep"} | options
    return SteeringCallback(pays, guidance or fg.SMC(), particles=particles, **settings)


def error(steering: SteeringCallback) -> float:
    """The standard error of the logarithm of the mean normaliser of the groups."""
    z = (steering.log_normalizer - steering.log_normalizer.max()).exp()
    return float(z.std() / z.mean()) / math.sqrt(len(z))


def agrees(steering: SteeringCallback, x: torch.Tensor, exact, most: float = 0.15) -> None:
    """Ẑ within 4 standard errors (false alarms 6e-5), which are below ``most``; mean and variance within 0.15."""
    assert error(steering) < most
    log_z = float(steering.log_normalizer.exp().mean().log())
    assert abs(log_z - exact.log_z) < 4 * error(steering), (log_z, exact.log_z)
    w = torch.softmax(steering.log_weights.flatten(), 0)
    mean = float((w * x[:, 0].double()).sum())
    assert abs(mean - exact.mean) < 0.15
    assert abs(float((w * (x[:, 0].double() - mean) ** 2).sum()) - exact.variance) < 0.15


def exact_law(pipe, options, **timesteps):
    with torch.no_grad():
        return target(*law(pipe.scheduler, lambda x, t: pipe.unet(x, t).sample, options, **timesteps))


FAST = {("ddpm", "NestedSMC"), ("ddpm-large", "decoded"), ("ddim-offset", "TDS"), ("euler-ancestral", "window")}


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        pytest.param(name, guidance, marks=() if (name, guidance) in FAST else pytest.mark.slow)
        for name in SCHEDULERS
        for guidance in GUIDANCES
    ],
)
def test_the_law_is_that_of_the_pipeline_as_run_tilted(name, guidance):
    make, options = SCHEDULERS[name]
    pipe = stable_diffusion(make())
    exact = exact_law(pipe, options)
    steering = steer(GUIDANCES[guidance])
    pipe.unet.rows = 0
    rows = 128 * steering.guidance.branch
    x = call(pipe, rows, steering, prompts=(0.0,) * 32, generator=torch.Generator().manual_seed(0), **options)
    assert pipe.unet.rows == STEPS * rows * 32  # not a call more
    agrees(steering, x, exact)


@pytest.mark.parametrize("guidance", ["SMC", "TDS"])
def test_a_flow_becomes_an_sde(guidance):
    """Against the law of the SDE's own steps."""
    pipe, eta = stable_diffusion_3(FlowMatchEulerDiscreteScheduler(shift=2.0)), 0.8
    sigmas = [1.0, 0.97, 0.93, 0.88, 0.82, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25, 0.15, 0.07]
    pipe.scheduler.set_timesteps(sigmas=sigmas)
    levels, points = pipe.scheduler.sigmas.double().tolist(), 601
    x = torch.linspace(-12, 12, points, dtype=torch.float64)
    p = torch.exp(-0.5 * x**2)
    for k in range(len(sigmas)):
        s, s_next = levels[k], levels[k + 1]
        with torch.no_grad():
            u = pipe.transformer(x.view(-1, 1, 1, 1), torch.tensor(1000 * s)).sample.flatten()
        x0, eps = x - s * u, x + (1 - s) * u
        kept = s_next * (s_next / s) ** (eta**2) if k else s_next
        noise = math.sqrt(s_next**2 - kept**2)
        x, p = pipelines.transfer(p, (1 - s_next) * x0 + kept * eps, noise, 1.0, points)
    exact = target(x, p / p.sum())
    steering = steer(GUIDANCES[guidance], eta=eta)
    found = call(pipe, 128, steering, prompts=(0.0,) * 32, sigmas=sigmas, generator=torch.Generator().manual_seed(0))
    agrees(steering, found, exact)


def test_the_sde_of_a_flow_has_its_marginals():
    """4,000 samples in 60 steps: mean −0.5 and variance 5.5 within 4 standard errors and what the steps leave."""
    pipe = stable_diffusion_3(FlowMatchEulerDiscreteScheduler())
    steering = SteeringCallback(lambda x: x.new_zeros(len(x)), fg.SMC(), decode="latent")
    x = call(pipe, 4_000, steering, num_inference_steps=60, generator=torch.Generator().manual_seed(0)).double()
    assert len(x.unique()) == 4_000  # equal rewards select nothing
    assert abs(float(x.mean()) + 0.5) < 4 * 0.037 + 0.05
    assert abs(float(x.var()) - 5.5) < 4 * 0.1 + 0.2


class Off(PipelineCallback):
    """Switches classifier-free guidance off midway, as a user would for a batch."""

    tensor_inputs = ["prompt_embeds"]  # noqa: RUF012

    def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
        if step_index == 5:
            pipeline._guidance_scale = 0.0
            callback_kwargs["prompt_embeds"] = callback_kwargs["prompt_embeds"].chunk(2)[1]
        return callback_kwargs


@pytest.mark.parametrize(
    ("guidance", "first"),
    [("SMC", True), ("TDS", False), pytest.param("SMC", False, marks=pytest.mark.slow),
     pytest.param("TDS", True, marks=pytest.mark.slow)],
)  # fmt: skip
def test_prompts_with_classifier_free_guidance_that_is_switched_off_midway(guidance, first):
    """Two prompts, 24 groups each: a group is weighed by its own prompt alone."""
    make, options = SCHEDULERS["ddpm"]
    pipe = stable_diffusion(make())
    steering = steer(GUIDANCES[guidance])
    both = MultiPipelineCallbacks([Off(), steering] if first else [steering, Off()])
    prompts = (1.0,) * 24 + (-0.5,) * 24
    x = call(pipe, 128, both, prompts, guidance_scale=1.5, generator=torch.Generator().manual_seed(0), **options)
    times = pipe.scheduler.timesteps

    def network(moved):
        def noise(x, t):
            condition = torch.full((len(x), 1, 1), moved)
            with torch.no_grad():
                with_it, without = (pipe.unet(x, t, c).sample for c in (condition, 0 * condition))
            return with_it if t < times[5] else without + 1.5 * (with_it - without)

        return noise

    for k, moved in enumerate((1.0, -0.5)):
        exact = target(*law(pipe.scheduler, network(moved)))
        part = slice(24 * k, 24 * k + 24)
        z = steering.log_normalizer[part].exp()
        error = float(z.std() / z.mean()) / math.sqrt(24)
        assert error < 0.25
        assert abs(float(z.mean().log()) - exact.log_z) < 4 * error
        w = torch.softmax(steering.log_weights[part].flatten(), 0)
        assert abs(float((w * x[24 * 128 * k :][: 24 * 128, 0]).sum()) - exact.mean) < 0.2


def test_custom_timesteps():
    times = [980, 900, 800, 600, 500, 400, 250, 160, 90, 40, 10]
    make, _ = SCHEDULERS["ddpm"]
    pipe = stable_diffusion(make())
    exact = exact_law(pipe, {}, timesteps=times)
    steering = steer()
    x = call(pipe, 128, steering, (0.0,) * 32, timesteps=times, generator=torch.Generator().manual_seed(0))
    agrees(steering, x, exact)
    assert len(steering.ess) == len(times)


def test_a_multistep_sde_moves_what_it_remembers():
    """log Ẑ of SMC and of unguided samples, both of the scheduler as run, within 4 standard errors of each other."""
    found = []
    for guidance, groups in ((fg.SMC(ess_threshold=1.0), 48), (fg.BestOfN(), 48)):
        pipe = stable_diffusion(DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", steps_offset=1))
        steering = steer(guidance, 256)
        call(pipe, 256, steering, (0.0,) * groups, generator=torch.Generator().manual_seed(0))
        found.append((float(steering.log_normalizer.exp().mean().log()), error(steering)))
    assert max(e for _, e in found) < 0.1
    assert abs(found[0][0] - found[1][0]) < 4 * math.hypot(found[0][1], found[1][1])


def test_outputs_that_a_multistep_scheduler_remembers_are_those_of_the_survivors():
    pipe = stable_diffusion(DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", steps_offset=1))
    steering, seen = steer(fg.SMC(ess_threshold=1.0), 64), []

    class Look(PipelineCallback):
        tensor_inputs = ["latents"]  # noqa: RUF012

        def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
            seen.append([x if x is None else x.flatten().tolist() for x in pipeline.scheduler.model_outputs])
            return callback_kwargs

    call(pipe, 64, MultiPipelineCallbacks([steering, Look()]))
    before, after = seen[4], seen[5]
    pairs = dict(zip(before[1], before[0], strict=True))
    assert all(x in pairs for x in after[0])
    assert len(set(after[0])) < 64


@pytest.mark.parametrize("kind", [DDPMPipeline, DDIMPipeline])
def test_a_pipeline_without_callbacks(kind):
    """These clip x̂0, where the pipelines above leave it."""
    if kind is DDPMPipeline:
        scheduler, options = DDPMScheduler(clip_sample_range=2.5), {}
    else:
        scheduler, options = DDIMScheduler(clip_sample_range=2.5), {"eta": 0.7}
    pipe = pipelines.unconditional(scheduler, kind)
    exact = exact_law(pipe, options)
    steering = steer(fg.TDS(clip=1.0))
    generator = torch.Generator().manual_seed(0)
    with steering.on(pipe) as same:
        assert same is steering
        out = pipe(32 * 128, generator=generator, num_inference_steps=STEPS, output_type="pt", **options)
    assert "step" not in pipe.scheduler.__dict__
    # The pipeline clamps what it returns.
    assert abs(float(steering.log_normalizer.exp().mean().log()) - exact.log_z) < 4 * error(steering)
    assert error(steering) < 0.15
    assert out.images.shape == (32 * 128, 1, 1, 1)


def test_children_of_svdd():
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))
    means = []
    for branch in (2, 8):
        steering = steer(fg.SVDD(branch=branch), 400)
        x = call(pipe, 400 * branch, steering, generator=torch.Generator().manual_seed(0))
        assert x.shape == (400, 1)
        torch.testing.assert_close(pays(x), steering.rewards[0])
        means.append(float(steering.rewards.mean()))
    unguided = float(pays(call(pipe, 1_000, None, generator=torch.Generator().manual_seed(0))).mean())
    assert unguided + 2 < means[0] < means[1]


@pytest.mark.parametrize("make", [PNDMScheduler, EulerDiscreteScheduler, DDIMScheduler, DPMSolverMultistepScheduler])
def test_best_of_n_takes_any_scheduler(make):
    pipe = stable_diffusion(make(steps_offset=1))
    steering = SteeringCallback(pays, fg.BestOfN(), particles=16, decode="latent")
    plain = call(pipe, 16, None, (0.0, 0.0), generator=torch.Generator().manual_seed(0))
    x = call(pipe, 16, steering, (0.0, 0.0), generator=torch.Generator().manual_seed(0))
    for part in range(2):
        mine, theirs = x[16 * part :][:16], plain[16 * part :][:16]
        assert sorted(mine.flatten().tolist()) == sorted(theirs.flatten().tolist())
        assert pays(mine).tolist() == sorted(pays(mine).tolist(), reverse=True) == steering.rewards[part].tolist()


def test_samples_of_equal_weight():
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))
    steering = SteeringCallback(pays, fg.SMC(), particles=128, decode="latent")
    x = call(pipe, 128, steering, (0.0,) * 32, generator=torch.Generator().manual_seed(0))
    exact = exact_law(pipe, {})
    assert abs(float(x.mean()) - exact.mean) < 0.15
    torch.testing.assert_close(pays(x).view(32, 128), steering.rewards)
    assert bool((steering.log_weights == steering.log_weights[:, :1]).all())
    torch.testing.assert_close(steering.log_weights[:, 0], steering.log_normalizer)


def test_each_group_has_its_reward_and_seed():
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))
    steering = SteeringCallback([pays, lambda x: -pays(x)], fg.SMC(), particles=64, decode="latent")
    x = call(pipe, 64, steering, (0.0, 0.0), generator=torch.Generator().manual_seed(0))
    assert float(x[:64].mean()) > 1
    assert float(x[64:].mean()) < -1


def test_guidance_ends_at_the_cutoff():
    pipe, calls = stable_diffusion(DDPMScheduler(clip_sample=False)), []

    def counted(x):
        calls.append(len(x))
        return pays(x)

    for guidance in (fg.TDS(clip=1.0), fg.SMC()):
        steering = SteeringCallback(
            counted, guidance, particles=64, decode="latent", at_end="keep", cutoff_step_ratio=None, cutoff_step_index=4
        )
        calls.clear()
        call(pipe, 64, steering, (0.0,) * 4)
        assert len(calls) == 5
    exact = exact_law(pipe, {})
    steering = steer(fg.SMC(), cutoff_step_ratio=0.5)
    x = call(pipe, 128, steering, (0.0,) * 32, generator=torch.Generator().manual_seed(0))
    agrees(steering, x, exact)


def test_reruns_agree_and_calls_differ():
    for pipe in (
        stable_diffusion(EulerAncestralDiscreteScheduler()),
        stable_diffusion_3(FlowMatchEulerDiscreteScheduler()),
    ):
        steering = steer(at_end="resample", particles=16)

        def run(seed=None, pipe=pipe, steering=steering):
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            return call(pipe, 16, steering, (0.0,) * 2, generator=generator)

        assert torch.equal(run(1), run(1))
        assert not torch.equal(run(1), run(2))
        torch.manual_seed(0)
        a, b = run(), run()
        torch.manual_seed(0)
        assert torch.equal(run(), a)
        assert not torch.equal(a, b)
        assert "step" not in pipe.scheduler.__dict__


def test_a_list_of_generators():
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))
    runs = [
        call(pipe, 8, steer(particles=8), generator=[torch.Generator().manual_seed(k) for k in range(8)])
        for _ in range(2)
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize("guidance", [fg.SMC(), fg.SVDD(branch=2), fg.TDS(gradient="decoded", clip=1.0)], ids=repr)
def test_inference_mode(guidance):
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))
    rows = 32 * guidance.branch
    plain = call(pipe, rows, steer(guidance, 32), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        inferred = call(pipe, rows, steer(guidance, 32), generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain, inferred)


def test_a_gradient_through_the_network_is_refused_in_inference_mode():
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))
    with torch.inference_mode(), pytest.raises(ValueError, match=r"torch.inference_mode\(\) rules out"):
        call(pipe, 32, steer(fg.TDS(), 32))
    assert "step" not in pipe.scheduler.__dict__
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("fault", ["network", "reward", "interrupt"])
def test_a_scheduler_gets_its_step_back(fault):
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))

    def break_off(at):
        if fault == "network" and at == 5:
            raise RuntimeError("out of memory")
        if fault == "interrupt" and at == 5:
            pipe._interrupt = True

    class Break(PipelineCallback):
        tensor_inputs = ["latents"]  # noqa: RUF012

        def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
            break_off(step_index)
            return callback_kwargs

    def breaks(x):
        return pays(x) * (math.nan if fault == "reward" else 1.0)

    steering = SteeringCallback(breaks, fg.TDS(), particles=8, decode="latent")
    both = MultiPipelineCallbacks([steering, Break()])
    plain = call(pipe, 8, None, generator=torch.Generator().manual_seed(0))
    if fault == "interrupt":
        call(pipe, 8, both)
    else:
        with pytest.raises((RuntimeError, ValueError), match=r"out of memory|nan"):
            call(pipe, 8, both)
    again = call(pipe, 8, None, generator=torch.Generator().manual_seed(0))
    assert torch.equal(plain, again)
    assert "step" not in pipe.scheduler.__dict__
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "make",
    [
        *(lambda p, v=v: DDPMScheduler(prediction_type=p, variance_type=v, clip_sample_range=0.8)
          for v in ("fixed_small", "fixed_small_log", "fixed_large")),
        lambda p: DDPMScheduler(prediction_type=p, thresholding=True, timestep_spacing="linspace", steps_offset=1),
        lambda p: DDIMScheduler(prediction_type=p, clip_sample_range=0.8),
        lambda p: DDIMScheduler(prediction_type=p, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        lambda p: EulerAncestralDiscreteScheduler(prediction_type=p, timestep_spacing="leading"),
        lambda p: FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
    ],
)  # fmt: skip
def test_means_and_noises_are_the_schedulers_own(make, prediction):
    """Each step with known noise: what is read before it is what it does, to 1e-5 of its largest number."""
    if isinstance(make(prediction), EulerAncestralDiscreteScheduler) and prediction == "sample":
        pytest.skip("EulerAncestralDiscreteScheduler has none")
    options = {"eta": 0.6} if isinstance(make(prediction), DDIMScheduler) else {}
    scheduler = make(prediction)
    scheduler.set_timesteps(7)
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * float(
        getattr(scheduler, "init_noise_sigma", 1)
    )
    for index, t in enumerate(scheduler.timesteps):
        getattr(scheduler, "scale_model_input", lambda x, t: x)(x, t)
        output = torch.randn(x.shape, generator=torch.Generator().manual_seed(100 + index))
        reading = None
        if index:
            reading = schedulers.read(scheduler, t, options, 1.0)
            clean, mean = reading.clean(x, output), reading.mean(x, output)
        z = torch.randn(x.shape, generator=torch.Generator().manual_seed(index))
        taken = scheduler.step(output, t, x, generator=torch.Generator().manual_seed(index), **options)
        x = taken.prev_sample
        if reading is not None:
            torch.testing.assert_close(mean + reading.noise * z, x, rtol=1e-5, atol=1e-5 * float(x.abs().max()))
            if "pred_original_sample" in taken:
                torch.testing.assert_close(clean, taken.pred_original_sample, rtol=1e-5, atol=1e-4)


def test_half_precision():
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False)).to(torch.bfloat16)
    steering = steer(fg.TDS(clip=1.0), 32)
    x = call(pipe, 32, steering, (0.0, 0.0))
    assert x.dtype == torch.bfloat16
    assert bool(torch.isfinite(steering.log_weights).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (EulerDiscreteScheduler, "EulerDiscreteScheduler is deterministic"),
        (PNDMScheduler, "PNDMScheduler is deterministic, or of several stages"),
        (DPMSolverMultistepScheduler, "algorithm_type 'dpmsolver\\+\\+' draws no noise"),
        (DDIMScheduler, "DDIMScheduler is deterministic at eta = 0"),
        (lambda steps_offset: DDPMScheduler(variance_type="fixed_large_log"), "fixed_large_log"),
    ],
)
def test_schedulers_that_cannot_be_steered_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        call(stable_diffusion(make(steps_offset=1)), 8, steer(particles=8))


def test_refusals():
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))
    with pytest.raises(ValueError, match=r"12 images are not a multiple of particles N × branch M = 8 × 1"):
        call(pipe, 12, steer(particles=8))
    with pytest.raises(ValueError, match="one for each of the 2 groups, got 3"):
        call(pipe, 16, SteeringCallback([pays] * 3, fg.SMC(), particles=8, decode="latent"))
    with pytest.raises(ValueError, match="branch changes among"):
        call(pipe, 16, steer(fg.Scheduled({0: fg.SVDD(branch=2), 4: fg.SVDD(branch=4)}), 8))
    with pytest.raises(ValueError, match="not by 'exact'"):
        call(pipe, 8, steer(fg.TDS(gradient="exact"), 8))
    sde = stable_diffusion(DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", steps_offset=1))
    with pytest.raises(ValueError, match="TDS needs the mean of a step, which DPMSolverMultistepScheduler"):
        call(sde, 8, steer(fg.TDS(), 8))
    with pytest.raises(TypeError, match="ParticleGibbs runs the loop itself"):
        steer(fg.ParticleGibbs())
    with pytest.raises(TypeError, match="guidance: expected"):
        steer(fg.SMC)
    with pytest.raises(ValueError, match="at_end: unknown value 'best'"):
        steer(at_end="best")
    with pytest.raises(ValueError, match="eta: expected a number above 0"):
        steer(eta=0.0)
    with pytest.raises(RuntimeError, match="no pipeline has been called"):
        steer().rewards  # noqa: B018
    with pytest.raises(fg.DegenerateWeights, match="every sample of group 0"):
        call(pipe, 8, SteeringCallback(lambda x: torch.full((len(x),), -math.inf), fg.SMC(), decode="latent"))
    with pytest.raises(fg.RewardError, match="expected shape"):
        call(pipe, 8, SteeringCallback(lambda x: x, fg.SMC(), decode="latent"))
    with pytest.raises(TypeError, match="no gradient flows"):
        call(pipe, 8, SteeringCallback(lambda x: pays(x.detach()), fg.TDS(), decode="latent"))


def test_a_callback_that_detaches_is_named():
    pipe = stable_diffusion(DDPMScheduler(clip_sample=False))

    class Detach(PipelineCallback):
        tensor_inputs = ["latents"]  # noqa: RUF012

        def callback_fn(self, pipeline, step_index, timestep, callback_kwargs):
            return {"latents": callback_kwargs["latents"].detach()}

    with pytest.raises(TypeError, match="another callback after this one detached"):
        call(pipe, 8, MultiPipelineCallbacks([steer(fg.TDS(), 8), Detach()]))
