#include "fiber.h"

#include <cstdint>
#include <cstring>

// `emulator_switch(from, to)` pushes the registers that a call must keep, stores
// the stack pointer, takes the other one and pops. Everything else the compiler
// has saved already, since to it this is an ordinary call. The library's
// `swapcontext` does the same with two system calls, which made a test run
// twenty times as long.
extern "C" void emulator_switch(void** from, void** to);

#if defined(__APPLE__)
#define SYMBOL "_emulator_switch"
#else
#define SYMBOL "emulator_switch"
#endif

#if defined(__x86_64__)
asm(".text\n"
    ".globl " SYMBOL "\n" SYMBOL ":\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq (%rsi), %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n");
// Six registers, the address to return to, and one word so that the stack is
// aligned as after a call.
constexpr int frame_words = 8;
constexpr int return_word = 6;
#elif defined(__aarch64__)
asm(".text\n"
    ".globl " SYMBOL "\n"
    ".p2align 2\n" SYMBOL ":\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n"
    "  stp x21, x22, [sp, #16]\n"
    "  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n"
    "  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n"
    "  str x9, [x0]\n"
    "  ldr x9, [x1]\n"
    "  mov sp, x9\n"
    "  ldp x19, x20, [sp, #0]\n"
    "  ldp x21, x22, [sp, #16]\n"
    "  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n"
    "  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n"
    "  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");
constexpr int frame_words = 20;
constexpr int return_word = 11;
#else
#error "no stack switch for this processor"
#endif

namespace emulator {

void fiber_prepare(Fiber& fiber, char* stack, unsigned long size, void (*entry)()) {
  const uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + size) & ~uintptr_t(15);
  void** frame = reinterpret_cast<void**>(top) - frame_words;
  std::memset(frame, 0, frame_words * sizeof(void*));
  frame[return_word] = reinterpret_cast<void*>(entry);
  fiber.stack_pointer = frame;
}

void fiber_switch(Fiber& from, Fiber& to) {
  emulator_switch(&from.stack_pointer, &to.stack_pointer);
}

}  // namespace emulator
