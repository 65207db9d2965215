// Rows of K and V in a pool, plain or packed: kernels read and write them by the
// macros at the end. kv_row.rs says how they lie. A pool's type KV is a float type, or
// one of the names below, whose pool is bytes. A pack is what a lane takes at once.
template <int FORMAT> struct packed_row {};
typedef packed_row<0> fp8_row;
typedef packed_row<1> int8_row;
typedef packed_row<2> int4_row;

// Eight columns with what their group shares.
template <int FORMAT> struct PackedKv {
  word_t low, high;
  float scale, bias;
};
struct KvScale {
  float scale, bias;
};

template <typename T> struct KvRow {
  typedef PACK(T) Loaded;
  typedef T Shared;
  enum { LEN = PACK_LEN(T), HAS_GROUPS = 0 };
};
template <int FORMAT> struct KvRow<packed_row<FORMAT>> {
  typedef PackedKv<FORMAT> Loaded;
  typedef float Shared;
  enum { LEN = 8, HAS_GROUPS = FORMAT != 0 };
};

template <typename T> FUNCTION int kv_row_(T, int head_dim) { return head_dim; }
FUNCTION int kv_row_(fp8_row, int head_dim) { return head_dim; }
FUNCTION int kv_row_(int8_row, int head_dim) {
  return (head_dim + 2 * ((head_dim + 31) / 32) + 7) / 8 * 8;
}
FUNCTION int kv_row_(int4_row, int head_dim) {
  return (head_dim / 2 + 4 * ((head_dim + 31) / 32) + 7) / 8 * 8;
}

// The last bits of 2^23 as a float.
FUNCTION float kv_integer_(word_t bits) { return AS_FLOAT(0x4b000000u | bits) - 8388608.0f; }
FUNCTION float kv_value_(packed_row<0>, PackedKv<0> pack, int i) {
  const word_t byte = ((i < 4 ? pack.low : pack.high) >> (8 * (i & 3))) & 0xffu;
  const word_t size = byte & 0x7fu;
  const float tiny = kv_integer_(size) * 0.001953125f;
  const float value = size < 8u ? tiny : AS_FLOAT((size << 20) + 0x3c000000u);
  return AS_FLOAT(AS_WORD(value) | ((byte & 0x80u) << 24));
}
FUNCTION float kv_value_(packed_row<1>, PackedKv<1> pack, int i) {
  const word_t byte = ((i < 4 ? pack.low : pack.high) >> (8 * (i & 3))) & 0xffu;
  return (kv_integer_(byte) - 128.0f) * pack.scale;
}
FUNCTION float kv_value_(packed_row<2>, PackedKv<2> pack, int i) {
  return FMA(kv_integer_((pack.low >> (4 * i)) & 15u), pack.scale, pack.bias);
}

template <typename T, typename P>
FUNCTION PACK(T) load_kv_(T, P pool, i64 base, int, int column) {
  return LOAD_PACK(T, pool, base + column);
}
template <typename P>
FUNCTION PackedKv<0> load_kv_(fp8_row, P pool, i64 base, int, int column) {
  PackedKv<0> pack;
  LOAD_TWO_WORDS(pack.low, pack.high, pool, base + column);
  pack.scale = 1.0f;
  pack.bias = 0.0f;
  return pack;
}
template <typename P>
FUNCTION PackedKv<1> load_kv_(int8_row, P pool, i64 base, int head_dim, int column) {
  PackedKv<1> pack;
  LOAD_TWO_WORDS(pack.low, pack.high, pool, base + column);
  const word_t scales = ROW_WORD(pool, base + head_dim + column / 64 * 4);
  pack.scale = AS_FLOAT((column & 32) != 0 ? scales & 0xffff0000u : scales << 16);
  pack.bias = 0.0f;
  return pack;
}
template <typename P>
FUNCTION PackedKv<2> load_kv_(int4_row, P pool, i64 base, int head_dim, int column) {
  PackedKv<2> pack;
  pack.low = ROW_WORD(pool, base + column / 2);
  pack.high = 0u;
  const word_t shared = ROW_WORD(pool, base + head_dim / 2 + column / 32 * 4);
  pack.scale = AS_FLOAT(shared << 16);
  pack.bias = AS_FLOAT(shared & 0xffff0000u);
  return pack;
}

template <typename T> FUNCTION void unpack_kv_(FLOATS to, T, PACK(T) pack) { UNPACK(to, 0, pack); }
template <int FORMAT>
FUNCTION void unpack_kv_(FLOATS to, packed_row<FORMAT> row, PackedKv<FORMAT> pack) {
  UNROLL
  for (int i = 0; i < 8; ++i) to[i] = kv_value_(row, pack, i);
}

// Rows on their way through threadgroup memory: as they are, or unpacked.
template <typename T, int FORMAT, typename A, typename P>
FUNCTION void unpack_into_(packed_row<FORMAT> row, A array, int to, P pool, i64 base, int head_dim,
                           int column) {
  float values[8];
  unpack_kv_(values, row, load_kv_(row, pool, base, head_dim, column));
  UNROLL
  for (int i = 0; i < 8; i += PACK_LEN(T)) {
    STORE_SHARED_PACK(T, array, to + i, MAKE_PACK(T, values, i));
  }
}
template <typename T, typename A, typename P>
FUNCTION void keep_kv_(T, A array, int to, P pool, i64 base, int, int column) {
  STORE_SHARED_PACK(T, array, to, LOAD_PACK(T, pool, base + column));
}
template <typename T, int FORMAT, typename A, typename P>
FUNCTION void keep_kv_(packed_row<FORMAT> row, A array, int to, P pool, i64 base, int head_dim,
                       int column) {
  unpack_into_<T>(row, array, to, pool, base, head_dim, column);
}
template <typename T, typename A, typename P>
FUNCTION void copy_kv_(T, A array, int to, P pool, i64 base, int, int column) {
  COPY_ASYNC(T, array, to, pool, base + column);
}
template <typename T, int FORMAT, typename A, typename P>
FUNCTION void copy_kv_(packed_row<FORMAT> row, A array, int to, P pool, i64 base, int head_dim,
                       int column) {
  unpack_into_<T>(row, array, to, pool, base, head_dim, column);
}

// bfloat16 as a float; finite.
FUNCTION float kv_rounded_(float x) {
  const word_t bits = AS_WORD(x);
  return AS_FLOAT((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}
// What a group shares, from the greatest of its values and of their opposites.
template <typename T> FUNCTION KvScale kv_scale_(T, float, float) { return {1.0f, 0.0f}; }
FUNCTION KvScale kv_scale_(int8_row, float greatest, float opposite) {
  return {kv_rounded_(FMAX(greatest, opposite) / 127.0f), 0.0f};
}
FUNCTION KvScale kv_scale_(int4_row, float greatest, float opposite) {
  return {kv_rounded_((greatest + opposite) / 15.0f), kv_rounded_(-opposite)};
}
FUNCTION float kv_inverse_(float scale) { return scale < 1.17549435e-38f ? 0.0f : 1.0f / scale; }
FUNCTION float kv_clamped_(float x, float least, float greatest) {
  return x < least ? least : (x > greatest ? greatest : x);
}

FUNCTION word_t kv_code_(fp8_row, float x, float, float) {
  const word_t sign = (AS_WORD(x) >> 24) & 0x80u;
  const float magnitude = AS_FLOAT(AS_WORD(x) & 0x7fffffffu);
  const float size = magnitude < 448.0f ? magnitude : 448.0f;
  const word_t bits = AS_WORD(size);
  // Numbers without a leading one are integers of 2^-9.
  if (size < 0.015625f) return sign | (AS_WORD(size * 512.0f + 8388608.0f) & 0xfu);
  return sign | (((bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20) - 960u);
}
FUNCTION word_t kv_code_(int8_row, float x, float inverse, float) {
  // 1.5 * 2^23 and 128.
  return AS_WORD(kv_clamped_(x * inverse, -127.0f, 127.0f) + 12583040.0f) & 0xffu;
}
FUNCTION word_t kv_code_(int4_row, float x, float inverse, float bias) {
  return AS_WORD(kv_clamped_((x - bias) * inverse, 0.0f, 15.0f) + 8388608.0f) & 15u;
}

// COUNT columns, a multiple of 4. Who writes the first of a group writes what it shares.
template <typename T, typename P>
FUNCTION void store_kv_(T, P pool, i64 base, int, int column, FLOATS values, int count, KvScale) {
  if (count == PACK_LEN(T)) {
    STORE_PACK(T, MUTABLE(T, pool), base + column, MAKE_PACK(T, values, 0));
  } else {
    UNROLL
    for (int i = 0; i < count; ++i) MUTABLE(T, pool)[base + column + i] = T(values[i]);
  }
}
template <int FORMAT, typename P>
FUNCTION void store_kv_(packed_row<FORMAT> row, P pool, i64 base, int head_dim, int column,
                        FLOATS values, int count, KvScale shared) {
  const float inverse = kv_inverse_(shared.scale);
  const int BITS = FORMAT == 2 ? 4 : 8;
  UNROLL
  for (int i = 0; i < count; i += 4) {
    word_t codes = 0u;
    UNROLL
    for (int j = 0; j < 4; ++j) {
      codes |= kv_code_(row, values[i + j], inverse, shared.bias) << (BITS * j);
    }
    const i64 at = base + (column + i) * BITS / 8;
    if (BITS == 8) SET_ROW_WORD(pool, at, codes);
    if (BITS == 4) SET_ROW_SHORT(pool, at, codes);
  }
  if (column % 32 == 0 && FORMAT == 1) {
    SET_ROW_SHORT(pool, base + head_dim + column / 16, AS_WORD(shared.scale) >> 16);
  }
  if (column % 32 == 0 && FORMAT == 2) {
    const word_t both = (AS_WORD(shared.scale) >> 16) | AS_WORD(shared.bias);
    SET_ROW_WORD(pool, base + head_dim / 2 + column / 8, both);
  }
}

#define KV_PACK(KV) typename KvRow<KV>::Loaded
// What keeps a row's columns in threadgroup memory.
#define KV_SHARED(KV) typename KvRow<KV>::Shared
// Columns of a pack.
#define KV_LEN(KV) int(KvRow<KV>::LEN)
#define KV_HAS_GROUPS(KV) (int(KvRow<KV>::HAS_GROUPS) != 0)
// Elements of the pool in a row: rows begin at multiples of it.
#define KV_ROW(KV, HEAD_DIM) kv_row_(KV(), HEAD_DIM)
#define LOAD_KV(KV, pool, base, HEAD_DIM, column) load_kv_(KV(), pool, base, HEAD_DIM, column)
#define UNPACK_KV(KV, array, at, pack) \
  unpack_kv_(FLOATS_AT(array, at, KV_LEN(KV)), KV(), pack)
#define KEEP_KV(KV, array, to, pool, base, HEAD_DIM, column) \
  keep_kv_<KV_SHARED(KV)>(KV(), array, to, pool, base, HEAD_DIM, column)
#define COPY_KV(T, KV, array, to, pool, base, HEAD_DIM, column) \
  copy_kv_<T>(KV(), array, to, pool, base, HEAD_DIM, column)
#define KV_SCALE(KV, greatest, opposite) kv_scale_(KV(), greatest, opposite)
#define STORE_KV(KV, pool, base, HEAD_DIM, column, array, COUNT, scale) \
  store_kv_(KV(), pool, base, HEAD_DIM, column, FLOATS_AT(array, 0, COUNT), COUNT, scale)
