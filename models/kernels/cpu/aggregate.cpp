// Kernels of every position, which exist already, applied there: a weight for each tap and group of channels.
#include "vectors.h"

namespace {

constexpr int64_t CHANNELS = 32;  // of a group at a time

struct Shape {
  int64_t batch, height, width, channels, groups, window, kernels;  // kernels: 1 or batch
};

// All dense: x and out (B, H, W, C); weight (kernels, G, H * W, K * K).
template <class T>
struct Operands {
  const T *x, *weight;
  T *out;
};

template <class T>
constexpr int64_t COUNT = std::max<int64_t>(1, ACCUMULATORS * 2 / 3 / (CHANNELS / LANES<T>));  // positions in a row

template <class T>
void block(const Shape &s, const Operands<T> &at, int64_t image, int64_t y, int64_t left, int64_t c) {
  constexpr int64_t PARTS = CHANNELS / LANES<T>, POSITIONS = COUNT<T>;
  const int64_t margin = s.window / 2, taps = s.window * s.window, group = c / (s.channels / s.groups);
  const T *weight = at.weight + ((s.kernels > 1 ? image : 0) * s.groups + group) * s.height * s.width * taps;
  Vector<T> sums[POSITIONS][PARTS] = {};
  for (int64_t dy = std::max<int64_t>(0, margin - y); dy < std::min(s.window, s.height + margin - y); dy++)
    for (int64_t dx = 0; dx < s.window; dx++) {
      const int64_t first = left + dx - margin;
      const T *from = at.x + ((image * s.height + y + dy - margin) * s.width + first) * s.channels + c;
      const T *tap = weight + (y * s.width + left) * taps + dy * s.window + dx;
      auto add = [&](int64_t p) {
        for (int64_t q = 0; q < PARTS; q++) sums[p][q] += widen(tap[p * taps]) * load(from + p * s.channels + q * LANES<T>);
      };
      if (left + POSITIONS <= s.width && first >= 0 && first + POSITIONS <= s.width)
        for (int64_t p = 0; p < POSITIONS; p++) add(p);
      else
        for (int64_t p = 0; p < POSITIONS; p++)
          if (left + p < s.width && first + p >= 0 && first + p < s.width) add(p);
    }
  for (int64_t p = 0; p < std::min(POSITIONS, s.width - left); p++)
    for (int64_t q = 0; q < PARTS; q++)
      store(at.out + ((image * s.height + y) * s.width + left + p) * s.channels + c + q * LANES<T>, sums[p][q]);
}

template <class T>
void aggregate(const Shape &s, const Operands<T> &at) {
  at::parallel_for(0, s.batch * s.height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++)
      for (int64_t left = 0; left < s.width; left += COUNT<T>)
        for (int64_t c = 0; c < s.channels; c += CHANNELS) block(s, at, row / s.height, row % s.height, left, c);
  });
}

}  // namespace

#define EXPORT(name, T)                                                                         \
  extern "C" void name(const int64_t *shape, const T *const *in, T *out) {                      \
    aggregate<T>({shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6]},        \
                 {in[0], in[1], out});                                                          \
  }
EXPORT(aggregate_float32, float)
EXPORT(aggregate_float64, double)
EXPORT(aggregate_bfloat16, bfloat16)
