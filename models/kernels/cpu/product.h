// A few rows times a panel of PANEL outputs: the one inner loop of all products here.
#pragma once
#include "vectors.h"

constexpr int64_t PANEL = 32;

template <class T>
struct Product {
  static constexpr int64_t PARTS = PANEL / LANES<T>;  // vectors that hold one row's outputs
  static constexpr int64_t ROWS = std::max<int64_t>(1, ACCUMULATORS / PARTS);

  Vector<T> total[ROWS][PARTS];

  // rows (ROWS, depth), one every `stride`; weights (depth, PANEL); bias (PANEL).
  void run(const Sum<T> *rows, int64_t stride, int64_t depth, const T *weights, const T *bias) {
    Vector<T> sums[ROWS][PARTS];  // not in memory, as the members are
    for (int64_t r = 0; r < ROWS; r++)
      for (int64_t q = 0; q < PARTS; q++) sums[r][q] = load(bias + q * LANES<T>);
    for (int64_t j = 0; j < depth; j++) {
      Vector<T> weight[PARTS];
      for (int64_t q = 0; q < PARTS; q++) weight[q] = load(weights + j * PANEL + q * LANES<T>);
      for (int64_t r = 0; r < ROWS; r++)
        for (int64_t q = 0; q < PARTS; q++) sums[r][q] += rows[r * stride + j] * weight[q];
    }
    std::memcpy(total, sums, sizeof(sums));
  }
};
