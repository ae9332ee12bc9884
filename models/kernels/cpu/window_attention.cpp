// Attention within windows, read from and written to the map: partition, shift, padding and their inverses are indices.
#include "exponential.h"
#include "product.h"

namespace {

constexpr int64_t HEAD = PANEL;  // channels of one head

struct Shape {
  int64_t batch, height, width, heads, window, down, right, biases;  // down, right: the shift; biases: 1 or windows

  int64_t rows() const { return (height + window - 1) / window; }  // of windows
  int64_t columns() const { return (width + window - 1) / window; }
  int64_t positions() const { return window * window; }
  int64_t panels() const { return (positions() + PANEL - 1) / PANEL; }
};

// All dense: qkv (B, H, W, 3, heads, HEAD); padding (3, heads, HEAD), the qkv of a position beyond the map; bias (biases,
// heads, K * K, panels * PANEL), so low beyond K * K that nothing is added there; out (B, H, W, heads, HEAD).
template <class T>
struct Operands {
  const T *qkv, *padding, *bias;
  T *out;
};

template <class T>
class Window {
  using A = Sum<T>;
  using V = Vector<A>;
  static constexpr int64_t PARTS = Product<A>::PARTS, ROWS = Product<A>::ROWS;

  const Shape &shape;
  const Operands<T> &at;
  std::vector<A> queries, keys, values, logits;  // (rounded up to ROWS, HEAD), (panels, HEAD, PANEL), (L, HEAD), (ROWS, L)
  std::vector<int64_t> places;                   // of each position in the map, -1 beyond it
  A zeros[PANEL] = {};

  void place(int64_t image, int64_t number) {
    int64_t top = number / shape.columns() * shape.window, left = number % shape.columns() * shape.window;
    for (int64_t p = 0; p < shape.positions(); p++) {
      int64_t y = (top + p / shape.window + shape.down) % (shape.rows() * shape.window);
      int64_t x = (left + p % shape.window + shape.right) % (shape.columns() * shape.window);
      places[p] = y < shape.height && x < shape.width ? (image * shape.height + y) * shape.width + x : -1;
    }
  }

  void gather(int64_t head) {
    const int64_t width = shape.heads * HEAD;
    const A scale = 1 / std::sqrt(A(HEAD));
    for (int64_t p = 0; p < shape.positions(); p++) {
      const T *from = (places[p] < 0 ? at.padding : at.qkv + places[p] * 3 * width) + head * HEAD;
      A *key = &keys[p / PANEL * HEAD * PANEL + p % PANEL];
      for (int64_t c = 0; c < HEAD; c++) {
        queries[p * HEAD + c] = widen(from[c]) * scale;
        key[c * PANEL] = widen(from[width + c]);
        values[p * HEAD + c] = widen(from[2 * width + c]);
      }
    }
  }

  // The exponentials of a row of logits in their place; one over their sum.
  A softmax(A *row, const T *bias) {
    const int64_t width = shape.panels() * PANEL;
    V most = load(row) + load(bias);
    for (int64_t k = 0; k < width; k += LANES<A>) {
      V logit = load(row + k) + load(bias + k);
      store(row + k, logit);
      most = most > logit ? most : logit;
    }
    A highest = most[0], sum = 0;
    for (int64_t lane = 1; lane < LANES<A>; lane++) highest = std::max<A>(highest, most[lane]);
    V total{};
    for (int64_t k = 0; k < width; k += LANES<A>) {
      V each = exponential(load(row + k) - highest);
      store(row + k, each);
      total += each;
    }
    for (int64_t lane = 0; lane < LANES<A>; lane++) sum += total[lane];
    return 1 / sum;
  }

  void attend(int64_t first, int64_t head, const T *bias) {
    const int64_t width = shape.panels() * PANEL, count = std::min(ROWS, shape.positions() - first);
    Product<A> product;
    for (int64_t panel = 0; panel < shape.panels(); panel++) {
      product.run(&queries[first * HEAD], HEAD, HEAD, &keys[panel * HEAD * PANEL], zeros);
      for (int64_t r = 0; r < count; r++)
        std::memcpy(&logits[r * width + panel * PANEL], product.total[r], sizeof(product.total[r]));
    }
    A scale[ROWS];
    for (int64_t r = 0; r < count; r++) scale[r] = softmax(&logits[r * width], bias + (first + r) * width);
    product.run(logits.data(), width, shape.positions(), values.data(), zeros);
    for (int64_t r = 0; r < count; r++) {
      int64_t to = places[first + r];
      if (to < 0) continue;
      for (int64_t q = 0; q < PARTS; q++)
        store(at.out + (to * shape.heads + head) * HEAD + q * LANES<A>, product.total[r][q] * scale[r]);
    }
  }

 public:
  Window(const Shape &shape, const Operands<T> &at)
      : shape(shape),
        at(at),
        queries((shape.positions() + ROWS) * HEAD),
        keys(shape.panels() * HEAD * PANEL),
        values(shape.positions() * HEAD),
        logits(ROWS * shape.panels() * PANEL),
        places(shape.positions()) {}

  void run(int64_t task) {
    int64_t head = task % shape.heads, windows = shape.rows() * shape.columns();
    int64_t number = task / shape.heads % windows;
    place(task / shape.heads / windows, number);
    gather(head);
    int64_t each = shape.positions() * shape.panels() * PANEL;
    const T *bias = at.bias + ((shape.biases > 1 ? number : 0) * shape.heads + head) * each;
    for (int64_t first = 0; first < shape.positions(); first += ROWS) attend(first, head, bias);
  }
};

template <class T>
void attend(const Shape &shape, const Operands<T> &at) {
  at::parallel_for(0, shape.batch * shape.rows() * shape.columns() * shape.heads, 1, [&](int64_t begin, int64_t end) {
    Window<T> window(shape, at);
    for (int64_t task = begin; task < end; task++) window.run(task);
  });
}

}  // namespace

#define EXPORT(name, T)                                                                                      \
  extern "C" void name(const int64_t *shape, const T *const *in, T *out) {                                   \
    attend<T>({shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], shape[7]},              \
              {in[0], in[1], in[2], out});                                                                   \
  }
EXPORT(window_attention_float32, float)
EXPORT(window_attention_float64, double)
EXPORT(window_attention_bfloat16, bfloat16)
