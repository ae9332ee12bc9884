// Kernels predicted per position and applied there, in one pass: those of POSITIONS positions and one row of taps exist
// at a time, in the first cache. Channels come as (C/G, group): a vector holds one channel of several groups, and meets
// their predicted weights without a shuffle.
#include "product.h"

namespace {

constexpr int64_t GROUPS = PANEL;
constexpr int64_t MOST_TAPS = 64;  // in a row

struct Shape {
  int64_t batch, height, width, channels, hidden, window;
};

// All dense: x and out (B, H, W, C); hidden (B, H, W, J), before its ReLU; weight (K * K, J, G); bias (K * K, G); scale
// and shift (C).
template <class T>
struct Operands {
  const T *x, *hidden, *weight, *bias, *scale, *shift;
  T *out;
};

template <class T>
class Block {
  static constexpr int64_t PARTS = Product<T>::PARTS, POSITIONS = Product<T>::ROWS;

  const Shape &shape;
  const Operands<T> &at;
  Product<T> predicted[MOST_TAPS];
  std::vector<Sum<T>> hidden, sums;  // (POSITIONS, J), (POSITIONS, C)
  int64_t image[POSITIONS], row[POSITIONS], column[POSITIONS];

  void place(int64_t first, int64_t positions) {
    for (int64_t p = 0; p < POSITIONS; p++) {
      int64_t flat = std::min(first + p, positions - 1);  // the last block does the last position several times
      column[p] = flat % shape.width, row[p] = flat / shape.width % shape.height;
      image[p] = flat / (shape.width * shape.height);
      for (int64_t j = 0; j < shape.hidden; j++)
        hidden[p * shape.hidden + j] = std::max<Sum<T>>(widen(at.hidden[flat * shape.hidden + j]), 0);
    }
    std::fill(sums.begin(), sums.end(), Sum<T>(0));
  }

  // Add the neighbours in one row of taps to the sums of position p, CHANNELS of each group at a time.
  template <int64_t CHANNELS>
  void apply(int64_t p, int64_t line) {
    int64_t margin = shape.window / 2, left = std::max<int64_t>(0, margin - column[p]);
    int64_t right = std::min(shape.window, shape.width + margin - column[p]);
    const T *neighbours =
        at.x + ((image[p] * shape.height + line) * shape.width + column[p] - margin) * shape.channels;
    for (int64_t c = 0; c < shape.channels; c += CHANNELS * GROUPS) {
      Sum<T> *sum = &sums[p * shape.channels + c];
      Vector<T> total[CHANNELS][PARTS];
      std::memcpy(total, sum, sizeof(total));
      for (int64_t tap = left; tap < right; tap++) {
        Vector<T> weight[PARTS];
        std::memcpy(weight, predicted[tap].total[p], sizeof(weight));
        for (int64_t i = 0; i < CHANNELS; i++)
          for (int64_t q = 0; q < PARTS; q++)
            total[i][q] += weight[q] * load(neighbours + tap * shape.channels + c + i * GROUPS + q * LANES<T>);
      }
      std::memcpy(sum, total, sizeof(total));
    }
  }

  void apply_row(int64_t p, int64_t line) {
    int64_t each = shape.channels / GROUPS;
    if (4 * PARTS <= ACCUMULATORS && each % 4 == 0) return apply<4>(p, line);
    if (3 * PARTS <= ACCUMULATORS && each % 3 == 0) return apply<3>(p, line);
    if (2 * PARTS <= ACCUMULATORS && each % 2 == 0) return apply<2>(p, line);
    apply<1>(p, line);
  }

  void write(int64_t first, int64_t count) {
    for (int64_t p = 0; p < count; p++)
      for (int64_t c = 0; c < shape.channels; c += LANES<T>) {
        Vector<T> sum;
        std::memcpy(&sum, &sums[p * shape.channels + c], sizeof(sum));
        store(at.out + (first + p) * shape.channels + c, sum * load(at.scale + c) + load(at.shift + c));
      }
  }

 public:
  Block(const Shape &shape, const Operands<T> &at)
      : shape(shape), at(at), hidden(POSITIONS * shape.hidden), sums(POSITIONS * shape.channels) {}

  static int64_t count(const Shape &shape) {
    return (shape.batch * shape.height * shape.width + POSITIONS - 1) / POSITIONS;
  }

  void run(int64_t block) {
    int64_t positions = shape.batch * shape.height * shape.width, first = block * POSITIONS;
    int64_t count = std::min(POSITIONS, positions - first);
    place(first, positions);
    for (int64_t dy = 0; dy < shape.window; dy++) {
      int64_t offset = dy - shape.window / 2;
      auto inside = [&](int64_t p) { return row[p] + offset >= 0 && row[p] + offset < shape.height; };
      bool any = false;
      for (int64_t p = 0; p < count; p++) any |= inside(p);
      if (!any) continue;
      for (int64_t dx = 0, tap = dy * shape.window; dx < shape.window; dx++, tap++)
        predicted[dx].run(hidden.data(), shape.hidden, shape.hidden, at.weight + tap * shape.hidden * GROUPS,
                          at.bias + tap * GROUPS);
      for (int64_t p = 0; p < count; p++)
        if (inside(p)) apply_row(p, row[p] + offset);
    }
    write(first, count);
  }
};

template <class T>
void mix(const Shape &shape, const Operands<T> &at) {
  at::parallel_for(0, Block<T>::count(shape), 1, [&](int64_t begin, int64_t end) {
    Block<T> block(shape, at);
    for (int64_t number = begin; number < end; number++) block.run(number);
  });
}

}  // namespace

#define EXPORT(name, T)                                                            \
  extern "C" void name(const int64_t *shape, const T *const *in, T *out) {         \
    mix<T>({shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]},           \
           {in[0], in[1], in[2], in[3], in[4], in[5], out});                       \
  }
EXPORT(inhomogeneous_float32, float)
EXPORT(inhomogeneous_float64, double)
EXPORT(inhomogeneous_bfloat16, bfloat16)
