#!/usr/bin/env bash
# aarch64.sh CASES DIGEST: the digests of another processor, emulated, must be those that the program DIGEST prints.
set -euo pipefail
cd "$(dirname "$0")/../.."
cases="$1" digest="$2" build="build/aarch64"

bash tests/native/build.sh "$build" fastguide_digest -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DFASTGUIDE_EXTENSION=OFF -DFASTGUIDE_NATIVE_TESTS=ON -DFASTGUIDE_WERROR=ON
diff <("$digest" "$cases") <(qemu-aarch64 -L /usr/aarch64-linux-gnu "$build/tests/native/fastguide_digest" "$cases")
echo "aarch64: the same digests"
