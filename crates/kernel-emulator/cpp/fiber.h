// Switching between stacks of one operating-system thread.
#pragma once

namespace emulator {

// A stopped computation: its stack pointer, below it what it must find again.
struct Fiber {
  void* stack_pointer = nullptr;
};

// Prepares `fiber` to call `entry` on the given stack when first switched to.
// `entry` must never return.
void fiber_prepare(Fiber& fiber, char* stack, unsigned long size, void (*entry)());

// Stops the running computation in `from` and continues `to`.
void fiber_switch(Fiber& from, Fiber& to);

}  // namespace emulator
