// The dialect in Metal. Stands in front of the kernel's function. The names of
// positions are in metal_positions.h, the first lines of its body: MLX declares
// only the attributes whose names it finds there.
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
#define MUTABLE(T, pointer) ((device T*)(pointer))
#define REGISTERS(T, name, count) T name[count]
#define SHARED(T, name, count) alignas(16) threadgroup T name[count]
#define BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
#define SIMD_BARRIER() simdgroup_barrier(mem_flags::mem_threadgroup)
#define SIMD_SUM(x) simd_sum(x)
#define SIMD_MAX(x) simd_max(x)
#define SHUFFLE(x, lane) simd_shuffle(x, ushort(lane))
#define SHUFFLE_XOR(x, mask) simd_shuffle_xor(x, ushort(mask))
#define FMA(a, b, c) fma(a, b, c)
#define FMAX(a, b) fmax(a, b)
#define EXP(x) exp(x)
#define EXP2(x) exp2(x)
#define TANH(x) precise::tanh(x)
#define RSQRT(x) rsqrt(x)
#define SIN(x) precise::sin(x)
#define COS(x) precise::cos(x)
