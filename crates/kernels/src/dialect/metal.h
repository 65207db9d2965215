// The dialect in Metal. Stands in front of the kernel's function. The names of
// positions are in metal_positions.h, the first lines of its body: MLX declares
// only the attributes whose names it finds there.
#include <metal_simdgroup_matrix>
typedef long i64;
typedef uint word_t;
typedef half half_t;
typedef bfloat16_t bfloat_t;

template <typename T> struct Pack {
  uint4 raw;
};

template <typename T> inline Pack<T> load_pack_(const device T* at) {
  return {*(const device uint4*)(at)};
}
template <typename T> inline Pack<T> load_pack_(const threadgroup T* at) {
  return {*(const threadgroup uint4*)(at)};
}
template <typename T> inline void store_pack_(device T* at, Pack<T> pack) {
  *(device uint4*)(at) = pack.raw;
}
template <typename T> inline void store_pack_(threadgroup T* at, Pack<T> pack) {
  *(threadgroup uint4*)(at) = pack.raw;
}

inline void unpack_(thread float* to, Pack<float> pack) {
  const float4 all = as_type<float4>(pack.raw);
  to[0] = all.x;
  to[1] = all.y;
  to[2] = all.z;
  to[3] = all.w;
}
inline void unpack_(thread float* to, Pack<half_t> pack) {
  const half4 low = as_type<half4>(pack.raw.xy), high = as_type<half4>(pack.raw.zw);
  for (int i = 0; i < 4; ++i) {
    to[i] = float(low[i]);
    to[4 + i] = float(high[i]);
  }
}
inline void unpack_(thread float* to, Pack<bfloat_t> pack) {
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = as_type<float>(pack.raw[i] << 16);
    to[2 * i + 1] = as_type<float>(pack.raw[i] & 0xffff0000u);
  }
}
template <typename T> inline Pack<T> make_pack_(const thread float* from) {
  Pack<T> pack;
  thread T* values = (thread T*)(&pack.raw);
  for (int i = 0; i < int(16 / sizeof(T)); ++i) values[i] = T(from[i]);
  return pack;
}

inline int imin(int a, int b) { return a < b ? a : b; }
inline int imax(int a, int b) { return a > b ? a : b; }
// The first of the tokens that the one at `position` sees. A bound of 0 is none.
inline int first_visible(int position, int window, int chunk) {
  const int in_window = window > 0 ? position - window + 1 : 0;
  const int in_chunk = chunk > 0 ? position - position % chunk : 0;
  return imax(imax(in_window, in_chunk), 0);
}

template <typename T> inline vec<T, 2> as_two_(word_t word) { return as_type<vec<T, 2>>(word); }
template <typename T> inline word_t pair_(float low, float high) {
  return as_type<word_t>(vec<T, 2>(T(low), T(high)));
}
// Four values of a row, four of the row of the next column.
template <typename T>
inline Pack<T> load_octet_(const device T* at, int stride) {
  Pack<T> pack;
  pack.raw.xy = *(const device uint2*)(at);
  pack.raw.zw = *(const device uint2*)(at + stride);
  return pack;
}
inline void deal_(thread word_t* to, uint4 raw) {
  to[0] = (raw.x & 0xffffu) | (raw.z << 16);
  to[1] = (raw.x >> 16) | (raw.z & 0xffff0000u);
  to[2] = (raw.y & 0xffffu) | (raw.w << 16);
  to[3] = (raw.y >> 16) | (raw.w & 0xffff0000u);
}
template <int COUNT> inline void stream_words_(thread word_t* to, const device word_t* at) {
  if (COUNT == 2) {
    const uint2 two = *(const device uint2*)(at);
    to[0] = two.x;
    to[COUNT > 1] = two.y;
  } else if (COUNT >= 4) {
    for (int i = 0; i + 3 < COUNT; i += 4) {
      const uint4 four = *(const device uint4*)(at + i);
      for (int j = 0; j < 4; ++j) to[i + j] = four[j];
    }
  } else {
    to[0] = at[0];
  }
}
template <typename T, int BITS>
inline void deal_weights_(thread word_t* to, const thread word_t* of) {
  const word_t low = of[0], high = BITS == 4 ? low >> 16 : of[BITS == 8];
  const word_t mask = (1u << BITS) - 1u;
  for (int i = 0; i < 4; ++i) {
    to[2 * i] = pair_<T>(float((low >> (BITS * i)) & mask), float((high >> (BITS * i)) & mask));
  }
}
template <typename T, typename U> inline void set_(thread T& matrix, U elements) {
  reinterpret_cast<thread U&>(matrix.thread_elements()) = elements;
}
template <typename T>
inline void mma_(thread float* c, const thread word_t* a, const thread word_t* b) {
  simdgroup_matrix<T, 8, 8> left, right;
  for (int half_row = 0; half_row < 2; ++half_row) {
    simdgroup_matrix<float, 8, 8> sum;
    set_(sum, float2(c[2 * half_row], c[2 * half_row + 1]));
    for (int half_k = 0; half_k < 2; ++half_k) {
      set_(left, as_two_<T>(a[half_row + 2 * half_k]));
      set_(right, as_two_<T>(b[half_k]));
      simdgroup_multiply_accumulate(sum, left, right, sum);
    }
    const float2 both = reinterpret_cast<thread float2&>(sum.thread_elements());
    c[2 * half_row] = both.x;
    c[2 * half_row + 1] = both.y;
  }
}

template <typename T> inline word_t load_word_(const device T* at) {
  return *(const device word_t*)(at);
}
template <typename T> inline void store_word_(device T* at, word_t word) {
  *(device word_t*)(at) = word;
}
template <typename T>
inline void load_b_(thread word_t* to, const threadgroup T* at, int k_stride, int column_stride) {
  for (int i = 0; i < 4; ++i) {
    const threadgroup T* from = at + (i & 1) * 8 * k_stride + (i >> 1) * 8 * column_stride;
    to[i] = as_type<word_t>(vec<T, 2>(from[0], from[column_stride]));
  }
}

#define UNROLL _Pragma("unroll")
#define PACK(T) Pack<T>
#define PACK_LEN(T) (int(16 / sizeof(T)))
#define LOAD_PACK(T, pointer, at) load_pack_<T>((pointer) + (at))
#define STORE_PACK(T, pointer, at, pack) store_pack_<T>((pointer) + (at), pack)
#define LOAD_SHARED_PACK(T, array, at) load_pack_<T>((const threadgroup T*)((array) + (at)))
#define STORE_SHARED_PACK(T, array, at, pack) store_pack_<T>((array) + (at), pack)
#define PACK_WORD(pack, i) ((pack).raw[i])
#define UNPACK(array, at, pack) unpack_(&array[at], pack)
#define MAKE_PACK(T, array, at) make_pack_<T>(&array[at])
#define POINTER(T) const device T*
#define MUTABLE(T, pointer) ((device T*)(pointer))
#define REGISTERS(T, name, count) T name[count]
#define SHARED(T, name, count) alignas(16) threadgroup T name[count]
#define BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
#define SIMD_BARRIER() simdgroup_barrier(mem_flags::mem_threadgroup)
#define SIMD_SUM(x) simd_sum(x)
#define SIMD_MAX(x) simd_max(x)
#define SHUFFLE(x, lane) simd_shuffle(x, ushort(lane))
#define SHUFFLE_WORD(x, lane) simd_shuffle(x, ushort(lane))
#define SHUFFLE_XOR(x, mask) simd_shuffle_xor(x, ushort(mask))
#define BALLOT(x) word_t(ulong(simd_vote::vote_t(simd_ballot(x))))
#define POPCOUNT(word) int(popcount(word))
#define FMA(a, b, c) fma(a, b, c)
#define FMAX(a, b) fmax(a, b)
#define EXP(x) exp(x)
#define EXP2(x) exp2(x)
#define TANH(x) precise::tanh(x)
#define RSQRT(x) rsqrt(x)
#define SIN(x) precise::sin(x)
#define COS(x) precise::cos(x)
// The matrix unit: a tile is made of simdgroup matrices of 8 x 8, of which a lane
// has two neighbours in a row. See cuda.h for what the names mean.
#define MMA_ROW (((LANE >> 2) & 4) + ((LANE >> 1) & 3))
#define MMA_COL (((LANE >> 2) & 2) * 2 + (LANE & 1) * 2)
#define MMA_B_K(i) (MMA_ROW + ((i) >> 1) * 8)
#define MMA_B_COL(i) (MMA_COL + ((i) & 1))
#define MMA_B_RUN (MMA_ROW >> 1)
#define MMA(T, c, c_at, a, a_at, b, b_at) mma_<T>(&c[c_at], &a[a_at], &b[b_at])
#define STREAM_WORDS(COUNT, words, to, pointer, at) stream_words_<COUNT>(&words[to], (pointer) + (at))
#define LOAD_OCTET(T, pointer, at, stride) \
  load_octet_<T>((pointer) + (at) + (MMA_ROW & 1) * 4, stride)
#define DEAL(T, words, at, octet) deal_(&words[at], (octet).raw)
#define DEAL_WEIGHTS(T, BITS, words, at, packed, from) \
  deal_weights_<T, BITS>(&words[at], &packed[from])
#define WEIGHT_OFFSET(T, BITS) 0.0f
#define JOIN(T, low, high) as_type<word_t>(vec<T, 2>(low, high))
#define OF_PAIR(T, pair, i) float(as_two_<T>(pair)[i])
#define PAIR(T, low, high) pair_<T>(low, high)
#define LOAD_WORD(T, pointer, at) load_word_<T>((pointer) + (at))
#define STORE_WORD(T, pointer, at, word) store_word_<T>((pointer) + (at), word)
#define MMA_ROW_LANE(i) ((LANE & ~9) | ((i) & 1) | (((i) & 2) << 2))
#define MMA_PEER_0 1
#define MMA_PEER_1 8
#define LOAD_B_COLUMNS(T, words, at, array, from, stride) \
  load_b_<T>(&words[at], (array) + (from) + MMA_COL * (stride) + MMA_ROW, 1, stride)
#define LOAD_B_ROWS(T, words, at, array, from, stride) \
  load_b_<T>(&words[at], (array) + (from) + MMA_ROW * (stride) + MMA_COL, stride, 1)
#define COPY_ASYNC(T, array, to, pointer, from) \
  store_pack_<T>((array) + (to), load_pack_<T>((pointer) + (from)))
#define COPY_GROUP()
#define COPY_WAIT(PENDING)
#define FUNCTION inline
#define FLOATS thread float*
#define FLOATS_AT(array, at, COUNT) (&array[at])
#define AS_FLOAT(word) as_type<float>(word_t(word))
#define AS_WORD(x) as_type<word_t>(float(x))
#define ROW_WORD(pointer, at) (*(const device word_t*)((pointer) + (at)))
#define LOAD_TWO_WORDS(low, high, pointer, at)                    \
  {                                                               \
    const uint2 two = *(const device uint2*)((pointer) + (at));   \
    low = two.x;                                                  \
    high = two.y;                                                 \
  }
#define SET_ROW_WORD(pointer, at, word) *(device word_t*)((pointer) + (at)) = (word)
#define SET_ROW_SHORT(pointer, at, word) *(device ushort*)((pointer) + (at)) = ushort(word)
