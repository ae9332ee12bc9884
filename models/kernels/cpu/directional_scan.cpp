// A selective scan along rows and columns, both ways: the states of a vector of channels stand in registers, and step
// sizes, decays and what drives them exist for one position at a time.
#include "exponential.h"

namespace {

constexpr int64_t DIRECTIONS = 4;  // along the rows, along the columns, and both from the end

struct Shape {
  int64_t batch, height, width, channels, rank;
};

// All dense: x and out (B, H, W, C); low (B, H, W, DIRECTIONS, R); states (B, H, W, 2, DIRECTIONS), entries and readouts;
// weight (DIRECTIONS, R, C), bias, rate, skip (DIRECTIONS, C).
template <class T>
struct Operands {
  const T *x, *low, *states, *weight, *bias, *rate, *skip;
  T *out;
};

template <class T>
class Channels {
  using V = Vector<T>;

  const Shape &shape;
  const Operands<T> &at;
  std::vector<Sum<T>> sums;  // (H * W, LANES)
  std::vector<V> weight;     // (R)

  void walk(int64_t image, int64_t direction, int64_t c) {
    const int64_t count = shape.height * shape.width, channels = shape.channels, rank = shape.rank;
    const int64_t side = direction % 2 ? shape.height : shape.width;  // positions along a line of the path
    const int64_t step = direction % 2 ? shape.width : 1, jump = direction % 2 ? 1 - count : 0;
    const bool back = direction >= 2;
    for (int64_t r = 0; r < rank; r++) weight[r] = load(at.weight + (direction * rank + r) * channels + c);
    const V bias = load(at.bias + direction * channels + c);
    const V speed = exponential(load(at.rate + direction * channels + c));
    V state{};
    int64_t place = back ? count - 1 : 0, along = 0;
    for (int64_t i = 0; i < count; i++) {
      int64_t flat = image * count + place;
      const T *low = at.low + (flat * DIRECTIONS + direction) * rank, *states = at.states + flat * 2 * DIRECTIONS;
      V delta = bias;
      for (int64_t r = 0; r < rank; r++) delta += weight[r] * widen(low[r]);
      delta = softplus(delta);
      V drive = delta * load(at.x + flat * channels + c) * widen(states[direction]);
      state = exponential(-delta * speed) * state + drive;
      Sum<T> *sum = &sums[place * LANES<T>];
      store(sum, load(sum) + state * widen(states[DIRECTIONS + direction]));
      bool turn = ++along == side;
      if (turn) along = 0;
      int64_t move = step + (turn ? jump : 0);
      place += back ? -move : move;
    }
  }

 public:
  Channels(const Shape &shape, const Operands<T> &at)
      : shape(shape), at(at), sums(shape.height * shape.width * LANES<T>), weight(shape.rank) {}

  void run(int64_t task) {
    const int64_t each = shape.channels / LANES<T>, image = task / each, c = task % each * LANES<T>;
    const int64_t count = shape.height * shape.width;
    std::fill(sums.begin(), sums.end(), Sum<T>(0));
    V skip{};
    for (int64_t direction = 0; direction < DIRECTIONS; direction++) {
      walk(image, direction, c);
      skip += load(at.skip + direction * shape.channels + c);
    }
    for (int64_t p = 0; p < count; p++) {
      int64_t place = (image * count + p) * shape.channels + c;
      store(at.out + place, load(&sums[p * LANES<T>]) + load(at.x + place) * skip);
    }
  }
};

template <class T>
void scan(const Shape &shape, const Operands<T> &at) {
  at::parallel_for(0, shape.batch * shape.channels / LANES<T>, 1, [&](int64_t begin, int64_t end) {
    Channels<T> channels(shape, at);
    for (int64_t task = begin; task < end; task++) channels.run(task);
  });
}

}  // namespace

#define EXPORT(name, T)                                                                   \
  extern "C" void name(const int64_t *shape, const T *const *in, T *out) {                \
    scan<T>({shape[0], shape[1], shape[2], shape[3], shape[4]},                           \
            {in[0], in[1], in[2], in[3], in[4], in[5], in[6], out});                      \
  }
EXPORT(directional_scan_float32, float)
EXPORT(directional_scan_float64, double)
EXPORT(directional_scan_bfloat16, bfloat16)
