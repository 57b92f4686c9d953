// The network `sprint` of utils/models.py with its recipe of utils/experiments.py: forward pass, backward pass, update.
//
// python -m tools.site compiles this file to WebAssembly. site/live/sprint.mjs fills in what a training begins with; it
// finds all that is not static by its name. No library is used. Every operation is one that IEEE 754 defines to the last
// bit, in an order that the source fixes. So a seed gives the same weights in each browser.
//
// Activations are stored as [pixel][image][channel]. A convolution is then a sum of matrix products, one for each pixel
// of its output and each tap of its kernel: (images × input channels) by (input channels × output channels). Taps
// outside of the map are left out. The first layer gets patches of 5×5 pixels instead of maps, and the linear layer is
// a convolution of the whole map.

#include <stddef.h>
#include <stdint.h>

enum { BATCH = 128, TRAIN = 33000, TEST = 10000, CLASSES = 10 }; // images, of which the recipe trains on 33,000
enum { SIDE = 24, PATCH = 28, LOGITS = 16 }; // 25 pixels and 10 classes, filled up to a multiple of four, and of eight
static const float LEARNING_RATE = 0.3f, MOMENTUM = 0.9f, WEIGHT_DECAY = 3e-4f, LABEL_SMOOTHING = 0.1f;
static const float EPSILON = 1e-5f, AVERAGING = 0.1f; // of batch norm: PyTorch's defaults
static const double WARMUP = 0.45, PI = 3.14159265358979323846; // the share of steps in which the learning rate climbs

typedef float Vector __attribute__((vector_size(16), aligned(4))); // four floats
typedef int32_t Mask __attribute__((vector_size(16), aligned(4))); // for each of four floats all bits set, or none
#define VECTOR(pointer) (*(Vector *)(pointer))

typedef struct {
  float conv1[PATCH * 16], conv2[9 * 16 * 32], conv3[9 * 32 * 64], linear[16 * 64 * LOGITS]; // [tap][input][output]
  float gain1[16], shift1[16], gain2[32], shift2[32], gain3[64], shift3[64], bias[LOGITS];
  float patches[100 * BATCH * PATCH], maps1[100 * BATCH * 16], active1[100 * BATCH * 16]; // active: after a ReLU
  float maps2[64 * BATCH * 32], pooled2[16 * BATCH * 32], active2[16 * BATCH * 32];
  float maps3[16 * BATCH * 64], active3[16 * BATCH * 64], logits[BATCH * LOGITS];
} Network;
enum { MATRICES = offsetof(Network, gain1) / sizeof(float), PARAMETERS = offsetof(Network, patches) / sizeof(float) };
Network network, gradients; // gradients: of the loss, with respect to each number of the network, in the same place
float *const outputs[4] = {network.logits, network.active1, network.active2, network.active3};
float velocities[PARAMETERS], tones[256]; // tones: gray levels, normalized

static const struct Layer {
  int in_side, out_side, kernel, padding, in, out; // in, out: channels
  float *input, *weight, *output;
} layers[4] = {
    {10, 10, 1, 0, PATCH, 16, network.patches, network.conv1, network.maps1},
    {10, 8, 3, 0, 16, 32, network.active1, network.conv2, network.maps2},
    {4, 4, 3, 1, 32, 64, network.active2, network.conv3, network.maps3},
    {4, 1, 4, 0, 64, LOGITS, network.active3, network.linear, network.logits},
};
static const struct Norm { // batch norm and ReLU
  int pixels, channels;
  float *input, *output, *gain, *shift;
} norms[3] = {
    {100, 16, network.maps1, network.active1, network.gain1, network.shift1},
    {16, 32, network.pooled2, network.active2, network.gain2, network.shift2},
    {16, 64, network.maps3, network.active3, network.gain3, network.shift3},
};
struct Statistics { float running_mean[64], running_variance[64], mean[64], variance[64]; } statistics[3];

uint8_t images[TRAIN + TEST + 1][SIDE * SIDE], labels[TRAIN + TEST]; // to train on, to test on, the reader's
int order[TRAIN], step_number, step_count;

static void clear(float *values, int number) { for (int i = 0; i < number; i++) values[i] = 0; }

/** Where the gradient with respect to a number of the network is. */
static float *gradient(float *number) { return (float *)&gradients + (number - (float *)&network); }

// ---- Layers
/** sums (rows × columns) += left (rows × inner) · right (inner × columns). rows: a multiple of 4; columns: of 8.
 * Left may lie transposed in memory: to its next row it is `down` numbers, to its next column `across`. */
static void multiply(float *left, int down, int across, float *right, float *sums, int rows, int inner, int columns) {
  for (int column = 0; column < columns; column += 8)
    for (int row = 0; row < rows; row += 4) {
      float *l = left + row * down, *r = right + column, *s = sums + row * columns + column;
      Vector tile[4][2];
      for (int i = 0; i < 8; i++) tile[i / 2][i % 2] = VECTOR(s + i / 2 * columns + i % 2 * 4);
      for (int k = 0; k < inner; k++, l += across, r += columns)
        for (int i = 0; i < 8; i++) tile[i / 2][i % 2] += l[i / 2 * down] * VECTOR(r + i % 2 * 4);
      for (int i = 0; i < 8; i++) VECTOR(s + i / 2 * columns + i % 2 * 4) = tile[i / 2][i % 2];
    }
}

typedef enum { OUTPUT, WEIGHT_GRADIENT, INPUT_GRADIENT } Sum;

/** One of the three sums over all pixels of a layer's output and all taps of its kernel, for some rows: images. */
static void convolve(const struct Layer *l, Sum sum, int rows) {
  static float turned[9 * 32 * 64]; // the kernel as [tap][output][input]
  const int side = l->in_side, pixels = l->out_side * l->out_side, taps = l->kernel * l->kernel, size = l->in * l->out;
  if (sum == OUTPUT) clear(l->output, pixels * BATCH * l->out);
  if (sum == WEIGHT_GRADIENT) clear(gradient(l->weight), taps * size);
  if (sum == INPUT_GRADIENT) clear(gradient(l->input), side * side * BATCH * l->in);
  for (int i = 0; i < taps * size && sum == INPUT_GRADIENT; i++)
    turned[i / size * size + i % l->out * l->in + i % size / l->out] = l->weight[i];
  for (int pixel = 0; pixel < pixels; pixel++)
    for (int tap = 0; tap < taps; tap++) {
      const int row = pixel / l->out_side + tap / l->kernel - l->padding;
      const int column = pixel % l->out_side + tap % l->kernel - l->padding;
      if (row < 0 || column < 0 || row >= side || column >= side) continue;
      float *input = l->input + (row * side + column) * BATCH * l->in, *weight = l->weight + tap * size;
      float *output = l->output + pixel * BATCH * l->out, *slope = gradient(output);
      if (sum == OUTPUT) multiply(input, l->in, 1, weight, output, rows, l->in, l->out);
      if (sum == WEIGHT_GRADIENT) multiply(input, 1, l->in, slope, gradient(weight), l->in, rows, l->out);
      if (sum == INPUT_GRADIENT) multiply(slope, l->out, 1, turned + tap * size, gradient(input), rows, l->out, l->in);
    }
}

/** Where four pixels begin in `maps2`, k from 0 to 3, the largest of which is a pixel of `pooled2`: 8×8 → 4×4. */
static float *pooled_from(int pixel, int k) {
  return network.maps2 + (pixel / 4 * 16 + pixel % 4 * 2 + k / 2 * 8 + k % 2) * BATCH * 32;
}

static void pool(void) {
  for (int pixel = 0; pixel < 16; pixel++)
    for (int i = 0; i < BATCH * 32; i++) {
      float most = pooled_from(pixel, 0)[i];
      for (int k = 1; k < 4; k++) most = pooled_from(pixel, k)[i] > most ? pooled_from(pixel, k)[i] : most;
      network.pooled2[pixel * BATCH * 32 + i] = most;
    }
}

/** The gradient goes to the first of the four pixels that is the largest. */
static void pool_backward(void) {
  for (int pixel = 0; pixel < 16; pixel++)
    for (int i = 0; i < BATCH * 32; i += 4) {
      const Vector most = VECTOR(network.pooled2 + pixel * BATCH * 32 + i);
      Mask left = (Mask)VECTOR(gradients.pooled2 + pixel * BATCH * 32 + i);
      for (int k = 0; k < 4; k++) {
        float *from = pooled_from(pixel, k) + i;
        const Mask is = VECTOR(from) == most;
        VECTOR(gradient(from)) = (Vector)(left & is);
        left &= ~is;
      }
    }
}

/** The sum over a batch of four channels' differences from `mean`, or of their squares. */
static Vector sum_of(const struct Norm *n, int channel, Vector mean, int is_squared) {
  Vector sum = {0};
  for (int pixel = 0; pixel < n->pixels; pixel++) {
    Vector part = {0}; // adding up few numbers at a time keeps rounding errors small
    for (int row = 0; row < BATCH; row++) {
      const Vector apart = VECTOR(n->input + (pixel * BATCH + row) * n->channels + channel) - mean;
      part += is_squared ? apart * apart : apart;
    }
    sum += part;
  }
  return sum;
}

/** Batch norm, then ReLU. In training, mean and variance of a channel are the batch's; else they are running ones. */
static void normalize(const struct Norm *n, struct Statistics *s, int rows, int is_training) {
  const float count = (float)(n->pixels * BATCH);
  for (int c = 0; c < n->channels; c += 4) {
    Vector mean = VECTOR(s->running_mean + c), variance = VECTOR(s->running_variance + c), scale;
    if (is_training) {
      mean = sum_of(n, c, (Vector){0}, 0) / count;
      const Vector squares = sum_of(n, c, mean, 1);
      variance = squares / count;
      VECTOR(s->running_mean + c) += AVERAGING * (mean - VECTOR(s->running_mean + c));
      VECTOR(s->running_variance + c) += AVERAGING * (squares / (count - 1) - VECTOR(s->running_variance + c));
      VECTOR(s->mean + c) = mean, VECTOR(s->variance + c) = variance;
    }
    for (int k = 0; k < 4; k++) scale[k] = n->gain[c + k] / __builtin_sqrtf(variance[k] + EPSILON);
    for (int pixel = 0; pixel < n->pixels; pixel++)
      for (int row = 0; row < rows; row++) {
        const int i = (pixel * BATCH + row) * n->channels + c;
        const Vector value = (VECTOR(n->input + i) - mean) * scale + VECTOR(n->shift + c);
        VECTOR(n->output + i) = (Vector)((Mask)value & (value > 0));
      }
  }
}

static void normalize_backward(const struct Norm *n, const struct Statistics *s) {
  const float count = (float)(n->pixels * BATCH);
  for (int c = 0; c < n->channels; c += 4) {
    const Vector mean = VECTOR(s->mean + c);
    Vector inverse, sum = {0}, products = {0};
    for (int k = 0; k < 4; k++) inverse[k] = 1 / __builtin_sqrtf(s->variance[c + k] + EPSILON);
    for (int pixel = 0; pixel < n->pixels; pixel++) {
      Vector part = {0}, part_products = {0};
      for (int row = 0; row < BATCH; row++) {
        float *in = n->input + (pixel * BATCH + row) * n->channels + c, *out = n->output + (in - n->input);
        const Vector slope = (Vector)((Mask)VECTOR(gradient(out)) & (VECTOR(out) > 0)); // ReLU's
        VECTOR(gradient(in)) = slope;
        part += slope;
        part_products += slope * ((VECTOR(in) - mean) * inverse);
      }
      sum += part;
      products += part_products;
    }
    VECTOR(gradient(n->shift + c)) = sum;
    VECTOR(gradient(n->gain + c)) = products;
    const Vector factor = VECTOR(n->gain + c) * inverse;
    for (float *in = n->input + c; in < n->input + n->pixels * BATCH * n->channels; in += n->channels) {
      const Vector normal = (VECTOR(in) - mean) * inverse;
      VECTOR(gradient(in)) = factor * (VECTOR(gradient(in)) - sum / count - normal * products / count);
    }
  }
}

// ---- The network
/** Patches of 5×5 pixels, two apart, of `count` images. */
static void put(const int *which, int count) {
  for (int pixel = 0; pixel < 100; pixel++)
    for (int row = 0; row < count; row++) {
      const uint8_t *gray = images[which[row]] + pixel / 10 * 2 * SIDE + pixel % 10 * 2;
      float *patch = network.patches + (pixel * BATCH + row) * PATCH;
      for (int tap = 0; tap < 25; tap++) patch[tap] = tones[gray[tap / 5 * SIDE + tap % 5]];
    }
}

/** The logits of the first `rows` images in `patches`. */
static void forward(int rows, int is_training) {
  for (int k = 0; k < 4; k++) {
    convolve(&layers[k], OUTPUT, rows);
    if (k == 1) pool();
    if (k < 3) normalize(&norms[k], &statistics[k], rows, is_training);
  }
  for (int i = 0; i < rows * LOGITS; i++) network.logits[i] += network.bias[i % LOGITS];
}

/** The gradients with respect to all parameters, from those with respect to the logits. */
static void backward(void) {
  clear(gradients.bias, LOGITS);
  for (int i = 0; i < BATCH * LOGITS; i++) gradients.bias[i % LOGITS] += gradients.logits[i];
  for (int k = 3; k >= 0; k--) {
    if (k < 3) normalize_backward(&norms[k], &statistics[k]);
    if (k == 1) pool_backward();
    convolve(&layers[k], WEIGHT_GRADIENT, BATCH);
    if (k > 0) convolve(&layers[k], INPUT_GRADIENT, BATCH);
  }
}

/** e to the power of x ≤ 0. */
static double exponential(double x) {
  if (x < -700) return 0;
  const int power = (int)(x * 1.4426950408889634 - 0.5); // of two
  const double rest = x - power * 0.6931471805599453;
  double sum = 1, term = 1; // of Taylor's series
  for (int k = 1; k < 15; k++) sum += term *= rest / k;
  union { uint64_t bits; double value; } two = {.bits = (uint64_t)(1023 + power) << 52};
  return sum * two.value;
}

/** The natural logarithm of 1 ≤ x ≤ 10, by Newton's method. */
static double logarithm(double x) {
  double y = 0;
  for (int k = 0; k < 9; k++) y += 1 - 1 / (x * exponential(-y));
  return y;
}

/** The mean cross-entropy of the batch. Writes the gradient of the same with smoothed labels. */
static double cross_entropy(const int *which) {
  double loss = 0;
  for (int row = 0; row < BATCH; row++) {
    const float *logit = network.logits + row * LOGITS;
    const int label = labels[which[row]];
    double most = logit[0], powers[CLASSES], sum = 0;
    for (int k = 1; k < CLASSES; k++) most = logit[k] > most ? logit[k] : most;
    for (int k = 0; k < CLASSES; k++) sum += powers[k] = exponential(logit[k] - most);
    loss += logarithm(sum) - (logit[label] - most);
    for (int k = 0; k < CLASSES; k++) {
      const double target = LABEL_SMOOTHING / CLASSES + (k == label ? 1 - LABEL_SMOOTHING : 0);
      gradients.logits[row * LOGITS + k] = (float)((powers[k] / sum - target) / BATCH);
    }
  }
  return loss / BATCH;
}

// ---- What sprint.mjs calls
/** PyTorch's OneCycleLR: a cosine from a tenth up to the highest rate, one from there down to a thousandth of it. */
double learning_rate(int step) {
  const double top = WARMUP * step_count - 1, end = step_count - 1, most = LEARNING_RATE;
  const double from = step <= top ? most / 10 : most, to = step <= top ? most : most / 1000;
  const double angle = PI * (step <= top ? step / top : (step - top) / (end - top));
  double cosine = 1, term = 1;
  for (int k = 1; k < 30; k += 2) cosine += term *= -angle * angle / (k * (k + 1));
  return to + (from - to) / 2 * (1 + cosine);
}

/** One step of Nesterov SGD. Returns the loss of its batch before the step. */
double step(void) {
  const int *which = order + step_number * BATCH;
  put(which, BATCH);
  forward(BATCH, 1);
  const double loss = cross_entropy(which);
  backward();
  const float rate = (float)learning_rate(step_number++);
  float *weight = (float *)&network;
  for (int i = 0; i < PARAMETERS; i++) {
    const float slope = *gradient(weight + i) + (i < MATRICES ? WEIGHT_DECAY * weight[i] : 0);
    velocities[i] = MOMENTUM * velocities[i] + slope;
    weight[i] -= rate * (slope + MOMENTUM * velocities[i]);
  }
  return loss;
}

/** The logits and maps of `count` ≤ 128 images from `first` on. */
void predict(int first, int count) {
  int which[BATCH];
  for (int row = 0; row < count; row++) which[row] = first + row;
  put(which, count);
  forward((count + 3) / 4 * 4, 0);
}
