// The dialect in C++ for the CPU: every thread of a threadgroup is a fiber,
// and every pointer checks what it is asked for.
//
// Bounds: accesses of inputs, outputs, threadgroup memory and register arrays.
// Races: a location of device memory that two threads of the launch touch, or a
// location of threadgroup memory that two threads touch between barriers, at
// least one of them writing. Also reads of values nobody wrote, 16-byte
// accesses that are not aligned, and barriers that some threads do not reach.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace emulator {

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

uint16_t half_from_float(float value);
float half_to_float(uint16_t bits);

struct half {
  uint16_t bits;
  half() = default;
  explicit half(float value) : bits(half_from_float(value)) {}
  explicit operator float() const { return half_to_float(bits); }
};

struct bfloat {
  uint16_t bits;
  bfloat() = default;
  explicit bfloat(float value) {
    const uint32_t all = to_bits(value);
    const bool is_nan = (all & 0x7fffffff) > 0x7f800000;
    bits = is_nan ? 0x7fc0 : uint16_t((all + 0x7fff + ((all >> 16) & 1)) >> 16);
  }
  explicit operator float() const { return from_bits(uint32_t(bits) << 16); }
};

// What a location converts to when a body reads it.
template <typename T> struct value_of { using type = T; };
template <> struct value_of<half> { using type = float; };
template <> struct value_of<bfloat> { using type = float; };

// One input or output of the launch. Only a writable one has a shadow.
struct DeviceShadow {
  uint32_t writer;  // 1 + thread, counted over the launch; 0: nobody
  uint32_t reader;  // the same; ~0: several
};
struct Buffer {
  const char* name;
  char* data;
  int64_t count;
  int shape[8];
  bool is_output;
  DeviceShadow* shadow;
};

// Who touched a location of threadgroup memory, and when.
struct Touch {
  uint64_t when;
  int32_t thread;
};
struct SharedShadow {
  Touch written;
  Touch read[2];
};
struct SharedArray {
  int line;
  int64_t count;
  std::vector<char> data;
  std::vector<SharedShadow> shadow;
};

struct Launch {
  const char* kernel;
  std::vector<Buffer> buffers;
  std::vector<int> ints;
  std::vector<float> floats;
  int groups[3];
  int threads;
  bool metal_tiles;
};

// The thread that runs now. `__thread`, not `thread_local`: it has no
// initializer to look for at every access.
struct Position {
  int group[3];
  int thread;
  uint32_t global;  // 1 + its number in the launch
  const Launch* launch;
};
extern __thread Position here;

void device_access(const Buffer& buffer, int64_t at, int64_t count, bool writes);
[[noreturn]] void misaligned(const char* what, int64_t at);
[[noreturn]] void out_of_registers(int line, int64_t at, int64_t count);
SharedArray& shared_array(int line, int64_t count, int64_t element_size);
void shared_access(SharedArray& array, int64_t at, int64_t count, bool writes);
void barrier(int line);
void simd_barrier(int line);
float simd_sum(float value, int line);
float simd_max(float value, int line);
float shuffle(float value, int lane, int line);
uint32_t ballot(bool value, int line);

// A lane's elements of the tiles of one multiplication.
struct Tiles {
  float a[8], b[4], c[4];
};
// Copies 16 bytes into threadgroup memory when the thread waits for its group.
void copy_async(SharedArray& array, int64_t at, int64_t count, const char* from);
void copy_group();
void copy_wait(int pending);
// Replaces `c` by the sum of `c` and the product.
void multiply(Tiles& tiles, int line);

inline int lane() { return here.thread & 31; }

// Where the elements of a lane lie in a tile: as in CUDA, or as in Metal.
inline int tile_row(int lane, bool metal) {
  return metal ? ((lane >> 2) & 4) + ((lane >> 1) & 3) : lane >> 2;
}
inline int tile_col(int lane, bool metal) {
  return metal ? ((lane >> 2) & 2) * 2 + (lane & 1) * 2 : (lane & 3) * 2;
}
inline int tile_b_k(int lane, int i, bool metal) {
  return (i >> 1) * 8 + (metal ? tile_row(lane, metal) : tile_col(lane, metal) + (i & 1));
}
inline int tile_b_col(int lane, int i, bool metal) {
  return metal ? tile_col(lane, metal) + (i & 1) : tile_row(lane, metal);
}
inline bool metal_tiles() { return here.launch->metal_tiles; }

// `device` pointer.
template <typename T> struct Device {
  using Value = std::remove_const_t<T>;
  const Buffer* buffer;
  int64_t offset;

  struct Location {
    const Buffer* buffer;
    int64_t at;
    operator typename value_of<Value>::type() const {
      device_access(*buffer, at, 1, false);
      Value value;
      std::memcpy(&value, buffer->data + at * sizeof(Value), sizeof(Value));
      return typename value_of<Value>::type(value);
    }
    void operator=(Value value) const {
      static_assert(!std::is_const_v<T>, "written through a const pointer");
      device_access(*buffer, at, 1, true);
      std::memcpy(buffer->data + at * sizeof(Value), &value, sizeof(Value));
    }
  };
  Location operator[](int64_t at) const { return {buffer, offset + at}; }
  Device operator+(int64_t by) const { return {buffer, offset + by}; }
};

template <typename T> struct Pack {
  T value[16 / sizeof(T)];
};

template <typename T>
Pack<std::remove_const_t<T>> load_pack(Device<T> pointer, int64_t at) {
  using Value = std::remove_const_t<T>;
  constexpr int64_t count = 16 / sizeof(Value);
  at += pointer.offset;
  if (at % count != 0) misaligned(pointer.buffer->name, at);
  device_access(*pointer.buffer, at, count, false);
  Pack<Value> pack;
  std::memcpy(&pack, pointer.buffer->data + at * sizeof(Value), 16);
  return pack;
}

template <typename T> void store_pack(Device<T> pointer, int64_t at, Pack<T> pack) {
  constexpr int64_t count = 16 / sizeof(T);
  at += pointer.offset;
  if (at % count != 0) misaligned(pointer.buffer->name, at);
  device_access(*pointer.buffer, at, count, true);
  std::memcpy(pointer.buffer->data + at * sizeof(T), &pack, 16);
}

// Threadgroup memory.
template <typename T> struct Shared {
  SharedArray* array;

  struct Location {
    SharedArray* array;
    int64_t at;
    T read() const {
      shared_access(*array, at, 1, false);
      T value;
      std::memcpy(&value, array->data.data() + at * sizeof(T), sizeof(T));
      return value;
    }
    operator typename value_of<T>::type() const {
      return typename value_of<T>::type(read());
    }
    void operator=(T value) const {
      shared_access(*array, at, 1, true);
      std::memcpy(array->data.data() + at * sizeof(T), &value, sizeof(T));
    }
  };
  Location operator[](int64_t at) const { return {array, at}; }
};

template <typename T> Pack<T> load_pack(Shared<T> shared, int64_t at) {
  constexpr int64_t count = 16 / sizeof(T);
  if (at % count != 0) misaligned("threadgroup memory", at);
  shared_access(*shared.array, at, count, false);
  Pack<T> pack;
  std::memcpy(&pack, shared.array->data.data() + at * sizeof(T), 16);
  return pack;
}

template <typename T> void store_pack(Shared<T> shared, int64_t at, Pack<T> pack) {
  constexpr int64_t count = 16 / sizeof(T);
  if (at % count != 0) misaligned("threadgroup memory", at);
  shared_access(*shared.array, at, count, true);
  std::memcpy(shared.array->data.data() + at * sizeof(T), &pack, 16);
}

// A thread's own array. Its length is a constant on GPUs.
template <typename T> struct Registers {
  static constexpr int64_t capacity = 256;
  T value[capacity];
  int64_t count;
  int line;

  Registers(int64_t count, int line) : count(count), line(line) {
    if (count > capacity) out_of_registers(line, count, capacity);
    std::memset(static_cast<void*>(value), 0xff, count * sizeof(T));
  }
  T& operator[](int64_t at) {
    if (at < 0 || at >= count) out_of_registers(line, at, count);
    return value[at];
  }
};

template <typename A, typename T> void unpack(A& array, int64_t at, Pack<T> pack) {
  for (int i = 0; i < int(16 / sizeof(T)); ++i) array[at + i] = float(pack.value[i]);
}
template <typename T, typename A> Pack<T> make_pack(A& array, int64_t at) {
  Pack<T> pack;
  for (int i = 0; i < int(16 / sizeof(T)); ++i) pack.value[i] = T(array[at + i]);
  return pack;
}

inline float* floats_at(Registers<float>& array, int64_t at, int64_t count) {
  (void)array[at + count - 1];
  return &array[at];
}

// Rows of bytes.
template <typename T> void load_bytes(Device<T> pointer, int64_t at, int64_t count, void* to) {
  static_assert(sizeof(T) == 1, "a row of bytes");
  at += pointer.offset;
  if (at % count != 0) misaligned(pointer.buffer->name, at);
  device_access(*pointer.buffer, at, count, false);
  std::memcpy(to, pointer.buffer->data + at, size_t(count));
}
template <typename T> uint32_t row_word(Device<T> pointer, int64_t at) {
  uint32_t word;
  load_bytes(pointer, at, 4, &word);
  return word;
}
template <typename T>
void load_two_words(uint32_t& low, uint32_t& high, Device<T> pointer, int64_t at) {
  uint32_t words[2];
  load_bytes(pointer, at, 8, words);
  low = words[0];
  high = words[1];
}
template <typename T>
void set_bytes(Device<T> pointer, int64_t at, uint32_t word, int64_t count) {
  static_assert(sizeof(T) == 1, "a row of bytes");
  at += pointer.offset;
  if (at % count != 0) misaligned(pointer.buffer->name, at);
  device_access(*pointer.buffer, at, count, true);
  std::memcpy(pointer.buffer->data + at, &word, size_t(count));
}

// Two values of 16 bits in a word.
template <typename T> uint32_t pair(float low, float high) {
  return T(low).bits | uint32_t(T(high).bits) << 16;
}
template <typename T> float of_pair(uint32_t word, int i) {
  T value;
  value.bits = uint16_t(word >> (16 * i));
  return float(value);
}

template <typename T>
void mma(Registers<float>& c, int64_t c_at, Registers<uint32_t>& a, int64_t a_at,
         Registers<uint32_t>& b, int64_t b_at, int line) {
  Tiles tiles;
  for (int i = 0; i < 8; ++i) tiles.a[i] = of_pair<T>(a[a_at + i / 2], i % 2);
  for (int i = 0; i < 4; ++i) tiles.b[i] = of_pair<T>(b[b_at + i / 2], i % 2);
  for (int i = 0; i < 4; ++i) tiles.c[i] = c[c_at + i];
  multiply(tiles, line);
  for (int i = 0; i < 4; ++i) c[c_at + i] = tiles.c[i];
}

template <typename T>
Pack<std::remove_const_t<T>> load_octet(Device<T> pointer, int64_t at, int64_t stride) {
  using Value = std::remove_const_t<T>;
  if (!metal_tiles()) return load_pack(pointer, at);
  Pack<Value> pack;
  for (int i = 0; i < 2; ++i) {
    const int64_t from = pointer.offset + at + i * stride + (tile_row(lane(), true) & 1) * 4;
    if (from % 4 != 0) misaligned(pointer.buffer->name, from);
    device_access(*pointer.buffer, from, 4, false);
    std::memcpy(pack.value + 4 * i, pointer.buffer->data + from * sizeof(Value), 8);
  }
  return pack;
}
template <typename T> void deal(Registers<uint32_t>& words, int64_t at, Pack<T> octet) {
  for (int i = 0; i < 4; ++i) {
    words[at + i] = octet.value[i].bits | uint32_t(octet.value[4 + i].bits) << 16;
  }
}
inline void stream_words(int count, Registers<uint32_t>& words, int64_t to,
                         Device<const uint32_t> pointer, int64_t at) {
  at += pointer.offset;
  if (at % std::min(count, 4) != 0) misaligned(pointer.buffer->name, at);
  device_access(*pointer.buffer, at, count, false);
  for (int i = 0; i < count; ++i) {
    std::memcpy(&words[to + i], pointer.buffer->data + (at + i) * 4, 4);
  }
}
template <typename T> float weight_offset(int bits) {
  if (std::is_same_v<T, half>) return 1024.0f;
  return bits == 4 ? 128.0f : 0.0f;
}
template <typename T>
void deal_weights(int bits, Registers<uint32_t>& words, int64_t at, Registers<uint32_t>& packed,
                  int64_t from) {
  auto weight = [&](int i) {
    const uint32_t word = packed[from + i * bits / 32];
    const uint32_t value = (word >> (i * bits % 32)) & ((1u << bits) - 1);
    return float(value) + weight_offset<T>(bits);
  };
  for (int i = 0; i < 4; ++i) words[at + 2 * i] = pair<T>(weight(i), weight(i + 4));
}

template <typename T> uint32_t load_word(Device<T> pointer, int64_t at) {
  at += pointer.offset;
  if (at % 2 != 0) misaligned(pointer.buffer->name, at);
  device_access(*pointer.buffer, at, 2, false);
  uint32_t word;
  std::memcpy(&word, pointer.buffer->data + at * 2, 4);
  return word;
}
template <typename T> void store_word(Device<T> pointer, int64_t at, uint32_t word) {
  at += pointer.offset;
  if (at % 2 != 0) misaligned(pointer.buffer->name, at);
  device_access(*pointer.buffer, at, 2, true);
  std::memcpy(pointer.buffer->data + at * 2, &word, 4);
}
template <typename T>
void load_b(Registers<uint32_t>& words, int64_t at, Shared<T> array, int64_t from, int64_t k_stride,
            int64_t column_stride) {
  for (int i = 0; i < 8; ++i) {
    const int64_t k = tile_b_k(lane(), i & 3, metal_tiles());
    const int64_t column = tile_b_col(lane(), i & 3, metal_tiles()) + (i >> 2) * 8;
    const uint32_t bits = array[from + k * k_stride + column * column_stride].read().bits;
    words[at + i / 2] = i % 2 == 0 ? bits : words[at + i / 2] | bits << 16;
  }
}
template <typename T, typename U>
void copy_async(Shared<T> array, int64_t to, Device<U> pointer, int64_t from) {
  const Pack<std::remove_const_t<U>> pack = load_pack(pointer, from);
  constexpr int64_t count = 16 / sizeof(T);
  if (to % count != 0) misaligned("threadgroup memory", to);
  copy_async(*array.array, to, count, reinterpret_cast<const char*>(&pack));
}

inline int imin(int a, int b) { return a < b ? a : b; }
inline int imax(int a, int b) { return a > b ? a : b; }
// The first of the tokens that the one at `position` sees. A bound of 0 is none.
inline int first_visible(int position, int window, int chunk) {
  const int in_window = window > 0 ? position - window + 1 : 0;
  const int in_chunk = chunk > 0 ? position - position % chunk : 0;
  return imax(imax(in_window, in_chunk), 0);
}

}  // namespace emulator

using namespace emulator;
typedef int64_t i64;
typedef uint32_t word_t;

#define POSITIONS                                                              \
  const int GROUP_X = here.group[0], GROUPS_X = here.launch->groups[0];        \
  const int GROUP_Y = here.group[1], GROUPS_Y = here.launch->groups[1];        \
  const int GROUP_Z = here.group[2];                                           \
  const int THREAD = here.thread, THREADS = here.launch->threads;              \
  const int SIMDGROUP = THREAD >> 5, LANE = THREAD & 31;                       \
  (void)GROUP_X, (void)GROUPS_X, (void)GROUP_Y, (void)GROUPS_Y, (void)GROUP_Z; \
  (void)THREADS, (void)SIMDGROUP, (void)LANE;

#define UNROLL
#define PACK(T) emulator::Pack<T>
#define PACK_LEN(T) (int(16 / sizeof(T)))
#define LOAD_PACK(T, pointer, at) emulator::load_pack(pointer, at)
#define STORE_PACK(T, pointer, at, pack) emulator::store_pack<T>(pointer, at, pack)
#define LOAD_SHARED_PACK(T, array, at) emulator::load_pack(array, at)
#define STORE_SHARED_PACK(T, array, at, pack) emulator::store_pack<T>(array, at, pack)
#define PACK_WORD(pack, i) ((pack).value[i])
#define UNPACK(array, at, pack) emulator::unpack(array, at, pack)
#define MAKE_PACK(T, array, at) emulator::make_pack<T>(array, at)
#define POINTER(T) emulator::Device<const T>
#define MUTABLE(T, pointer) (emulator::Device<T>{pointer.buffer, pointer.offset})
#define REGISTERS(T, name, count) emulator::Registers<T> name(count, __LINE__)
#define SHARED(T, name, count) \
  const emulator::Shared<T> name { &emulator::shared_array(__LINE__, count, sizeof(T)) }
#define BARRIER() emulator::barrier(__LINE__)
#define SIMD_BARRIER() emulator::simd_barrier(__LINE__)
#define SIMD_SUM(x) emulator::simd_sum(x, __LINE__)
#define SIMD_MAX(x) emulator::simd_max(x, __LINE__)
#define SHUFFLE(x, lane) emulator::shuffle(x, lane, __LINE__)
#define SHUFFLE_WORD(x, lane) \
  emulator::to_bits(emulator::shuffle(emulator::from_bits(x), lane, __LINE__))
#define SHUFFLE_XOR(x, mask) emulator::shuffle(x, emulator::lane() ^ (mask), __LINE__)
#define BALLOT(x) emulator::ballot(x, __LINE__)
#define POPCOUNT(word) __builtin_popcount(word)
#define FMA(a, b, c) ((a) * (b) + (c))
#define FMAX(a, b) std::fmax(float(a), float(b))
#define EXP(x) std::exp(float(x))
#define EXP2(x) std::exp2(float(x))
#define TANH(x) std::tanh(float(x))
#define RSQRT(x) (1.0f / std::sqrt(float(x)))
#define SIN(x) std::sin(float(x))
#define COS(x) std::cos(float(x))
#define MMA_ROW emulator::tile_row(LANE, emulator::metal_tiles())
#define MMA_COL emulator::tile_col(LANE, emulator::metal_tiles())
#define MMA_B_K(i) emulator::tile_b_k(LANE, i, emulator::metal_tiles())
#define MMA_B_COL(i) emulator::tile_b_col(LANE, i, emulator::metal_tiles())
#define MMA_B_RUN (MMA_B_K(0) >> 1)
#define MMA(T, c, c_at, a, a_at, b, b_at) emulator::mma<T>(c, c_at, a, a_at, b, b_at, __LINE__)
#define STREAM_WORDS(COUNT, words, to, pointer, at) \
  emulator::stream_words(COUNT, words, to, pointer, at)
#define LOAD_OCTET(T, pointer, at, stride) emulator::load_octet(pointer, at, stride)
#define DEAL(T, words, at, octet) emulator::deal(words, at, octet)
#define DEAL_WEIGHTS(T, BITS, words, at, packed, from) \
  emulator::deal_weights<T>(BITS, words, at, packed, from)
#define WEIGHT_OFFSET(T, BITS) emulator::weight_offset<T>(BITS)
#define JOIN(T, low, high) (uint32_t((low).bits) | uint32_t((high).bits) << 16)
#define OF_PAIR(T, pair, i) emulator::of_pair<T>(pair, i)
#define PAIR(T, low, high) emulator::pair<T>(low, high)
#define LOAD_WORD(T, pointer, at) emulator::load_word(pointer, at)
#define STORE_WORD(T, pointer, at, word) emulator::store_word(pointer, at, word)
#define MMA_ROW_LANE(i) \
  (emulator::metal_tiles() ? (LANE & ~9) | ((i) & 1) | (((i) & 2) << 2) : (LANE & ~3) | (i))
#define MMA_PEER_0 1
#define MMA_PEER_1 (emulator::metal_tiles() ? 8 : 2)
#define LOAD_B_COLUMNS(T, words, at, array, from, stride) \
  emulator::load_b(words, at, array, from, 1, stride)
#define LOAD_B_ROWS(T, words, at, array, from, stride) \
  emulator::load_b(words, at, array, from, stride, 1)
#define COPY_ASYNC(T, array, to, pointer, from) emulator::copy_async(array, to, pointer, from)
#define COPY_GROUP() emulator::copy_group()
#define COPY_WAIT(PENDING) emulator::copy_wait(PENDING)
#define FUNCTION inline
#define FLOATS float*
#define FLOATS_AT(array, at, COUNT) emulator::floats_at(array, at, COUNT)
#define AS_FLOAT(word) emulator::from_bits(word)
#define AS_WORD(x) emulator::to_bits(x)
#define ROW_WORD(pointer, at) emulator::row_word(pointer, at)
#define LOAD_TWO_WORDS(low, high, pointer, at) emulator::load_two_words(low, high, pointer, at)
#define SET_ROW_WORD(pointer, at, word) emulator::set_bytes(pointer, at, word, 4)
#define SET_ROW_SHORT(pointer, at, word) emulator::set_bytes(pointer, at, word, 2)

#include "kv_row.h"
