// rows (N, J) times weights (J, M) plus bias, the weights in panels of PANEL outputs.
#include "product.h"

namespace {

constexpr int64_t BLOCKS = 8;  // of rows that a thread keeps near while it goes through the panels

template <class T>
struct Linear {
  int64_t count, depth, outputs, rectify;  // rectify: whether a ReLU follows
  const T *rows, *panels, *bias;  // (N, J), (M / PANEL rounded up, J, PANEL), padded as these
  T *out;                         // (N, M)
  static constexpr int64_t ROWS = Product<T>::ROWS;

  int64_t blocks() const { return (count + ROWS - 1) / ROWS; }
  int64_t groups() const { return (blocks() + BLOCKS - 1) / BLOCKS; }
  int64_t width() const { return (outputs + PANEL - 1) / PANEL; }

  // The rows of a block in the type of sums: themselves where that is theirs and there are enough of them.
  const Sum<T> *near(int64_t first, std::vector<Sum<T>> &copy) const {
    if constexpr (std::is_same_v<T, Sum<T>>)
      if (first + ROWS <= count) return rows + first * depth;
    for (int64_t r = 0; r < ROWS; r++)
      for (int64_t j = 0; j < depth; j++) copy[r * depth + j] = widen(rows[std::min(first + r, count - 1) * depth + j]);
    return copy.data();
  }

  void write(const Product<T> &product, int64_t first, int64_t panel) const {
    int64_t start = panel * PANEL, filled = std::min(PANEL, outputs - start);
    for (int64_t r = 0; r < std::min(ROWS, count - first); r++) {
      T line[PANEL];
      for (int64_t q = 0; q < Product<T>::PARTS; q++) {
        Vector<T> value = product.total[r][q];
        store(line + q * LANES<T>, rectify ? relu(value) : value);
      }
      std::memcpy(out + (first + r) * outputs + start, line, filled * sizeof(T));
    }
  }

  void run(int64_t group, int64_t panel, std::vector<Sum<T>> &copy) const {
    Product<T> product;
    for (int64_t block = group * BLOCKS; block < std::min((group + 1) * BLOCKS, blocks()); block++) {
      product.run(near(block * ROWS, copy), depth, depth, panels + panel * depth * PANEL, bias + panel * PANEL);
      write(product, block * ROWS, panel);
    }
  }
};

template <class T>
void multiply(const Linear<T> &linear) {
  at::parallel_for(0, linear.groups() * linear.width(), 1, [&](int64_t begin, int64_t end) {
    std::vector<Sum<T>> copy(linear.ROWS * linear.depth);
    for (int64_t task = begin; task < end; task++) linear.run(task / linear.width(), task % linear.width(), copy);
  });
}

}  // namespace

#define EXPORT(name, T)                                                         \
  extern "C" void name(const int64_t *shape, const T *const *in, T *out) {      \
    multiply<T>({shape[0], shape[1], shape[2], shape[3], in[0], in[1], in[2], out}); \
  }
EXPORT(linear_float32, float)
EXPORT(linear_float64, double)
EXPORT(linear_bfloat16, bfloat16)
