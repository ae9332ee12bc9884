// Weighted bilinear samples of a map at places that each position moves: no sample is ever stored.
#include <cmath>

#include "vectors.h"

namespace {

constexpr int64_t HEAD = 32;  // channels of one head

struct Shape {
  int64_t batch, height, width, heads, window;
};

// All dense: value and out (B, H, W, heads, HEAD); moved (B, H, W, heads, 3 * K * K): K * K offsets (x, y), then weights.
template <class T>
struct Operands {
  const T *value, *moved;
  T *out;
};

template <class T>
void sample(const Shape &s, const Operands<T> &at, int64_t flat, int64_t head) {
  constexpr int64_t PARTS = HEAD / LANES<T>;
  using A = Sum<T>;
  const int64_t taps = s.window * s.window, margin = s.window / 2, stride = s.heads * HEAD;
  const int64_t x = flat % s.width, y = flat / s.width % s.height, image = flat / (s.width * s.height);
  const T *offset = at.moved + (flat * s.heads + head) * 3 * taps, *mask = offset + 2 * taps;
  const T *map = at.value + image * s.height * s.width * stride + head * HEAD;
  Vector<T> sums[PARTS] = {};
  for (int64_t t = 0, dx = 0, dy = 0; t < taps; t++, dx++) {
    if (dx == s.window) dx = 0, dy++;
    const A column = A(x + dx - margin) + widen(offset[2 * t]), row = A(y + dy - margin) + widen(offset[2 * t + 1]);
    const A weight = widen(mask[t]);
    const A left = std::floor(column), top = std::floor(row), right = column - left, below = row - top;
    if (std::isnan(right + below))
      for (auto &sum : sums) sum += right + below;
    if (!(left >= -1 && left < A(s.width) && top >= -1 && top < A(s.height))) continue;
    const int64_t u = int64_t(left), v = int64_t(top);
    const bool inside = u >= 0 && u + 1 < s.width && v >= 0 && v + 1 < s.height;
    const T *from = map + (v * s.width + u) * stride;
#pragma GCC unroll 4
    for (int64_t corner = 0; corner < 4; corner++) {
      const int64_t over = corner % 2, down = corner / 2;
      if (!inside && (u + over < 0 || u + over >= s.width || v + down < 0 || v + down >= s.height)) continue;
      const A share = (over ? right : 1 - right) * (down ? below : 1 - below) * weight;
      for (int64_t q = 0; q < PARTS; q++) sums[q] += share * load(from + (down * s.width + over) * stride + q * LANES<T>);
    }
  }
  for (int64_t q = 0; q < PARTS; q++) store(at.out + (flat * s.heads + head) * HEAD + q * LANES<T>, sums[q]);
}

template <class T>
void aggregate(const Shape &s, const Operands<T> &at) {
  at::parallel_for(0, s.batch * s.height * s.width, 64, [&](int64_t begin, int64_t end) {
    for (int64_t flat = begin; flat < end; flat++)
      for (int64_t head = 0; head < s.heads; head++) sample(s, at, flat, head);
  });
}

}  // namespace

#define EXPORT(name, T)                                                                                      \
  extern "C" void name(const int64_t *shape, const T *const *in, T *out) {                                   \
    aggregate<T>({shape[0], shape[1], shape[2], shape[3], shape[4]}, {in[0], in[1], out});                   \
  }
EXPORT(deformable_float32, float)
EXPORT(deformable_float64, double)
EXPORT(deformable_bfloat16, bfloat16)
