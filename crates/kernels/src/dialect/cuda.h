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
#define MUTABLE(T, pointer) (const_cast<T*>(pointer))
#define REGISTERS(T, name, count) T name[count]
#define SHARED(T, name, count) __shared__ alignas(16) T name[count]
#define BARRIER() __syncthreads()
#define SIMD_BARRIER() __syncwarp()
#define SIMD_SUM(x) simd_sum_(x)
#define SIMD_MAX(x) simd_max_(x)
#define SHUFFLE(x, lane) __shfl_sync(0xffffffffu, x, lane)
#define SHUFFLE_XOR(x, mask) __shfl_xor_sync(0xffffffffu, x, mask)
#define FMA(a, b, c) fmaf(a, b, c)
#define FMAX(a, b) fmaxf(a, b)
#define EXP(x) expf(x)
#define EXP2(x) exp2f(x)
#define TANH(x) tanhf(x)
#define RSQRT(x) rsqrtf(x)
#define SIN(x) sinf(x)
#define COS(x) cosf(x)
