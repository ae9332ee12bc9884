// Vectors of the compiler's own, as wide as the processor's, and what reads and writes them. Sums of bfloat16 are float.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, ACCUMULATORS = 24;  // of the registers, those that hold sums
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32, ACCUMULATORS = 12;
#else
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 16;
#endif

struct bfloat16 {
  uint16_t bits;
};

template <class T>
struct Of {
  using Sum = T;
  typedef T Vector __attribute__((vector_size(VECTOR_BYTES)));
};
template <>
struct Of<bfloat16> : Of<float> {};

template <class T>
using Sum = typename Of<T>::Sum;
template <class T>
using Vector = typename Of<T>::Vector;
template <class T>
constexpr int64_t LANES = VECTOR_BYTES / sizeof(Sum<T>);

using Words = typename Of<uint32_t>::Vector;
using Integers = typename Of<int32_t>::Vector;
typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));

template <class T>
inline Vector<T> load(const T *from) {
  Vector<T> to;
  std::memcpy(&to, from, sizeof(to));
  return to;
}

inline Vector<float> load(const bfloat16 *from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return (Vector<float>)(__builtin_convertvector(halves, Words) << 16);
}

// A value that is read again from its register, where the compiler would read memory several times.
template <class V>
inline V in_register(V value) {
#if defined(__AVX2__)
  asm("" : "+v"(value));
#endif
  return value;
}

template <class T>
inline void store(T *to, Vector<T> from) {
  std::memcpy(to, &from, sizeof(from));
}

inline void store(bfloat16 *to, Vector<float> from) {  // to the nearest, ties to even
  Words bits = (Words)from;
  Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  Halves halves = __builtin_convertvector(from == from ? rounded : (Words)(rounded * 0 + 0x7fc0), Halves);
  std::memcpy(to, &halves, sizeof(halves));
}

template <class V>
inline V relu(V value) {
  return value < 0 ? V{} : value;  // not a number stays one
}

template <class A, int64_t COUNT>
struct Lanes {
  typedef A Half __attribute__((vector_size(COUNT / 2 * sizeof(A))));

  static A total(const void *from) {  // compilers read the halves from the register
    Half halves[2];
    std::memcpy(halves, from, sizeof(halves));
    Half sum = halves[0] + halves[1];
    if constexpr (COUNT == 2) return sum[0];
    else return Lanes<A, COUNT / 2>::total(&sum);
  }
};

template <class V>
inline auto total(V value) {
  return Lanes<std::remove_cvref_t<decltype(value[0])>, sizeof(V) / sizeof(value[0])>::total(&value);
}

template <class T>
inline Sum<T> widen(T value) {
  return value;
}

inline float widen(bfloat16 value) {
  uint32_t bits = uint32_t(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}
