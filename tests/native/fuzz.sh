#!/usr/bin/env bash
# fuzz.sh [seconds]: looks for arguments on which kernels read or write what is not theirs, do what C++ leaves undefined,
# disagree, or break a promise. Needs clang with its runtimes (libclang-rt, libomp). What it finds it leaves in build/fuzz;
# `build/fuzz/tests/native/fastguide_fuzz FILE` runs it again.
set -euo pipefail
cd "$(dirname "$0")/../.."
build="build/fuzz"

bash tests/native/build.sh "$build" fastguide_fuzz -DCMAKE_CXX_COMPILER=clang++ -DFASTGUIDE_EXTENSION=OFF \
  -DFASTGUIDE_NATIVE_TESTS=ON -DFASTGUIDE_SANITIZE=address,undefined,fuzzer-no-link -DCMAKE_BUILD_TYPE=Sanitize \
  -DCMAKE_CXX_FLAGS_SANITIZE="-O1 -g1"
mkdir -p "$build/corpus"
ASAN_OPTIONS=detect_leaks=0 "$build/tests/native/fastguide_fuzz" "$build/corpus" -max_total_time="${1:-60}" \
  -max_len=400 -len_control=0 -timeout=120 -print_final_stats=1 -artifact_prefix="$build/" 2>&1 | grep -v "NEW\|REDUCE"
