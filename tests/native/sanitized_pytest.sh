#!/usr/bin/env bash
# sanitized_pytest.sh [pytest arguments]: tests on an extension built with AddressSanitizer and UBSan, beside the installed
# one, whose Python and packages it runs in.
set -euo pipefail
cd "$(dirname "$0")/../.."
build="build/sanitized"

bash tests/native/build.sh "$build" _cpu -DFASTGUIDE_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Sanitize \
  -DCMAKE_CXX_FLAGS_SANITIZE="-O1 -g1" -DPython_EXECUTABLE="$(command -v python)" \
  -Dpybind11_DIR="$(python -m pybind11 --cmakedir)"
# Python and torch keep memory until they exit; a report must not be swallowed by pytest's capture, hence -s.
LD_PRELOAD="$("${CXX:-c++}" -print-file-name=libasan.so) $("${CXX:-c++}" -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
  python tests/native/with_extension.py "$build"/_cpu*.so -q -s "$@"
