// libFuzzer's entry: the first byte picks the op.
#include "trial.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace fg::trial;
  if (size == 0)
    return 0;
  Bytes bytes(data + 1, size - 1);
  Digest digest;
  trials()[data[0] % trials().size()].run(bytes, digest);
  return 0;
}
