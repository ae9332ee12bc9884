// A depth-wise convolution and the ReLU behind it, with channels innermost and kernels shared or of each image.
#include "vectors.h"

namespace {

constexpr int64_t POSITIONS = 14;  // in a row, whose sums stand in registers

struct Shape {
  int64_t batch, height, width, channels, window, kernels;  // kernels: 1 or batch
};

// All dense: x and out (B, H, W, C); weight (kernels, K * K, C); bias (C).
template <class T>
struct Operands {
  const T *x, *weight, *bias;
  T *out;
};

template <class T>
void block(const Shape &s, const Operands<T> &at, int64_t image, int64_t y, int64_t left, int64_t c) {
  int64_t margin = s.window / 2, count = std::min(POSITIONS, s.width - left);
  bool inside = count == POSITIONS && left >= margin && left + POSITIONS + margin <= s.width;
  const T *weight = at.weight + (s.kernels > 1 ? image * s.window * s.window * s.channels : 0) + c;
  Vector<T> sums[POSITIONS];
  for (auto &sum : sums) sum = load(at.bias + c);
  for (int64_t dy = std::max<int64_t>(0, margin - y); dy < std::min(s.window, s.height + margin - y); dy++)
    for (int64_t dx = 0; dx < s.window; dx++) {
      Vector<T> tap = load(weight + (dy * s.window + dx) * s.channels);
      int64_t first = left + dx - margin, place = (image * s.height + y + dy - margin) * s.width + first;
      const T *from = at.x + place * s.channels + c;
      if (inside)
        for (int64_t p = 0; p < POSITIONS; p++) sums[p] += tap * load(from + p * s.channels);
      else
        for (int64_t p = 0; p < POSITIONS; p++)  // those behind the last are not written
          if (first + p >= 0 && first + p < s.width) sums[p] += tap * load(from + p * s.channels);
    }
  for (int64_t p = 0; p < count; p++)
    store(at.out + ((image * s.height + y) * s.width + left + p) * s.channels + c, relu(sums[p]));
}

template <class T>
void convolve(const Shape &s, const Operands<T> &at) {
  at::parallel_for(0, s.batch * s.height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++)
      for (int64_t left = 0; left < s.width; left += POSITIONS)
        for (int64_t c = 0; c < s.channels; c += LANES<T>) block(s, at, row / s.height, row % s.height, left, c);
  });
}

}  // namespace

#define EXPORT(name, T)                                                    \
  extern "C" void name(const int64_t *shape, const T *const *in, T *out) { \
    convolve<T>({shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]}, {in[0], in[1], in[2], out}); \
  }
EXPORT(depthwise_float32, float)
EXPORT(depthwise_float64, double)
EXPORT(depthwise_bfloat16, bfloat16)
