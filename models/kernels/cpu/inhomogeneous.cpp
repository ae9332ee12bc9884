// Kernels predicted per position and applied there with a ReLU behind, in one pass: those of POSITIONS positions and one row of taps exist
// at a time, in the first cache. Channels come as (C/G, group): a vector holds one channel of several groups, and meets
// their predicted weights without a shuffle.
#include "product.h"

namespace {

constexpr int64_t GROUPS = PANEL;
constexpr int64_t MOST_TAPS = 64;  // in a row

struct Shape {
  int64_t batch, height, width, channels, hidden, window;
};

// All dense: x and out (B, H, W, C); reduce (J / PANEL rounded up, C, PANEL) and its bias, which predict J hidden values
// ahead of a ReLU; weight (K * K, J, G); bias (K * K, G); scale and shift (C).
template <class T>
struct Operands {
  const T *x, *reduce, *reduce_bias, *weight, *bias, *scale, *shift;
  T *out;
};

template <class T>
class Block {
  static constexpr int64_t PARTS = Product<T>::PARTS, POSITIONS = Product<T>::ROWS;

  const Shape &shape;
  const Operands<T> &at;
  Product<T> predicted[MOST_TAPS];
  std::vector<Sum<T>> rows, hidden;  // (POSITIONS, C), (POSITIONS, panels * PANEL)
  std::vector<Vector<T>> sums;       // (POSITIONS, C / LANES)
  int64_t place[POSITIONS], row[POSITIONS], column[POSITIONS];

  void go_to(int64_t first, int64_t positions) {
    for (int64_t p = 0; p < POSITIONS; p++) {
      int64_t flat = std::min(first + p, positions - 1);  // the last block does the last position several times
      column[p] = flat % shape.width, row[p] = flat / shape.width % shape.height, place[p] = flat;
      for (int64_t c = 0; c < shape.channels; c += LANES<T>)
        store(&rows[p * shape.channels + c], load(at.x + flat * shape.channels + c));
    }
    std::fill(sums.begin(), sums.end(), Vector<T>{});
  }

  int64_t width() const { return (shape.hidden + PANEL - 1) / PANEL * PANEL; }

  void predict_hidden() {
    Product<T> product;
    for (int64_t j = 0; j < shape.hidden; j += PANEL) {
      product.run(rows.data(), shape.channels, shape.channels, at.reduce + j * shape.channels, at.reduce_bias + j);
      for (int64_t p = 0; p < POSITIONS; p++)
        for (int64_t q = 0; q < PARTS; q++) store(&hidden[p * width() + j + q * LANES<T>], relu(product.total[p][q]));
    }
  }

  // Add the neighbours in row `dy` of the taps to the sums, CHANNELS of each group at a time.
  template <int64_t CHANNELS>
  void apply(int64_t dy) {
    const int64_t margin = shape.window / 2, channels = shape.channels;
    for (int64_t p = 0; p < POSITIONS; p++) {
      if (!inside(p, dy)) continue;
      const int64_t left = std::max<int64_t>(0, margin - column[p]);
      const int64_t right = std::min(shape.window, shape.width + margin - column[p]);
      const T *neighbours = at.x + (place[p] + (dy - margin) * shape.width - margin) * channels;
      for (int64_t c = 0; c < channels; c += CHANNELS * GROUPS) {
        Vector<T> *sum = &sums[(p * channels + c) / LANES<T>], total[CHANNELS][PARTS];
        std::memcpy(total, sum, sizeof(total));
        for (int64_t tap = left; tap < right; tap++) {
          Vector<T> weight[PARTS];
          for (int64_t q = 0; q < PARTS; q++) weight[q] = in_register(predicted[tap].total[p][q]);
          for (int64_t i = 0; i < CHANNELS; i++)
            for (int64_t q = 0; q < PARTS; q++)
              total[i][q] += weight[q] * load(neighbours + tap * channels + c + i * GROUPS + q * LANES<T>);
        }
        std::memcpy(sum, total, sizeof(total));
      }
    }
  }

  bool inside(int64_t p, int64_t dy) const {
    const int64_t line = row[p] + dy - shape.window / 2;
    return line >= 0 && line < shape.height;
  }

  void apply_row(int64_t dy) {
    const int64_t each = shape.channels / GROUPS;
    if (4 * PARTS <= ACCUMULATORS && each % 4 == 0) return apply<4>(dy);
    if (3 * PARTS <= ACCUMULATORS && each % 3 == 0) return apply<3>(dy);
    if (2 * PARTS <= ACCUMULATORS && each % 2 == 0) return apply<2>(dy);
    apply<1>(dy);
  }

  void write(int64_t first, int64_t count) {
    for (int64_t p = 0; p < count; p++)
      for (int64_t c = 0; c < shape.channels; c += LANES<T>)
        store(at.out + (first + p) * shape.channels + c,
              relu(sums[(p * shape.channels + c) / LANES<T>] * load(at.scale + c) + load(at.shift + c)));
  }

 public:
  Block(const Shape &shape, const Operands<T> &at)
      : shape(shape),
        at(at),
        rows(POSITIONS * shape.channels),
        hidden(POSITIONS * width()),
        sums(POSITIONS * shape.channels / LANES<T>) {}

  static int64_t count(const Shape &shape) {
    return (shape.batch * shape.height * shape.width + POSITIONS - 1) / POSITIONS;
  }

  void run(int64_t block) {
    int64_t positions = shape.batch * shape.height * shape.width, first = block * POSITIONS;
    int64_t count = std::min(POSITIONS, positions - first);
    go_to(first, positions);
    predict_hidden();
    for (int64_t dy = 0; dy < shape.window; dy++) {
      bool any = false;
      for (int64_t p = 0; p < POSITIONS; p++) any |= inside(p, dy);
      if (!any) continue;
      for (int64_t dx = 0, tap = dy * shape.window; dx < shape.window; dx++, tap++)
        predicted[dx].run(hidden.data(), width(), shape.hidden, at.weight + tap * shape.hidden * GROUPS,
                          at.bias + tap * GROUPS);
      apply_row(dy);
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
           {in[0], in[1], in[2], in[3], in[4], in[5], in[6], out});                       \
  }
EXPORT(inhomogeneous_float32, float)
EXPORT(inhomogeneous_float64, double)
EXPORT(inhomogeneous_bfloat16, bfloat16)
