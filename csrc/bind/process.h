// What the extension must know of the process it lives in: signals to answer, and forks.
#pragma once

namespace fg {

void watch_process();

// Whether this process is the child of a fork made since the extension was loaded. The threads that OpenMP
// kept waiting do not exist in it, so a team of more than one would wait for them for ever.
bool forked();

} // namespace fg
