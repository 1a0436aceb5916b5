"""Values that the kernels compute themselves, without the interpreter: for cheap rewards of very many states.

Each is a frozen dataclass and a `fastguide.rewards.Reward`: a callable ``states [N, ...] -> float32 [N]``, to be handed to
`fastguide.sample` as ``reward=``, added to other rewards, or given to `fastguide.ops.evaluate` and
`fastguide.ops.reweight_select`.

On float32 states `Linear`, `Quadratic`, `MLP`; on tokens `PositionWeightMatrix`, `MotifCount`, `Potts`. Anything else is a
function of one's own: `fastguide.value` compiles one written in Python, `Function` takes the address of any other,
`TritonFunction` a device function for states on a GPU.

A row's value does not depend on the batch it stands in. The built-in kinds sum in the order and precision that they state,
so they give the same bits at every SIMD level and number of threads. Gradients (`soft`) are
torch's; counts and functions have none.
"""

from fastguide.values.compiled.dense import MLP, Linear, Quadratic
from fastguide.values.compiled.function import Function, PythonFunction, TritonFunction, value
from fastguide.values.compiled.protocol import Compiled
from fastguide.values.compiled.tokens import MotifCount, PositionWeightMatrix, Potts

__all__ = [
    "MLP",
    "Compiled",
    "Function",
    "Linear",
    "MotifCount",
    "PositionWeightMatrix",
    "Potts",
    "PythonFunction",
    "Quadratic",
    "TritonFunction",
    "value",
]
