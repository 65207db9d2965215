// The dialect in CUDA C++. Stands in front of the kernel's function; POSITIONS
// is the first line of its body.
typedef long long i64;
typedef unsigned int word_t;

#define POSITIONS                                                              \
  const int GROUP_X = int(blockIdx.x), GROUPS_X = int(gridDim.x);              \
  const int GROUP_Y = int(blockIdx.y), GROUPS_Y = int(gridDim.y);              \
  const int GROUP_Z = int(blockIdx.z);                                         \
  const int THREAD = int(threadIdx.x), THREADS = int(blockDim.x);              \
  const int SIMDGROUP = THREAD >> 5, LANE = THREAD & 31;                       \
  (void)GROUP_X, (void)GROUPS_X, (void)GROUP_Y, (void)GROUPS_Y, (void)GROUP_Z; \
  (void)THREADS, (void)SIMDGROUP, (void)LANE;

typedef __half half_t;
typedef __nv_bfloat16 bfloat_t;

template <typename T> struct Pack {
  uint4 raw;
};

template <typename T> __device__ inline Pack<T> load_pack_(const T* at) {
  return {*reinterpret_cast<const uint4*>(at)};
}
template <typename T> __device__ inline void store_pack_(T* at, Pack<T> pack) {
  *reinterpret_cast<uint4*>(at) = pack.raw;
}

__device__ inline word_t pack_word_(uint4 raw, int i) {
  return i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
}
__device__ inline void unpack_(float* to, Pack<float> pack) {
  to[0] = __uint_as_float(pack.raw.x);
  to[1] = __uint_as_float(pack.raw.y);
  to[2] = __uint_as_float(pack.raw.z);
  to[3] = __uint_as_float(pack.raw.w);
}
__device__ inline void unpack_two_(float* to, unsigned int two, bfloat_t) {
  to[0] = __uint_as_float(two << 16);
  to[1] = __uint_as_float(two & 0xffff0000u);
}
__device__ inline void unpack_two_(float* to, unsigned int two, half_t) {
  const float2 both = __half22float2(*reinterpret_cast<const __half2*>(&two));
  to[0] = both.x;
  to[1] = both.y;
}
template <typename T> __device__ inline void unpack_(float* to, Pack<T> pack) {
  unpack_two_(to, pack.raw.x, T());
  unpack_two_(to + 2, pack.raw.y, T());
  unpack_two_(to + 4, pack.raw.z, T());
  unpack_two_(to + 6, pack.raw.w, T());
}
template <typename T> __device__ inline Pack<T> make_pack_(const float* from) {
  alignas(16) T values[16 / sizeof(T)];
#pragma unroll
  for (int i = 0; i < int(16 / sizeof(T)); ++i) values[i] = T(from[i]);
  return {*reinterpret_cast<const uint4*>(values)};
}

__device__ inline int imin(int a, int b) { return a < b ? a : b; }
__device__ inline int imax(int a, int b) { return a > b ? a : b; }
// The first of the tokens that the one at `position` sees. A bound of 0 is none.
__device__ inline int first_visible(int position, int window, int chunk) {
  const int in_window = window > 0 ? position - window + 1 : 0;
  const int in_chunk = chunk > 0 ? position - position % chunk : 0;
  return imax(imax(in_window, in_chunk), 0);
}
__device__ inline float simd_sum_(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) x += __shfl_xor_sync(0xffffffffu, x, mask);
  return x;
}
__device__ inline float simd_max_(float x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, mask));
  return x;
}

// What is read once: past the first-level cache, which x fills.
template <int COUNT> __device__ inline void stream_words_(word_t* to, const word_t* at) {
  if (COUNT == 1) {
    asm("ld.global.nc.L1::no_allocate.L2::256B.u32 %0, [%1];" : "=r"(to[0]) : "l"(at));
  } else if (COUNT == 2) {
    asm("ld.global.nc.L1::no_allocate.L2::256B.v2.u32 {%0, %1}, [%2];"
        : "=r"(to[0]), "=r"(to[COUNT > 1])
        : "l"(at));
  } else {
#pragma unroll
    for (int i = 0; i + 3 < COUNT; i += 4) {
      asm("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
          : "=r"(to[i]), "=r"(to[i + 1]), "=r"(to[i + 2]), "=r"(to[i + 3])
          : "l"(at + i));
    }
  }
}
__device__ inline void deal_(word_t* to, uint4 raw) {
  to[0] = __byte_perm(raw.x, raw.z, 0x5410);
  to[1] = __byte_perm(raw.x, raw.z, 0x7632);
  to[2] = __byte_perm(raw.y, raw.w, 0x5410);
  to[3] = __byte_perm(raw.y, raw.w, 0x7632);
}
template <typename T> __device__ inline word_t join_(T low, T high) {
  const word_t first = *reinterpret_cast<const unsigned short*>(&low);
  return __byte_perm(first, *reinterpret_cast<const unsigned short*>(&high), 0x5410);
}
template <typename T> __device__ inline float of_pair_(word_t pair, int i) {
  float both[2];
  unpack_two_(both, pair, T());
  return both[i];
}
__device__ inline word_t as_word_(__half2 two) { return *reinterpret_cast<word_t*>(&two); }
__device__ inline word_t as_word_(__nv_bfloat162 two) { return *reinterpret_cast<word_t*>(&two); }
__device__ inline __half2 as_two_(word_t word, half_t) {
  return *reinterpret_cast<__half2*>(&word);
}
__device__ inline __nv_bfloat162 as_two_(word_t word, bfloat_t) {
  return *reinterpret_cast<__nv_bfloat162*>(&word);
}
__device__ inline word_t pair_(float low, float high, half_t) {
  return as_word_(__floats2half2_rn(low, high));
}
__device__ inline word_t pair_(float low, float high, bfloat_t) {
  return as_word_(__floats2bfloat162_rn(low, high));
}
// In memory, or the compiler would load it again for each of its uses.
__constant__ word_t nibble_mask_ = 0x000f000fu;

// Integers become floats as the last bits of 128 (bfloat16), 1024 (half) or 2^23
// (float).
__device__ inline word_t nibbles_(word_t word, half_t) {
  return (word & nibble_mask_) | 0x64006400u;
}
__device__ inline word_t nibbles_(word_t word, bfloat_t) {
  return (word & nibble_mask_) | 0x43004300u;
}
__device__ inline word_t bytes_(word_t low, word_t high, int i, half_t) {
  return (__byte_perm(low, high, i | ((4 + i) << 8)) & 0x00ff00ffu) | 0x64006400u;
}
__device__ inline float byte_(word_t word, int i) {
  return __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540 | i)) - 8388608.0f;
}
__device__ inline word_t bytes_(word_t low, word_t high, int i, bfloat_t) {
  return pair_(byte_(low, i), byte_(high, i), bfloat_t());
}
template <int BITS> __device__ inline constexpr float offset_(half_t) { return 1024.0f; }
template <int BITS> __device__ inline constexpr float offset_(bfloat_t) {
  return BITS == 4 ? 128.0f : 0.0f;
}
template <typename T, int BITS> __device__ inline void deal_weights_(word_t* to, const word_t* of) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[2 * i] =
        BITS == 4 ? nibbles_(of[0] >> (4 * i), T()) : bytes_(of[0], of[BITS == 8], i, T());
  }
}
__device__ inline void mma_(float* c, const word_t* a, const word_t* b, half_t) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ inline void mma_(float* c, const word_t* a, const word_t* b, bfloat_t) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline unsigned int shared_address_(const void* at) {
  return static_cast<unsigned int>(__cvta_generic_to_shared(at));
}
__device__ inline void load_matrices_(word_t* to, const void* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address_(at)));
}
__device__ inline void load_turned_matrices_(word_t* to, const void* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address_(at)));
}
__device__ inline void copy_async_(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(shared_address_(to)), "l"(from)
               : "memory");
}
template <typename T> __device__ inline word_t load_word_(const T* at) {
  return *reinterpret_cast<const word_t*>(at);
}
template <typename T> __device__ inline void store_word_(T* at, word_t word) {
  *reinterpret_cast<word_t*>(at) = word;
}

#define UNROLL _Pragma("unroll")
#define PACK(T) Pack<T>
#define PACK_LEN(T) (int(16 / sizeof(T)))
#define LOAD_PACK(T, pointer, at) load_pack_<T>((pointer) + (at))
#define STORE_PACK(T, pointer, at, pack) store_pack_<T>((pointer) + (at), pack)
#define LOAD_SHARED_PACK(T, array, at) load_pack_<T>((array) + (at))
#define STORE_SHARED_PACK(T, array, at, pack) store_pack_<T>((array) + (at), pack)
#define PACK_WORD(pack, i) pack_word_((pack).raw, i)
#define UNPACK(array, at, pack) unpack_(&array[at], pack)
#define MAKE_PACK(T, array, at) make_pack_<T>(&array[at])
#define POINTER(T) const T*
#define MUTABLE(T, pointer) (const_cast<T*>(pointer))
#define REGISTERS(T, name, count) T name[count]
#define SHARED(T, name, count) __shared__ alignas(16) T name[count]
#define BARRIER() __syncthreads()
#define SIMD_BARRIER() __syncwarp()
#define SIMD_SUM(x) simd_sum_(x)
#define SIMD_MAX(x) simd_max_(x)
#define SHUFFLE(x, lane) __shfl_sync(0xffffffffu, x, lane)
#define SHUFFLE_WORD(x, lane) __shfl_sync(0xffffffffu, x, lane)
#define SHUFFLE_XOR(x, mask) __shfl_xor_sync(0xffffffffu, x, mask)
#define BALLOT(x) __ballot_sync(0xffffffffu, x)
#define POPCOUNT(word) __popc(word)
#define FMA(a, b, c) fmaf(a, b, c)
#define FMAX(a, b) fmaxf(a, b)
#define EXP(x) expf(x)
#define EXP2(x) exp2f(x)
#define TANH(x) tanhf(x)
#define RSQRT(x) rsqrtf(x)
#define SIN(x) sinf(x)
#define COS(x) cosf(x)
// The matrix unit: MMA adds to a tile of C (16 x 8 floats) the product of tiles of
// A (16 x 16) and B (16 x 8), whose elements lie in pairs in words. A lane has
// - of A rows MMA_ROW (words 0 and 2) and MMA_ROW + 8 (1 and 3), of each columns
//   MMA_COL and the next (0 and 1), these + 8 (2 and 3);
// - of C the same two rows (elements 0 and 1, 2 and 3), columns MMA_COL and the next;
// - of B its element i in row MMA_B_K(i), column MMA_B_COL(i).
// For weights the order of k is dealt anew, the same for A and B: each of the four
// lanes of a row of A takes a run of its own, in octets. Pairs 0..4 of an octet are
// its values 0 and 4, 1 and 5, 2 and 6, 3 and 7; two pairs make a step of MMA.
// MMA_B_RUN is the run that a lane reads for B. Dealt weights are WEIGHT_OFFSET more
// than they are.
#define MMA_ROW (LANE >> 2)
#define MMA_COL ((LANE & 3) * 2)
#define MMA_B_K(i) ((LANE & 3) * 2 + ((i) >> 1) * 8 + ((i) & 1))
#define MMA_B_COL(i) (LANE >> 2)
#define MMA_B_RUN (LANE & 3)
#define MMA(T, c, c_at, a, a_at, b, b_at) mma_(&c[c_at], &a[a_at], &b[b_at], T())
#define STREAM_WORDS(COUNT, words, to, pointer, at) stream_words_<COUNT>(&words[to], (pointer) + (at))
#define LOAD_OCTET(T, pointer, at, stride) load_pack_<T>((pointer) + (at))
#define DEAL(T, words, at, octet) deal_(&words[at], (octet).raw)
#define DEAL_WEIGHTS(T, BITS, words, at, packed, from) \
  deal_weights_<T, BITS>(&words[at], &packed[from])
#define WEIGHT_OFFSET(T, BITS) offset_<BITS>(T())
#define JOIN(T, low, high) join_<T>(low, high)
#define OF_PAIR(T, pair, i) of_pair_<T>(pair, i)
#define PAIR(T, low, high) pair_(low, high, T())
// Two values side by side in memory, as a word.
#define LOAD_WORD(T, pointer, at) load_word_<T>((pointer) + (at))
#define STORE_WORD(T, pointer, at, word) store_word_<T>((pointer) + (at), word)
// Lanes that have other columns of the same row of A or C differ in these bits.
// Lane with columns 2 * I of this lane's row.
#define MMA_ROW_LANE(i) ((LANE & ~3) | (i))
#define MMA_PEER_0 1
#define MMA_PEER_1 2
// Two tiles of B, side by side, from threadgroup memory: k in a row there, STRIDE
// from one column of B to the next; or a row of B in a row.
#define LOAD_B_COLUMNS(T, words, at, array, from, stride)      \
  load_matrices_(&words[at], (array) + (from) +                \
                                 ((LANE & 7) + (LANE >> 4) * 8) * (stride) + ((LANE >> 3) & 1) * 8)
#define LOAD_B_ROWS(T, words, at, array, from, stride)                \
  load_turned_matrices_(&words[at], (array) + (from) +                \
                                        ((LANE & 7) + ((LANE >> 3) & 1) * 8) * (stride) + (LANE >> 4) * 8)
// 16 bytes to threadgroup memory without waiting. Copies go in groups; COPY_WAIT
// waits for those of this thread but its last PENDING groups.
#define COPY_ASYNC(T, array, to, pointer, from) copy_async_((array) + (to), (pointer) + (from))
#define COPY_GROUP() asm volatile("cp.async.commit_group;" ::: "memory")
#define COPY_WAIT(PENDING) asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory")
// What kv_row.h stands on. FLOATS_AT: COUNT registers of an array, as a pointer. A row of
// bytes is read and written by words and half words.
#define FUNCTION __device__ inline
#define FLOATS float*
#define FLOATS_AT(array, at, COUNT) (&array[at])
#define AS_FLOAT(word) __uint_as_float(word)
#define AS_WORD(x) __float_as_uint(x)
#define ROW_WORD(pointer, at) (*reinterpret_cast<const word_t*>((pointer) + (at)))
#define LOAD_TWO_WORDS(low, high, pointer, at)                               \
  {                                                                          \
    const uint2 two = *reinterpret_cast<const uint2*>((pointer) + (at));     \
    low = two.x;                                                             \
    high = two.y;                                                            \
  }
#define SET_ROW_WORD(pointer, at, word) *(word_t*)((pointer) + (at)) = (word)
#define SET_ROW_SHORT(pointer, at, word) \
  *(unsigned short*)((pointer) + (at)) = static_cast<unsigned short>(word)
