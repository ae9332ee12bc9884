// Exponentials and logarithms of vectors, to about 1e-7 in float32 (polynomials of Cephes, S. Moshier).
#pragma once
#include <cmath>

#include "vectors.h"

inline Vector<float> exponential(Vector<float> x) {  // of at most 88; from 2^n and a polynomial of the rest
  const Vector<float> least = Vector<float>{} - 87.f, shifter = Vector<float>{} + 12582912.f;
  x = x < least ? least : x;  // not a number stays one
  Vector<float> n = (x * 1.44269504f + shifter) - shifter;
  Vector<float> r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vector<float> p = Vector<float>{} + 1.9875691500e-4f;
  for (float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = p * r + next;
  p = p * r * r + r + 1.f;
  return p * (Vector<float>)((__builtin_convertvector(n, Integers) + 127) << 23);
}

inline Vector<float> log_of_one_and(Vector<float> x) {  // log(1 + x) of x from 0 to 1e30
  Vector<float> whole = x + 1.f, lost = x - (whole - 1.f);
  Integers n = ((Integers)whole - 0x3f3504f3) >> 23;  // whole = 2^n times what lies between the roots of 1/2 and 2
  Vector<float> r = (Vector<float>)((Integers)whole - (n << 23)) - 1.f, e = __builtin_convertvector(n, Vector<float>);
  Vector<float> p = Vector<float>{} + 7.0376836292e-2f;
  for (float next : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                     2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
    p = p * r + next;
  return r + (p * r * r * r - 0.5f * r * r - e * 2.12194440e-4f + lost / whole) + e * 0.693359375f;
}

inline Vector<double> exponential(Vector<double> x) {
  for (int64_t lane = 0; lane < LANES<double>; lane++) x[lane] = std::exp(x[lane]);
  return x;
}

inline Vector<double> log_of_one_and(Vector<double> x) {
  for (int64_t lane = 0; lane < LANES<double>; lane++) x[lane] = std::log1p(x[lane]);
  return x;
}

template <class V>
inline V softplus(V x) {
  V most = V{} + 20;
  return x > most ? x : log_of_one_and(exponential(x > most ? most : x));
}
