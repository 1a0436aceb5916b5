r"""Guidance inside the stock pipelines of ``diffusers``, by ``callback_on_step_end``.

    from fastguide.adapters.diffusers import SteeringCallback                     # the one line more
    steer = SteeringCallback(reward, fg.SMC(alpha=0.1))
    images = pipe(prompt, num_images_per_prompt=16, callback_on_step_end=steer).images

The images of a prompt are the particles of a group. The target is ``p(x_0) exp(r(x_0) / alpha)``, p being the law of the
pipeline as it is called: its scheduler, its steps, its classifier-free guidance. `SteeringCallback` says how; here is why it
needs no call of the network more than the pipeline makes. The value of a state is the reward of the clean sample that the
network predicts from it, and the pipeline asks the network of each state at the step after. From the first callback on, the
scheduler's ``step`` is therefore wrapped until the call ends: it reads x̂0 from the network's output, weighs, moves states *and
outputs* to the survivors, and only then takes the scheduler's own step. States at t = 1 are not weighed. The samples get their
reward in the last callback.

| scheduler | law of a step |
|---|---|
| ``DDPMScheduler`` | its own |
| ``DDIMScheduler``, ``eta > 0`` | its own |
| ``EulerAncestralDiscreteScheduler`` | its own |
| ``FlowMatchEulerDiscreteScheduler`` | the flow as an SDE of the same marginals (``eta``), or its own |
| ``DPMSolverMultistepScheduler``, ``"sde-dpmsolver++"`` | its own; what it remembers moves with the particles; no gradients |

Others are refused by name, as copies of a particle would stay copies where nothing is drawn. `fastguide.BestOfN` takes any.

**Branches.** Where guidance proposes M children a particle (`fastguide.SVDD`), the pipeline has to be called for N · M images:
the network sees every child, as the value of each needs it. N are returned.

**Gradients.** With `fastguide.TDS` autograd records what the pipeline does from one callback to the next step, classifier-free
guidance and all, and steps are shifted along the gradient. That is not possible under ``torch.inference_mode``;
``gradient="decoded"`` is. Parameters need no gradients; ``pipe.unet.requires_grad_(False)`` saves their memory.

**Random numbers.** Steps draw as the pipeline does. Selections take a seed from the generator that the pipeline hands to the
scheduler, or from torch's own where that is None; where a pipeline hands none (flow matching), from the bits of the latents,
which are its only random numbers: equal latents give equal images, as they do without guidance.
"""

from fastguide.adapters.diffusers.callback import SteeringCallback

__all__ = ["SteeringCallback"]
