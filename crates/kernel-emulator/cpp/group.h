// Runs a launch: its threadgroups one after another, the threads of a group as
// fibers that meet at barriers and simdgroup operations.
#pragma once

#include <string>

#include "dialect/emulator.h"

namespace emulator {

using Body = void (*)(const Launch&);

// Runs `body` for every thread of the launch. Returns what it did wrong, or
// nothing.
std::string run(const Launch& launch, Body body);

}  // namespace emulator
