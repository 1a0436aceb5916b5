"""Every CUDA kernel at sizes that take each of its paths: what compute-sanitizer runs."""

from __future__ import annotations

import torch

from fastguide import cuda, ops


def main() -> None:
    if not (torch.cuda.is_available() and cuda.available()):
        print("SKIPPED: no GPU, or fastguide._cuda is not built")
        return
    for n in (1, 100, 900, 4_000, 4_097, 30_001):
        x, values, previous = (torch.randn(2, n, device="cuda") for _ in range(3))
        for rule in ("systematic", "stratified", "argmax"):
            for order in ("sorted", "slots"):
                ops.select(x, rule=rule, order=order, backend="cuda")
                ops.select(x.double(), rule=rule, order=order, backend="cuda")
        ops.select(x, 2 * n + 1, backend="cuda")
        running = torch.arange(2 * n, device="cuda").view(2, n)
        for threshold in (0.0, 1.0):
            out = ops.reweight_select(
                x, values, previous, 2.0, 1.0, running=running, ess_threshold=threshold, backend="cuda"
            )
        dominated = torch.full_like(x, -40.0)
        dominated[:, n // 2] = 0
        ops.select(dominated, backend="cuda")
        ops.select(dominated, order="slots", backend="cuda")
        states = [torch.randint(0, 3, (2 * n, w), device="cuda").to(t) for w, t in _STATES]
        ops.move(states, out.ancestors, backend="cuda")
        ops.move(states, out.ancestors, inplace=True, backend="cuda")
        for state in states:
            ops.unique(state, backend="cuda")
    torch.cuda.synchronize()
    print("every kernel ran")


_STATES = ((1, torch.uint8), (77, torch.uint8), (3, torch.float32), (64, torch.float32), (130, torch.int64))


if __name__ == "__main__":
    main()
