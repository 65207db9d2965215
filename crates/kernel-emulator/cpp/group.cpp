#include "group.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <list>
#include <memory>

#include "fiber.h"

namespace emulator {

__thread Position here;

namespace {

constexpr unsigned long stack_size = 64 * 1024;

enum class State { ready, at_barrier, at_simd, done };
enum class Meeting { none, barrier, simd_barrier, sum, max, shuffle, ballot, multiply };

const char* name_of(Meeting kind) {
  switch (kind) {
    case Meeting::barrier: return "BARRIER";
    case Meeting::simd_barrier: return "SIMD_BARRIER";
    case Meeting::sum: return "SIMD_SUM";
    case Meeting::max: return "SIMD_MAX";
    case Meeting::shuffle: return "SHUFFLE";
    case Meeting::ballot: return "BALLOT";
    case Meeting::multiply: return "MMA";
    case Meeting::none: break;
  }
  return "nothing";
}

// Bytes on their way to threadgroup memory.
struct Copy {
  SharedArray* array;
  int64_t at, count;
  char bytes[16];
  int group;
};

struct Thread {
  Fiber fiber;
  State state;
  Meeting kind;
  int line;
  std::vector<Copy> copies;
  int num_copy_groups;
};

struct Simdgroup {
  int arrived;
  // Values of the operation under way and of the one before it, which some
  // lanes may not have read yet.
  int phase;
  float value[2][32];
  float result[2];
  Tiles tiles[2][32];
  uint64_t synced;  // the clock at its last barrier
};

struct Group {
  const Launch* launch;
  Body body;
  Fiber scheduler;
  std::vector<Thread> threads;
  std::vector<Simdgroup> simdgroups;
  std::list<SharedArray> shared;
  std::unique_ptr<char[]> stacks;
  size_t num_stacks = 0;
  // Counts barriers of all kinds over the whole launch, so that any two moments
  // between which there was one differ.
  uint64_t clock;
  uint64_t started, synced;
  std::string failure;
};

// The group that this operating-system thread runs.
__thread Group* current;

[[noreturn]] void fail(const char* format, ...) {
  char text[400];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  char all[600];
  std::snprintf(all, sizeof(all), "%s: %s (group %d,%d,%d, thread %d)", current->launch->kernel,
                text, here.group[0], here.group[1], here.group[2], here.thread);
  current->failure = all;
  Fiber lost;
  fiber_switch(lost, current->scheduler);
  __builtin_unreachable();
}

void enter() {
  current->body(*current->launch);
  current->threads[here.thread].state = State::done;
  Fiber lost;
  fiber_switch(lost, current->scheduler);
  __builtin_unreachable();
}

uint32_t global_thread(int thread) {
  const Launch& launch = *current->launch;
  const int64_t number =
      (int64_t(here.group[2]) * launch.groups[1] + here.group[1]) * launch.groups[0] +
      here.group[0];
  return uint32_t(1 + number * launch.threads + thread);
}

void go_on_as(int thread) {
  here.thread = thread;
  here.global = global_thread(thread);
}

// Stops this thread where it is until its state is ready again.
void wait() {
  const int self = here.thread, count = int(current->threads.size());
  for (int by = 1; by < count; ++by) {
    const int next = self + by < count ? self + by : self + by - count;
    if (current->threads[next].state == State::ready) {
      go_on_as(next);
      fiber_switch(current->threads[self].fiber, current->threads[next].fiber);
      return;
    }
  }
  fiber_switch(current->threads[self].fiber, current->scheduler);
}

// The product of the tiles of 32 lanes, added to theirs.
void multiply_tiles(Tiles* lanes) {
  const bool metal = current->launch->metal_tiles;
  float a[16][16], b[16][8], c[16][8];
  auto each_of_c = [&](auto act) {
    for (int lane = 0; lane < 32; ++lane) {
      const int row = tile_row(lane, metal), col = tile_col(lane, metal);
      for (int i = 0; i < 4; ++i) act(c[row + (i >> 1) * 8][col + (i & 1)], lanes[lane].c[i]);
    }
  };
  for (int lane = 0; lane < 32; ++lane) {
    const int row = tile_row(lane, metal), col = tile_col(lane, metal);
    for (int i = 0; i < 8; ++i) {
      a[row + ((i >> 1) & 1) * 8][col + (i >> 2) * 8 + (i & 1)] = lanes[lane].a[i];
    }
    for (int i = 0; i < 4; ++i) {
      b[tile_b_k(lane, i, metal)][tile_b_col(lane, i, metal)] = lanes[lane].b[i];
    }
  }
  each_of_c([](float& sum, float of_lane) { sum = of_lane; });
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int col = 0; col < 8; ++col) c[row][col] += a[row][k] * b[k][col];
    }
  }
  each_of_c([](float& sum, float& of_lane) { of_lane = sum; });
}

// Where the lanes of a simdgroup meet. Returns the phase that holds the values.
int meet(Meeting kind, float value, int line) {
  const int self = here.thread, first = self & ~31;
  Simdgroup& simdgroup = current->simdgroups[self >> 5];
  const int phase = simdgroup.phase;
  Thread& thread = current->threads[self];
  thread.state = State::at_simd;
  thread.kind = kind;
  thread.line = line;
  simdgroup.value[phase][self & 31] = value;
  if (++simdgroup.arrived < 32) {
    wait();
    return phase;
  }
  for (int lane = 0; lane < 32; ++lane) {
    const Thread& other = current->threads[first + lane];
    if (other.kind != kind || other.line != line) {
      fail("lanes of one simdgroup diverge: lane %d is at %s in line %d, lane %d at %s in line %d",
           self & 31, name_of(kind), line, lane, name_of(other.kind), other.line);
    }
  }
  if (kind == Meeting::multiply) multiply_tiles(simdgroup.tiles[phase]);
  const float* values = simdgroup.value[phase];
  float result = values[0];
  for (int lane = 1; lane < 32; ++lane) {
    result = kind == Meeting::sum ? result + values[lane] : std::fmax(result, values[lane]);
  }
  simdgroup.result[phase] = result;
  simdgroup.arrived = 0;
  simdgroup.phase = 1 - phase;
  if (kind == Meeting::simd_barrier) simdgroup.synced = ++current->clock;
  for (int lane = 0; lane < 32; ++lane) current->threads[first + lane].state = State::ready;
  return phase;
}

inline bool ordered(const Touch& touch) {
  if (touch.when < current->started || touch.thread == here.thread) return true;
  if (touch.when < current->synced) return true;
  const bool same_simdgroup = (touch.thread >> 5) == (here.thread >> 5);
  return same_simdgroup && touch.when < current->simdgroups[here.thread >> 5].synced;
}

void describe_divergence() {
  int at[2] = {-1, -1};
  for (int thread = 0; thread < int(current->threads.size()); ++thread) {
    const Thread& one = current->threads[thread];
    if (at[0] < 0) {
      at[0] = thread;
    } else if (at[1] < 0) {
      const Thread& first = current->threads[at[0]];
      if (one.state != first.state || one.line != first.line) at[1] = thread;
    }
  }
  char text[300];
  const Thread& a = current->threads[at[0]];
  const Thread& b = current->threads[at[1] < 0 ? at[0] : at[1]];
  auto where = [](const Thread& thread) {
    return thread.state == State::done ? "at its end" : name_of(thread.kind);
  };
  std::snprintf(text, sizeof(text),
                "%s: threads diverge: thread %d is at %s (line %d), thread %d at %s (line %d)",
                current->launch->kernel, at[0], where(a), a.line, at[1], where(b), b.line);
  current->failure = text;
}

// All threads wait or are done. Opens the barrier if that is where all are.
void open_barrier() {
  const Thread& first = current->threads[0];
  const bool all = std::all_of(current->threads.begin(), current->threads.end(), [&](const Thread& one) {
    return one.state == State::at_barrier && one.line == first.line;
  });
  if (!all) return describe_divergence();
  current->synced = ++current->clock;
  for (Thread& thread : current->threads) thread.state = State::ready;
}

void run_group() {
  const int count = current->launch->threads;
  current->started = current->synced = ++current->clock;
  for (Simdgroup& simdgroup : current->simdgroups) {
    simdgroup.arrived = simdgroup.phase = 0;
    simdgroup.synced = current->clock;
  }
  for (int thread = 0; thread < count; ++thread) {
    Thread& one = current->threads[thread];
    one.state = State::ready;
    one.kind = Meeting::none;
    one.line = 0;
    one.copies.clear();
    one.num_copy_groups = 0;
    fiber_prepare(one.fiber, current->stacks.get() + thread * stack_size, stack_size, enter);
  }
  while (current->failure.empty()) {
    bool ran = false, done = true;
    for (int thread = 0; thread < count && current->failure.empty(); ++thread) {
      if (current->threads[thread].state == State::ready) {
        go_on_as(thread);
        fiber_switch(current->scheduler, current->threads[thread].fiber);
        ran = true;
      }
      done &= current->threads[thread].state == State::done;
    }
    if (done) return;
    if (!ran) open_barrier();
  }
}

}  // namespace

std::string run(const Launch& launch, Body body) {
  thread_local Group group;
  current = &group;
  current->launch = &launch;
  current->body = body;
  current->failure.clear();
  current->shared.clear();
  current->clock = 0;
  current->threads.resize(launch.threads);
  current->simdgroups.resize(launch.threads / 32);
  if (current->num_stacks < size_t(launch.threads)) {
    current->stacks.reset(new char[launch.threads * stack_size]);
    current->num_stacks = launch.threads;
  }
  here.launch = &launch;
  for (int z = 0; z < launch.groups[2]; ++z) {
    for (int y = 0; y < launch.groups[1]; ++y) {
      for (int x = 0; x < launch.groups[0] && current->failure.empty(); ++x) {
        here.group[0] = x;
        here.group[1] = y;
        here.group[2] = z;
        run_group();
      }
    }
  }
  return current->failure;
}

void device_access(const Buffer& buffer, int64_t at, int64_t count, bool writes) {
  if (at < 0 || at + count > buffer.count) {
    fail("%s of %s[%lld] is out of bounds: it has %lld elements", writes ? "write" : "read",
         buffer.name, static_cast<long long>(at < 0 ? at : at + count - 1),
         static_cast<long long>(buffer.count));
  }
  if (!buffer.shadow) return;
  const uint32_t self = here.global;
  for (int64_t i = at; i < at + count; ++i) {
    DeviceShadow& shadow = buffer.shadow[i];
    const bool others_wrote = shadow.writer != 0 && shadow.writer != self;
    const bool others_read = shadow.reader != 0 && shadow.reader != self;
    if (others_wrote || (writes && others_read)) {
      fail("race: %s of %s[%lld], which another thread %s in the same launch",
           writes ? "write" : "read", buffer.name, static_cast<long long>(i),
           others_wrote ? "wrote" : "read");
    }
    if (writes) {
      shadow.writer = self;
    } else {
      if (buffer.is_output && shadow.writer == 0) {
        fail("read of %s[%lld], which nobody wrote", buffer.name, static_cast<long long>(i));
      }
      shadow.reader = shadow.reader == 0 ? self : (shadow.reader == self ? self : ~0u);
    }
  }
}

void misaligned(const char* what, int64_t at) {
  fail("16-byte access of %s[%lld] is not aligned", what, static_cast<long long>(at));
}

void out_of_registers(int line, int64_t at, int64_t count) {
  fail("index %lld into the register array of line %d, which has %lld",
       static_cast<long long>(at), line, static_cast<long long>(count));
}

SharedArray& shared_array(int line, int64_t count, int64_t element_size) {
  for (SharedArray& array : current->shared) {
    if (array.line == line) return array;
  }
  current->shared.emplace_back();
  SharedArray& array = current->shared.back();
  array.line = line;
  array.count = count;
  array.data.resize(count * element_size);
  array.shadow.resize(count);
  return array;
}

void shared_access(SharedArray& array, int64_t at, int64_t count, bool writes) {
  if (at < 0 || at + count > array.count) {
    fail("%s of element %lld of the threadgroup array of line %d is out of bounds: it has %lld",
         writes ? "write" : "read", static_cast<long long>(at < 0 ? at : at + count - 1), array.line,
         static_cast<long long>(array.count));
  }
  const Touch now = {current->clock, here.thread};
  for (int64_t i = at; i < at + count; ++i) {
    SharedShadow& shadow = array.shadow[i];
    bool fine = ordered(shadow.written);
    if (writes) fine = fine && ordered(shadow.read[0]) && ordered(shadow.read[1]);
    if (!fine) {
      fail("race: %s of element %lld of the threadgroup array of line %d",
           writes ? "write" : "read", static_cast<long long>(i), array.line);
    }
    if (writes) {
      shadow.written = now;
      continue;
    }
    if (shadow.written.when < current->started) {
      fail("read of element %lld of the threadgroup array of line %d, which nobody wrote",
           static_cast<long long>(i), array.line);
    }
    // The second place keeps a reader of another simdgroup, if there was one.
    if ((shadow.read[0].thread >> 5) != (here.thread >> 5)) shadow.read[1] = shadow.read[0];
    shadow.read[0] = now;
  }
}

void barrier(int line) {
  Thread& thread = current->threads[here.thread];
  thread.state = State::at_barrier;
  thread.kind = Meeting::barrier;
  thread.line = line;
  wait();
}

void simd_barrier(int line) { meet(Meeting::simd_barrier, 0.0f, line); }

float simd_sum(float value, int line) {
  const int phase = meet(Meeting::sum, value, line);
  return current->simdgroups[here.thread >> 5].result[phase];
}

float simd_max(float value, int line) {
  const int phase = meet(Meeting::max, value, line);
  return current->simdgroups[here.thread >> 5].result[phase];
}

float shuffle(float value, int lane, int line) {
  const int phase = meet(Meeting::shuffle, value, line);
  if (lane < 0 || lane > 31) fail("SHUFFLE in line %d from lane %d", line, lane);
  return current->simdgroups[here.thread >> 5].value[phase][lane];
}

uint32_t ballot(bool value, int line) {
  const int phase = meet(Meeting::ballot, value ? 1.0f : 0.0f, line);
  const float* values = current->simdgroups[here.thread >> 5].value[phase];
  uint32_t mask = 0;
  for (int lane = 0; lane < 32; ++lane) mask |= uint32_t(values[lane] != 0.0f) << lane;
  return mask;
}

// The place counts as written both now and when the thread waits: a reader must
// be ordered with both.
void copy_async(SharedArray& array, int64_t at, int64_t count, const char* from) {
  shared_access(array, at, count, true);
  const int64_t size = 16 / count;
  std::memset(array.data.data() + at * size, 0xff, 16);
  Thread& thread = current->threads[here.thread];
  thread.copies.push_back({&array, at, count, {}, thread.num_copy_groups});
  std::memcpy(thread.copies.back().bytes, from, 16);
}

void copy_group() { ++current->threads[here.thread].num_copy_groups; }

void copy_wait(int pending) {
  Thread& thread = current->threads[here.thread];
  auto& copies = thread.copies;
  size_t done = 0;
  while (done < copies.size() && copies[done].group < thread.num_copy_groups - pending) {
    Copy& copy = copies[done++];
    shared_access(*copy.array, copy.at, copy.count, true);
    std::memcpy(copy.array->data.data() + copy.at * (16 / copy.count), copy.bytes, 16);
  }
  copies.erase(copies.begin(), copies.begin() + done);
}

void multiply(Tiles& tiles, int line) {
  Simdgroup& simdgroup = current->simdgroups[here.thread >> 5];
  simdgroup.tiles[simdgroup.phase][lane()] = tiles;
  const int phase = meet(Meeting::multiply, 0.0f, line);
  tiles = simdgroup.tiles[phase][lane()];
}

uint16_t half_from_float(float value) {
  const uint32_t bits = to_bits(value), sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);
  if (magnitude < 0x38800000) {
    // Below the smallest normal half: adding 0.5 puts the half's last bit in
    // place, and the addition rounds.
    const uint32_t rounded = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000;
    return uint16_t(sign | rounded);
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return uint16_t(sign | ((rounded - 0x38000000) >> 13));
}

float half_to_float(uint16_t bits) {
  const uint32_t sign = uint32_t(bits & 0x8000) << 16, magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return from_bits(sign | 0x7f800000 | ((magnitude & 0x3ff) << 13));
  if (magnitude < 0x400) {
    const float value = float(magnitude) * (1.0f / 16777216.0f);
    return from_bits(sign | to_bits(value));
  }
  return from_bits(sign | ((magnitude << 13) + 0x38000000));
}

}  // namespace emulator
