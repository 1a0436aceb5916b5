#!/usr/bin/env bash
# aarch64.sh [cases] DIGEST: the digests of another processor, emulated, must be those that the program DIGEST prints.
set -euo pipefail
cd "$(dirname "$0")/../.."
cases="$1" digest="$2" build="build/aarch64"

cmake -S . -B "$build" -G Ninja -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DFASTGUIDE_EXTENSION=OFF -DFASTGUIDE_NATIVE_TESTS=ON \
  -DFASTGUIDE_WERROR=ON >/dev/null
cmake --build "$build" >/dev/null
diff <("$digest" "$cases") <(qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/tests/native/fastguide_digest" "$cases")
echo "aarch64: the same digests"
