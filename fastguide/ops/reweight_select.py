"""Weight update and adaptive resampling of particles in one call, decided group by group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from fastguide import config
from fastguide.ops import _arrays, _checks, _library, _native, _triton
from fastguide.ops.evaluate import CompiledValue, Evaluation, launch_evaluation, prepare
from fastguide.reference import reweight_select as _reference
from fastguide.reference.philox import expand_seed

RULES = ("systematic", "stratified", "multinomial", "residual")
_Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class ReweightSelection(NamedTuple):
    """What `reweight_select` returns; ``[...]`` is ``[]`` or ``[G]``.

    Attributes:
        log_weights: ``[..., N]`` of the input's dtype: 0 where the group resampled, else the updated log-weights.
        values: ``[..., N]``, moved by ``ancestors``.
        running: ``[..., N]``, moved by ``ancestors``, or None.
        ancestors: ``[..., N]`` int32; survivors stay in their slots (``order="slots"``); the identity where the group
            did not resample.
        resampled: ``[...]`` bool.
        log_z_increment: ``[...]`` float64: the logarithm of the mean updated weight where the group resampled, 0 where
            it did not, ``-inf`` where every weight is zero.
        ess: ``[...]`` float64, effective sample size of the updated weights, in ``[1, N]``; 0 where every weight is
            zero.
    """

    log_weights: Tensor
    values: Tensor
    running: Tensor | None
    ancestors: Tensor
    resampled: Tensor
    log_z_increment: Tensor
    ess: Tensor


def reweight_select(
    log_weights: Tensor,
    values: Tensor | CompiledValue,
    previous_values: Tensor,
    beta: float | Tensor,
    previous_beta: float | Tensor,
    *,
    states: Tensor | None = None,
    log_ratio: Tensor | None = None,
    running: Tensor | None = None,
    rule: str = "systematic",
    ess_threshold: float = 0.5,
    seed: int | Tensor = 0,
    step: int | Tensor = 0,
    degenerate: str = "raise",
    backend: str | None = None,
) -> ReweightSelection:
    """Update log-weights by a change of tempered values, and resample the groups whose weights have become uneven.

    The update is ``log_weights + ((beta * values - previous_beta * previous_values) + log_ratio)``, every operation
    rounded to the dtype of the inputs. A group resamples when its effective sample size is below ``ess_threshold * N``:
    its mean weight goes into the normaliser and its log-weights start again at 0 (Del Moral, Doucet and Jasra 2006,
    with the adaptive rule of Liu and Chen 1995). Other groups carry their log-weights.

    Args:
        log_weights: ``[N]`` or ``[G, N]``, float32 or float64; ``-inf`` marks a dead particle.
        values: the same shape and dtype; ``-inf`` kills the particle. Or a compiled value (`fastguide.values.compiled`,
            `fastguide.value`), which is evaluated on ``states`` as `fastguide.ops.evaluate` does, each particle being
            weighed while its state is at hand; the result is that of the two calls. Triton does so for a `TritonFunction`,
            a `Linear` and a diagonal `Quadratic`, where that saves a launch and leaves no multiprocessor idle.
        previous_values: the same; read as of no importance where the particle is dead.
        beta: inverse temperature ``1 / alpha`` of ``values``: a number, or one a group ``[G]``. A tensor of one goes for
            all groups, and is not read by the host.
        previous_beta: the same of ``previous_values``.
        states: the particles' states ``[N, ...]`` or ``[G * N, ...]``, group after group, where ``values`` is a compiled
            value; else None.
        log_ratio: ``[N]`` or ``[G, N]`` of the same dtype, log p / q of the moves proposed, or None.
        running: ``[N]`` or ``[G, N]`` of any dtype of 4 or 8 bytes that moves along with the particles, or None.
        rule: ``"systematic"``, ``"stratified"``, ``"multinomial"`` or ``"residual"``; see `fastguide.ops.select`.
        ess_threshold: in [0, 1]; 0 never resamples, 1 does unless all weights are equal.
        seed: a whole number in [0, 2^64), or an int64 tensor of no dimension, from which each group derives its own; or
            an int64 tensor ``[G]``, taken as is.
        step: selects another stream of random numbers, in [0, 2^28); or an int64 tensor of one on the device, which the
            kernels of a GPU read themselves, unchecked, so that a captured graph draws anew at each replay.
        degenerate: ``"raise"``, or ``"keep"``: a group whose weights are all zero is carried as it is, with log-Z
            increment ``-inf`` and ESS 0.
        backend: ``"cpu"``, ``"triton"``, ``"cuda"`` or ``"torch"`` (the reference); None chooses by device and
            `fastguide.config`. A rule that ``"cuda"`` has no kernel for is Triton's.

    Raises:
        ValueError: NaN or +inf in an input, or an updated log-weight above 1e9 (argument and index are named); a wrong
            shape, rule or threshold.
        TypeError: a wrong dtype.
        DegenerateWeights: every weight of a group is zero and ``degenerate="raise"``.
        RewardError: a compiled function raised or returned NaN; a state is named by its row.
    """
    if type(log_weights) is not Tensor and _arrays.is_foreign(log_weights):
        return _arrays.in_torch(reweight_select, log_weights, locals())
    _checks.float_tensor("log_weights", log_weights)
    shape = log_weights.shape
    if not 1 <= len(shape) <= 2 or 0 in shape:
        raise ValueError(f"log_weights: expected [N] or [G, N] with at least one of each, got {tuple(shape)}")
    groups = shape[0] if len(shape) > 1 else 1
    evaluation = _evaluation(values, states, log_weights)
    known = (values,) if evaluation is None else evaluation
    if evaluation is None:
        _same("log_weights", log_weights, "values", values)
    _same("log_weights", log_weights, "previous_values", previous_values)
    if log_ratio is not None:
        _same("log_weights", log_weights, "log_ratio", log_ratio)
    if running is not None:
        _movable(running, log_weights)
    if rule not in RULES:
        _checks.choice("rule", rule, RULES)
    if not 0.0 <= ess_threshold <= 1.0:
        raise ValueError(f"ess_threshold: expected a number in [0, 1], got {ess_threshold}")
    if degenerate != "raise":
        _checks.choice("degenerate", degenerate, ("raise", "keep"))
    steps, at = _checks.step_or_tensor(step, log_weights)
    seeds, number = _checks.seed(seed, groups, log_weights.device)
    betas, one_beta = _beta("beta", beta, groups, log_weights.device)
    previous_betas, one_previous = _beta("previous_beta", previous_beta, groups, log_weights.device)
    arguments = (
        previous_values, betas, one_beta, previous_betas, one_previous, log_ratio, running, rule, float(ess_threshold),
        seeds, number, steps, at, degenerate == "keep", backend,
    )  # fmt: skip
    launch: Callable[..., _Outputs] = _launch if evaluation is None else _launch_states
    if torch.compiler.is_compiling():
        launch = _op if evaluation is None else _states_op
    out = launch(log_weights, *known, *arguments)
    return ReweightSelection(out[0], out[1], None if running is None else out[2], *out[3:])


def _evaluation(values: object, states: Tensor | None, log_weights: Tensor) -> Evaluation | None:
    """Return the evaluation that a compiled value asks for, None where ``values`` are given."""
    if not hasattr(values, "kind"):
        if states is not None:
            raise TypeError(
                f"states: only a compiled value reads them, but values is a {type(values).__name__}; leave them out"
            )
        return None
    if states is None:
        raise TypeError("states: values is a compiled value, which needs the states of the particles; pass states=")
    evaluation = prepare(values, states)  # type: ignore[arg-type]
    if len(states) != log_weights.numel():
        raise ValueError(
            f"states: expected {log_weights.numel()} rows, one a particle, got shape {tuple(states.shape)}"
        )
    if states.device != log_weights.device:
        raise ValueError(f"states: expected a tensor on {log_weights.device} as log_weights, got {states.device}")
    return evaluation


def _same(reference: str, like: Tensor, name: str, x: object) -> None:
    _checks.float_tensor(name, x)
    assert isinstance(x, Tensor)
    if x.shape != like.shape:
        raise ValueError(f"{name}: expected shape {tuple(like.shape)} as {reference}, got {tuple(x.shape)}")
    if x.dtype != like.dtype:
        raise TypeError(f"{name}: expected {like.dtype} as {reference}, got {x.dtype}; convert one of them")
    if x.device != like.device:
        raise ValueError(f"{name}: expected a tensor on {like.device} as {reference}, got {x.device}")


def _movable(running: object, like: Tensor) -> None:
    if not isinstance(running, Tensor):
        raise TypeError(f"running: expected a torch.Tensor or None, got {type(running).__name__}")
    if running.element_size() not in (4, 8):
        raise TypeError(f"running: expected a dtype of 4 or 8 bytes, got {running.dtype}")
    if running.shape != like.shape:
        raise ValueError(f"running: expected shape {tuple(like.shape)} as log_weights, got {tuple(running.shape)}")
    if running.device != like.device:
        raise ValueError(f"running: expected a tensor on {like.device} as log_weights, got {running.device}")


def _beta(name: str, beta: float | Tensor, groups: int, device: torch.device) -> tuple[Tensor | None, float]:
    if not isinstance(beta, Tensor):
        if not math.isfinite(beta):
            raise ValueError(f"{name}: expected a finite number, got {beta}")
        return None, float(beta)
    if beta.shape not in ((), (1,), (groups,)):
        raise ValueError(f"{name}: expected a number or shape ({groups},), one a group, got {tuple(beta.shape)}")
    return beta.to(device=device, dtype=torch.float64).expand(groups).contiguous(), 0.0


def _launch(
    log_weights: Tensor,
    values: Tensor,
    previous_values: Tensor,
    betas: Tensor | None,
    beta: float,
    previous_betas: Tensor | None,
    previous_beta: float,
    log_ratio: Tensor | None,
    running: Tensor | None,
    rule: str,
    ess_threshold: float,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    keep: bool,
    backend: str | None,
) -> _Outputs:
    lead = log_weights.shape[:-1]
    backend = config.choose_backend(log_weights.device, backend, cuda=True)
    at = _checks.step_for(backend, steps, step)
    if backend != "torch":
        return _run(
            None, log_weights, values, previous_values, betas, beta, previous_betas, previous_beta, log_ratio, running,
            rule, ess_threshold, seeds, seed, at, keep, backend,
        )  # fmt: skip
    n = log_weights.shape[-1]
    rows = [None if x is None else x.detach().reshape(-1, n) for x in (log_weights, values, previous_values, log_ratio)]
    x, v, previous, ratio = rows
    assert x is not None
    assert v is not None
    assert previous is not None
    if betas is None:
        betas = x.new_full((len(x),), beta, dtype=torch.float64)
    if previous_betas is None:
        previous_betas = x.new_full((len(x),), previous_beta, dtype=torch.float64)
    updated = _reference.reweight(x, v, previous, betas, previous_betas, ratio)
    bad = _reference.refused([r for r in rows if r is not None], updated).reshape(-1)
    if bool(bad.any()):
        index = int(bad.to(torch.uint8).argmax())
        _refuse(log_weights, values, previous_values, betas, previous_betas, log_ratio, index)
    if seeds is None:
        seeds = expand_seed(seed, len(x), x.device)
    moving = None if running is None else running.detach().reshape(-1, n)
    out = _reference.reweight_select(updated, v, moving, rule, ess_threshold, seeds, at)
    if not keep and bool((out.ess == 0).any()):
        _raise_degenerate(out.log_z_increment, log_weights.shape)
    full = log_weights.shape
    return (
        out.log_weights.reshape(full),
        out.values.reshape(full),
        x.new_empty(0) if out.running is None else out.running.reshape(full),
        out.ancestors.reshape(full),
        out.resampled.reshape(lead),
        out.log_z_increment.reshape(lead),
        out.ess.reshape(lead),
    )


def _launch_states(
    log_weights: Tensor,
    states: Tensor,
    kind: str,
    parameters: list[Tensor],
    settings: list[int],
    previous_values: Tensor,
    betas: Tensor | None,
    beta: float,
    previous_betas: Tensor | None,
    previous_beta: float,
    log_ratio: Tensor | None,
    running: Tensor | None,
    rule: str,
    ess_threshold: float,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    keep: bool,
    backend: str | None,
) -> _Outputs:
    evaluation = Evaluation(states, kind, parameters, settings)
    chosen = config.choose_backend(log_weights.device, backend, cuda=True)
    if chosen == "cpu" or (chosen == "triton" and (kind != "function" or evaluation.device_function() is not None)):
        return _run(
            evaluation, log_weights, log_weights.new_empty(log_weights.shape), previous_values, betas, beta,
            previous_betas, previous_beta, log_ratio, running, rule, ess_threshold, seeds, seed,
            _checks.step_for(chosen, steps, step), keep, chosen,
        )  # fmt: skip
    return _launch(
        log_weights, launch_evaluation(*evaluation, backend).to(log_weights.dtype).reshape(log_weights.shape),
        previous_values, betas, beta, previous_betas, previous_beta, log_ratio, running, rule, ess_threshold, seeds,
        seed, steps, step, keep, backend,
    )  # fmt: skip


def _run(
    evaluation: Evaluation | None,
    log_weights: Tensor,
    values: Tensor,
    previous_values: Tensor,
    betas: Tensor | None,
    beta: float,
    previous_betas: Tensor | None,
    previous_beta: float,
    log_ratio: Tensor | None,
    running: Tensor | None,
    rule: str,
    ess_threshold: float,
    seeds: Tensor | None,
    seed: int,
    step: Any,
    keep: bool,
    backend: str,
) -> _Outputs:
    """Run the kernels; those of the CPU and Triton write ``values`` first where there is an evaluation."""
    if backend == "cpu":
        _checks.on_cpu("log_weights", log_weights)
    inputs = [
        None if x is None else _native.plain(x) for x in (log_weights, values, previous_values, log_ratio, running)
    ]
    outputs = _outputs(log_weights, running)
    arguments = (
        inputs, betas, beta, previous_betas, previous_beta, RULES.index(rule), ess_threshold, seeds, seed, step, outputs,
    )  # fmt: skip
    if backend == "cpu":
        _native.advise_huge_pages(*outputs)
        code, index = _native.reweight_select(*arguments, None if evaluation is None else evaluation.native())
    elif evaluation is None:
        code, index = _triton.run("reweight_select", log_weights, *arguments, keep=keep, backend=backend)
    else:
        evaluated = (*evaluation.on_device(), *arguments)
        code, index = _triton.run(
            "reweight_select_states", log_weights, *evaluated, module="reweight_select", keep=keep
        )
    if evaluation is not None and code in (_native.INVALID_VALUE, _native.OUT_OF_RANGE):
        # Where it is the value that failed, this says how.
        some = evaluation.states[: index + 1] if backend == "cpu" else evaluation.states
        launch_evaluation(some, *evaluation[1:], backend)
    if code == _native.INVALID_VALUE:
        _refuse(log_weights, values, previous_values, betas, previous_betas, log_ratio, index)
    if code == _native.DEGENERATE and not keep:
        _raise_degenerate(outputs[5], log_weights.shape)
    if code == _native.OUT_OF_MEMORY:
        raise MemoryError(
            f"reweight_select: no memory for its workspace of groups of {log_weights.shape[-1]} particles; split them"
        )
    return outputs


def _refuse(
    log_weights: Tensor,
    values: Tensor,
    previous_values: Tensor,
    betas: Tensor | None,
    previous_betas: Tensor | None,
    log_ratio: Tensor | None,
    flat: int,
) -> NoReturn:
    shape = log_weights.shape
    where = f"at {_checks.position(flat, shape)} of shape {tuple(shape)}"
    named = {
        "log_weights": log_weights,
        "values": values,
        "previous_values": previous_values,
        "log_ratio": log_ratio,
    }
    for name, x in named.items():
        if x is not None and not float(x.reshape(-1)[flat]) < math.inf:
            raise ValueError(f"{name}: {float(x.reshape(-1)[flat])} {where}; expected a number or -inf")
    for name, beta in (("beta", betas), ("previous_beta", previous_betas)):
        if beta is not None and not math.isfinite(float(beta[flat // shape[-1]])):
            raise ValueError(
                f"{name}: {float(beta[flat // shape[-1]])} at group {flat // shape[-1]}; expected a number"
            )
    if float(previous_values.reshape(-1)[flat]) == -math.inf:
        raise ValueError(
            f"previous_values: -inf {where}, but the particle is alive; one killed by its value has log-weight -inf"
        )
    raise ValueError(
        f"values: the updated log-weight {where} is above 1e9, from log-weight {float(log_weights.reshape(-1)[flat])}, "
        f"value {float(values.reshape(-1)[flat])} and previous value {float(previous_values.reshape(-1)[flat])}; lower beta"
    )


def _raise_degenerate(log_z_increment: Tensor, shape: torch.Size) -> NoReturn:
    rows = (log_z_increment.reshape(-1) == -math.inf).nonzero().flatten().tolist()
    _checks.raise_without_weight("log_weights", "every updated weight is zero", rows, shape)


def _outputs(log_weights: Tensor, running: Tensor | None) -> _Outputs:
    shape, lead = log_weights.shape, log_weights.shape[:-1]
    return (
        log_weights.new_empty(shape),
        log_weights.new_empty(shape),
        log_weights.new_empty(0) if running is None else running.new_empty(shape),
        log_weights.new_empty(shape, dtype=torch.int32),
        log_weights.new_empty(lead, dtype=torch.bool),
        log_weights.new_empty(lead, dtype=torch.float64),
        log_weights.new_empty(lead, dtype=torch.float64),
    )


def _fake(log_weights: Tensor, *arguments: Any) -> _Outputs:
    """Return empty outputs; of either operation, the running values are the ninth argument from the end."""
    return _outputs(log_weights, arguments[-9])


_ARGUMENTS = (
    "Tensor previous_values, Tensor? betas, float beta, Tensor? previous_betas, float previous_beta, Tensor? log_ratio, "
    "Tensor? running, str rule, float ess_threshold, Tensor? seeds, int seed, Tensor? steps, SymInt step, bool keep, "
    "str? backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_op = _library.register(f"reweight_select(Tensor log_weights, Tensor values, {_ARGUMENTS}", _launch, _fake)
_states_op = _library.register(
    f"reweight_select_states(Tensor log_weights, Tensor states, str kind, Tensor[] parameters, int[] settings, {_ARGUMENTS}",
    _launch_states,
    _fake,
)
