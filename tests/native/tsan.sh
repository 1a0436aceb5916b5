#!/usr/bin/env bash
# tsan.sh [cases]: the trials of tests/native under ThreadSanitizer. Needs clang and its OpenMP runtime with Archer, which
# tells the sanitizer of OpenMP's barriers; under gcc's runtime every parallel region would look like a race.
set -euo pipefail
cd "$(dirname "$0")/../.."
build="build/tsan"

bash tests/native/build.sh "$build" fastguide_digest -DCMAKE_CXX_COMPILER=clang++ -DFASTGUIDE_EXTENSION=OFF \
  -DFASTGUIDE_NATIVE_TESTS=ON -DFASTGUIDE_SANITIZE=thread -DCMAKE_BUILD_TYPE=Sanitize \
  -DCMAKE_CXX_FLAGS_SANITIZE="-O1 -g1"
archer="$(find /usr/lib/llvm-* -name libarcher.so | sort | tail -1)"
[ -n "$archer" ] || { echo "no libarcher.so: install libomp-dev" >&2; exit 1; }
OMP_TOOL_LIBRARIES="$archer" TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1" \
  "$build/tests/native/fastguide_digest" "${1:-100}"
