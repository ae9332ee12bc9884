// Every position attends to its own neighbours, which are read from the map: nothing is unfolded, no logit is stored.
#include "exponential.h"

namespace {

constexpr int64_t HEAD = 32;  // channels of one head

struct Shape {
  int64_t batch, height, width, heads, window;
};

// All dense: qkv (B, H, W, 3, heads, HEAD); bias (heads, K * K); out (B, H, W, heads, HEAD).
template <class T>
struct Operands {
  const T *qkv, *bias;
  T *out;
};

template <class T>
class Position {
  using A = Sum<T>;
  static constexpr int64_t PARTS = HEAD / LANES<T>;

  const Shape &shape;
  const Operands<T> &at;
  std::vector<A> logits;           // (K * K rounded up to LANES)
  std::vector<const T *> values;   // of the neighbours that lie on the map

  // Logits and values of the neighbours; how many there are.
  int64_t gather(int64_t flat, int64_t head) {
    const int64_t margin = shape.window / 2, each = shape.heads * HEAD;
    const int64_t x = flat % shape.width, y = flat / shape.width % shape.height;
    const A scale = 1 / std::sqrt(A(HEAD));
    Vector<T> query[PARTS];
    for (int64_t q = 0; q < PARTS; q++) query[q] = load(at.qkv + flat * 3 * each + head * HEAD + q * LANES<T>) * scale;
    const int64_t left = std::max<int64_t>(0, margin - x), right = std::min(shape.window, shape.width + margin - x);
    int64_t count = 0;
    for (int64_t dy = std::max<int64_t>(0, margin - y); dy < std::min(shape.window, shape.height + margin - y); dy++)
      for (int64_t dx = left; dx < right; dx++, count++) {
        const T *key = at.qkv + ((flat + (dy - margin) * shape.width + dx - margin) * 3 + 1) * each + head * HEAD;
        Vector<T> product = query[0] * load(key);
        for (int64_t q = 1; q < PARTS; q++) product += query[q] * load(key + q * LANES<T>);
        logits[count] = total(product) + widen(at.bias[(head * shape.window + dy) * shape.window + dx]);
        values[count] = key + each;
      }
    return count;
  }

 public:
  Position(const Shape &shape, const Operands<T> &at)
      : shape(shape), at(at), logits(shape.window * shape.window + LANES<T>), values(shape.window * shape.window) {}

  void run(int64_t flat, int64_t head) {
    const int64_t count = gather(flat, head);
    A most = logits[0], sum = 0;
    for (int64_t k = 1; k < count; k++) most = std::max(most, logits[k]);
    for (int64_t k = 0; k < count; k += LANES<T>) store(&logits[k], exponential(load(&logits[k]) - most));
    Vector<T> sums[PARTS] = {};
    for (int64_t k = 0; k < count; k++) {
      sum += logits[k];
      for (int64_t q = 0; q < PARTS; q++) sums[q] += logits[k] * load(values[k] + q * LANES<T>);
    }
    for (int64_t q = 0; q < PARTS; q++)
      store(at.out + (flat * shape.heads + head) * HEAD + q * LANES<T>, sums[q] * (1 / sum));
  }
};

template <class T>
void attend(const Shape &shape, const Operands<T> &at) {
  at::parallel_for(0, shape.batch * shape.height * shape.width, 64, [&](int64_t begin, int64_t end) {
    Position<T> position(shape, at);
    for (int64_t flat = begin; flat < end; flat++)
      for (int64_t head = 0; head < shape.heads; head++) position.run(flat, head);
  });
}

}  // namespace

#define EXPORT(name, T)                                                                       \
  extern "C" void name(const int64_t *shape, const T *const *in, T *out) {                    \
    attend<T>({shape[0], shape[1], shape[2], shape[3], shape[4]}, {in[0], in[1], out});       \
  }
EXPORT(neighborhood_attention_float32, float)
EXPORT(neighborhood_attention_float64, double)
EXPORT(neighborhood_attention_bfloat16, bfloat16)
