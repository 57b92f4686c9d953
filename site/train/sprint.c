// The network `sprint` of utils/models.py, with its recipe of utils/experiments.py: forward pass, backward pass and update.
//
// python -m tools.site compiles this file to WebAssembly; site/live/sprint.mjs calls it. It uses no library. Every operation is
// one that IEEE 754 defines to the last bit, in an order that the source fixes. So a seed gives the same weights in each browser.
//
// Activations are stored as [pixel][image][channel]. A convolution is then a sum of matrix products, one for each pixel of its
// output and each tap of its kernel: (images × input channels) by (input channels × output channels). Taps outside of the map
// are left out. The first layer gets patches of 5×5 pixels instead of maps, and the linear layer is a convolution of the whole map.

#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))
#define BATCH 128
#define TRAIN 33000 // images: the recipe's
#define TEST 10000
#define SIDE 24   // of an image without its margin, which is empty in MNIST
#define PACKED (SIDE * SIDE / 2) // bytes of an image: two pixels of 16 gray levels each
#define CLASSES 10

static const float LEARNING_RATE = 0.3f, MOMENTUM = 0.9f, WEIGHT_DECAY = 3e-4f, LABEL_SMOOTHING = 0.1f;
static const double WARMUP = 0.45; // share of the steps in which the learning rate climbs
static const float EPSILON = 1e-5f, AVERAGING = 0.1f; // of batch norm: PyTorch's defaults
static const double PI = 3.14159265358979323846;

typedef float Vector __attribute__((vector_size(16), aligned(4))); // four floats
typedef int32_t Mask __attribute__((vector_size(16), aligned(4))); // for each of four floats all bits set, or none
#define VECTOR(pointer) (*(Vector *)(pointer))
#define CONSTANT(pointer) (*(const Vector *)(pointer))

typedef struct { int in_side, out_side, kernel, padding, in, out; } Layer; // in, out: channels
enum { PATCH = 28, LOGITS = 16 }; // 25 pixels and 10 classes, filled up with zeros to a multiple of four, and of eight
static const Layer CONV1 = {10, 10, 1, 0, PATCH, 16}, CONV2 = {10, 8, 3, 0, 16, 32};
static const Layer CONV3 = {4, 4, 3, 1, 32, 64}, LINEAR = {4, 1, 4, 0, 64, LOGITS};

typedef struct {
  float conv1[PATCH][16], conv2[9][16][32], conv3[9][32][64], linear[16][64][LOGITS]; // [tap][input channel][output channel]
  float gain1[16], shift1[16], gain2[32], shift2[32], gain3[64], shift3[64], bias[LOGITS];
} Parameters;
enum { MATRICES = offsetof(Parameters, gain1) / sizeof(float), NUMBERS = sizeof(Parameters) / sizeof(float) };
static Parameters weights, gradients, velocities;

typedef struct { float mean[64], variance[64], running_mean[64], running_variance[64]; } Statistics; // of one batch norm
static Statistics statistics1, statistics2, statistics3;

static uint8_t images[TRAIN + TEST][PACKED], labels[TRAIN + TEST], drawing[28 * 28]; // training images, then test images
static int order[TRAIN], batch[BATCH], step_number, step_count;

static float patches[100][BATCH][PATCH], logits[BATCH][LOGITS], logits_gradient[BATCH][LOGITS];
static float maps1[100][BATCH][16], active1[100][BATCH][16], gradient1[100][BATCH][16];
static float maps2[64][BATCH][32], pooled2[16][BATCH][32], active2[16][BATCH][32];
static float gradient2[64][BATCH][32], pooled_gradient2[16][BATCH][32];
static float maps3[16][BATCH][64], active3[16][BATCH][64], gradient3[16][BATCH][64];

// ---- Elementary functions, random numbers

/** e to the power of x ≤ 0. */
static double exponential(double x) {
  if (x < -700) return 0;
  const int power = (int)(x * 1.4426950408889634 - 0.5); // of two
  const double rest = x - power * 0.6931471805599453;
  double sum = 1, term = 1;
  for (int k = 1; k < 15; k++) sum += term *= rest / k;
  union { uint64_t bits; double value; } two = {.bits = (uint64_t)(1023 + power) << 52};
  return sum * two.value;
}

/** The natural logarithm of x ≥ 1. */
static double logarithm(double x) {
  double halvings = 0, sum = 0;
  for (; x > 1.5; x /= 2) halvings++;
  const double ratio = (x - 1) / (x + 1);
  double power = ratio;
  for (int k = 1; k < 30; k += 2, power *= ratio * ratio) sum += 2 * power / k;
  return sum + halvings * 0.6931471805599453;
}

/** The cosine of 0 ≤ x ≤ π. */
static double cosine(double x) {
  double sum = 1, term = 1;
  for (int k = 1; k < 30; k += 2) sum += term *= -x * x / (k * (k + 1));
  return sum;
}

static uint32_t random_state;

/** 32 random bits (splitmix32). */
static uint32_t random_bits(void) {
  uint32_t z = random_state += 0x9e3779b9u;
  z = (z ^ (z >> 16)) * 0x21f0aaadu;
  z = (z ^ (z >> 15)) * 0x735a2d97u;
  return z ^ (z >> 15);
}

/** Fill with numbers from −bound to bound, uniformly distributed: PyTorch's default, with bound = 1/√(inputs of a neuron). */
static void randomize(float *values, int number, int inputs) {
  const float bound = 1 / __builtin_sqrtf((float)inputs);
  for (int i = 0; i < number; i++) values[i] = ((float)(random_bits() >> 8) / (1 << 23) - 1) * bound;
}

// ---- Matrix products

/** sums (rows × columns) += left (rows × inner) · right (inner × columns). rows: a multiple of 4; columns: of 8.
 * Left may lie transposed in memory: to its next row it is `down` numbers, to its next column `across`. */
static void multiply(const float *left, int down, int across, const float *right, float *sums, int rows, int inner, int columns) {
  for (int column = 0; column < columns; column += 8)
    for (int row = 0; row < rows; row += 4) {
      const float *l = left + row * down, *r = right + column;
      float *s = sums + row * columns + column;
      Vector tile[4][2];
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) tile[i][j] = VECTOR(s + i * columns + 4 * j);
      for (int k = 0; k < inner; k++, l += across, r += columns)
        for (int i = 0; i < 4; i++)
          for (int j = 0; j < 2; j++) tile[i][j] += l[i * down] * CONSTANT(r + 4 * j);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) VECTOR(s + i * columns + 4 * j) = tile[i][j];
    }
}

// ---- Layers

static void clear(float *values, int number) {
  for (int i = 0; i < number; i++) values[i] = 0;
}

/** The input pixel that a tap of the kernel sees from an output pixel, or −1 outside of the map. */
static int seen(const Layer *layer, int pixel, int tap) {
  const int row = pixel / layer->out_side + tap / layer->kernel - layer->padding;
  const int column = pixel % layer->out_side + tap % layer->kernel - layer->padding;
  const int side = layer->in_side;
  return row < 0 || column < 0 || row >= side || column >= side ? -1 : row * side + column;
}

static void convolve(const Layer *layer, const float *in, const float *kernel, float *out, int rows) {
  const int pixels = layer->out_side * layer->out_side, taps = layer->kernel * layer->kernel;
  clear(out, pixels * BATCH * layer->out);
  for (int pixel = 0; pixel < pixels; pixel++)
    for (int tap = 0; tap < taps; tap++) {
      const int from = seen(layer, pixel, tap);
      if (from < 0) continue;
      const float *weight = kernel + tap * layer->in * layer->out;
      multiply(in + from * BATCH * layer->in, layer->in, 1, weight, out + pixel * BATCH * layer->out, rows, layer->in, layer->out);
    }
}

/** From the gradient of the loss with respect to a layer's output: that for its kernel, and unless it is NULL that for its input. */
static void convolve_backward(const Layer *layer, const float *in, const float *kernel, const float *out_gradient,
                              float *kernel_gradient, float *in_gradient) {
  static float turned[16 * 64 * LOGITS > 9 * 32 * 64 ? 16 * 64 * LOGITS : 9 * 32 * 64]; // [tap][output channel][input channel]
  const int pixels = layer->out_side * layer->out_side, taps = layer->kernel * layer->kernel, size = layer->in * layer->out;
  clear(kernel_gradient, taps * size);
  if (in_gradient) clear(in_gradient, layer->in_side * layer->in_side * BATCH * layer->in);
  for (int tap = 0; tap < taps; tap++)
    for (int i = 0; i < layer->in; i++)
      for (int j = 0; j < layer->out; j++) turned[tap * size + j * layer->in + i] = kernel[tap * size + i * layer->out + j];
  for (int pixel = 0; pixel < pixels; pixel++)
    for (int tap = 0; tap < taps; tap++) {
      const int from = seen(layer, pixel, tap);
      if (from < 0) continue;
      const float *gradient = out_gradient + pixel * BATCH * layer->out;
      multiply(in + from * BATCH * layer->in, 1, layer->in, gradient, kernel_gradient + tap * size, layer->in, BATCH, layer->out);
      if (!in_gradient) continue;
      multiply(gradient, layer->out, 1, turned + tap * size, in_gradient + from * BATCH * layer->in, BATCH, layer->out, layer->in);
    }
}

/** The largest of each 2×2 pixels: 8×8 → 4×4. */
static void pool(void) {
  for (int pixel = 0; pixel < 16; pixel++) {
    const int first = pixel / 4 * 16 + pixel % 4 * 2; // of the four
    float *four[4] = {maps2[first][0], maps2[first + 1][0], maps2[first + 8][0], maps2[first + 9][0]}, *out = pooled2[pixel][0];
    for (int i = 0; i < BATCH * 32; i++) {
      const float upper = four[0][i] > four[1][i] ? four[0][i] : four[1][i], lower = four[2][i] > four[3][i] ? four[2][i] : four[3][i];
      out[i] = upper > lower ? upper : lower;
    }
  }
}

/** The gradient goes to the first of the four pixels that is the largest. */
static void pool_backward(void) {
  for (int pixel = 0; pixel < 16; pixel++) {
    const int first = pixel / 4 * 16 + pixel % 4 * 2, four[4] = {first, first + 1, first + 8, first + 9};
    for (int i = 0; i < BATCH * 32; i += 4) {
      const Vector most = CONSTANT(pooled2[pixel][0] + i);
      Mask left = (Mask)CONSTANT(pooled_gradient2[pixel][0] + i);
      for (int k = 0; k < 4; k++) {
        const Mask is = CONSTANT(maps2[four[k]][0] + i) == most;
        VECTOR(gradient2[four[k]][0] + i) = (Vector)(left & is);
        left &= ~is;
      }
    }
  }
}

/** Batch norm, then ReLU. In training, the mean and variance of each channel are the batch's; else they are the running ones. */
static void normalize(const float *in, float *out, int pixels, int channels, const float *gain, const float *shift,
                      Statistics *s, int rows, int is_training) {
  const float count = (float)(pixels * rows);
  for (int c = 0; c < channels; c += 4) {
    Vector mean = CONSTANT(s->running_mean + c), variance = CONSTANT(s->running_variance + c);
    if (is_training) {
      Vector sum = {0}, squares = {0};
      for (int pixel = 0; pixel < pixels; pixel++) {
        Vector part = {0}; // adding up few numbers at a time keeps rounding errors small
        for (int row = 0; row < rows; row++) part += CONSTANT(in + (pixel * BATCH + row) * channels + c);
        sum += part;
      }
      mean = sum / count;
      for (int pixel = 0; pixel < pixels; pixel++) {
        Vector part = {0};
        for (int row = 0; row < rows; row++) {
          const Vector apart = CONSTANT(in + (pixel * BATCH + row) * channels + c) - mean;
          part += apart * apart;
        }
        squares += part;
      }
      variance = squares / count;
      VECTOR(s->running_mean + c) += AVERAGING * (mean - CONSTANT(s->running_mean + c));
      VECTOR(s->running_variance + c) += AVERAGING * (squares / (count - 1) - CONSTANT(s->running_variance + c));
    }
    VECTOR(s->mean + c) = mean;
    VECTOR(s->variance + c) = variance;
    Vector scale;
    for (int k = 0; k < 4; k++) scale[k] = gain[c + k] / __builtin_sqrtf(variance[k] + EPSILON);
    for (int pixel = 0; pixel < pixels; pixel++)
      for (int row = 0; row < rows; row++) {
        const int i = (pixel * BATCH + row) * channels + c;
        const Vector value = (CONSTANT(in + i) - mean) * scale + CONSTANT(shift + c);
        VECTOR(out + i) = (Vector)((Mask)value & (value > 0));
      }
  }
}

/** In place: from the gradient with respect to the output of normalize() to that with respect to its input. */
static void normalize_backward(const float *in, const float *out, float *gradient, int pixels, int channels,
                               const float *gain, const Statistics *s, float *gain_gradient, float *shift_gradient) {
  const float count = (float)(pixels * BATCH);
  for (int c = 0; c < channels; c += 4) {
    const Vector mean = CONSTANT(s->mean + c);
    Vector inverse, sum = {0}, products = {0};
    for (int k = 0; k < 4; k++) inverse[k] = 1 / __builtin_sqrtf(s->variance[c + k] + EPSILON);
    for (int pixel = 0; pixel < pixels; pixel++) {
      Vector part = {0}, part_products = {0};
      for (int row = 0; row < BATCH; row++) {
        const int i = (pixel * BATCH + row) * channels + c;
        const Vector value = (Vector)((Mask)CONSTANT(gradient + i) & (CONSTANT(out + i) > 0)); // ReLU's
        VECTOR(gradient + i) = value;
        part += value;
        part_products += value * ((CONSTANT(in + i) - mean) * inverse);
      }
      sum += part;
      products += part_products;
    }
    VECTOR(shift_gradient + c) = sum;
    VECTOR(gain_gradient + c) = products;
    for (int pixel = 0; pixel < pixels; pixel++)
      for (int row = 0; row < BATCH; row++) {
        const int i = (pixel * BATCH + row) * channels + c;
        const Vector normal = (CONSTANT(in + i) - mean) * inverse;
        VECTOR(gradient + i) = CONSTANT(gain + c) * inverse * (CONSTANT(gradient + i) - sum / count - normal * products / count);
      }
  }
}

// ---- The network

/** Patches of 5×5 pixels, two apart, of a normalized image of 24×24. */
static void put(int row, const float *pixels) {
  for (int pixel = 0; pixel < 100; pixel++) {
    const float *corner = pixels + pixel / 10 * 2 * SIDE + pixel % 10 * 2;
    for (int tap = 0; tap < 25; tap++) patches[pixel][row][tap] = corner[tap / 5 * SIDE + tap % 5];
  }
}

static float mean_pixel, deviation; // of all training pixels, from 0 to 1

static void put_image(int row, int image) {
  float pixels[SIDE * SIDE], level[16];
  for (int k = 0; k < 16; k++) level[k] = (k / 15.0f - mean_pixel) / deviation;
  for (int i = 0; i < PACKED; i++) {
    pixels[2 * i] = level[images[image][i] >> 4];
    pixels[2 * i + 1] = level[images[image][i] & 15];
  }
  put(row, pixels);
}

/** The logits of the first `rows` images in `patches`. */
static void forward(int rows, int is_training) {
  convolve(&CONV1, patches[0][0], weights.conv1[0], maps1[0][0], rows);
  normalize(maps1[0][0], active1[0][0], 100, 16, weights.gain1, weights.shift1, &statistics1, rows, is_training);
  convolve(&CONV2, active1[0][0], weights.conv2[0][0], maps2[0][0], rows);
  pool();
  normalize(pooled2[0][0], active2[0][0], 16, 32, weights.gain2, weights.shift2, &statistics2, rows, is_training);
  convolve(&CONV3, active2[0][0], weights.conv3[0][0], maps3[0][0], rows);
  normalize(maps3[0][0], active3[0][0], 16, 64, weights.gain3, weights.shift3, &statistics3, rows, is_training);
  convolve(&LINEAR, active3[0][0], weights.linear[0][0], logits[0], rows);
  for (int row = 0; row < rows; row++)
    for (int k = 0; k < CLASSES; k++) logits[row][k] += weights.bias[k];
}

/** The gradients of all parameters, from logits_gradient. */
static void backward(void) {
  clear(gradients.bias, LOGITS);
  for (int row = 0; row < BATCH; row++)
    for (int k = 0; k < CLASSES; k++) gradients.bias[k] += logits_gradient[row][k];
  convolve_backward(&LINEAR, active3[0][0], weights.linear[0][0], logits_gradient[0], gradients.linear[0][0], gradient3[0][0]);
  normalize_backward(maps3[0][0], active3[0][0], gradient3[0][0], 16, 64, weights.gain3,
                     &statistics3, gradients.gain3, gradients.shift3);
  convolve_backward(&CONV3, active2[0][0], weights.conv3[0][0], gradient3[0][0], gradients.conv3[0][0], pooled_gradient2[0][0]);
  normalize_backward(pooled2[0][0], active2[0][0], pooled_gradient2[0][0], 16, 32, weights.gain2,
                     &statistics2, gradients.gain2, gradients.shift2);
  pool_backward();
  convolve_backward(&CONV2, active1[0][0], weights.conv2[0][0], gradient2[0][0], gradients.conv2[0][0], gradient1[0][0]);
  normalize_backward(maps1[0][0], active1[0][0], gradient1[0][0], 100, 16, weights.gain1,
                     &statistics1, gradients.gain1, gradients.shift1);
  convolve_backward(&CONV1, patches[0][0], weights.conv1[0], gradient1[0][0], gradients.conv1[0], NULL);
}

/** The mean cross-entropy of the batch. Writes the gradient of the same with smoothed labels. */
static double cross_entropy(void) {
  double loss = 0;
  for (int row = 0; row < BATCH; row++) {
    const int label = labels[batch[row]];
    double most = logits[row][0], powers[CLASSES], sum = 0;
    for (int k = 1; k < CLASSES; k++) most = logits[row][k] > most ? logits[row][k] : most;
    for (int k = 0; k < CLASSES; k++) sum += powers[k] = exponential(logits[row][k] - most);
    loss += logarithm(sum) - (logits[row][label] - most);
    for (int k = 0; k < CLASSES; k++) {
      const double target = LABEL_SMOOTHING / CLASSES + (k == label ? 1 - LABEL_SMOOTHING : 0);
      logits_gradient[row][k] = (float)((powers[k] / sum - target) / BATCH);
    }
  }
  return loss / BATCH;
}

// ---- What sprint.mjs calls

EXPORT("images") uint8_t *images_place(void) { return images[0]; }
EXPORT("labels") uint8_t *labels_place(void) { return labels; }
EXPORT("drawing") uint8_t *drawing_place(void) { return drawing; }
EXPORT("weights") float *weights_place(void) { return (float *)&weights; }
EXPORT("gradients") float *gradients_place(void) { return (float *)&gradients; }
/** The running mean and variance of a batch norm, 0 to 2: two times 64 floats. */
EXPORT("statistics") float *statistics_place(int layer) { return (Statistics *[]){&statistics1, &statistics2, &statistics3}[layer]->running_mean; }
/** The maps after a ReLU, 0 to 2. */
EXPORT("maps") float *maps_place(int layer) { return (float *[]){active1[0][0], active2[0][0], active3[0][0]}[layer]; }
EXPORT("logits") float *logits_place(void) { return logits[0]; }
EXPORT("order") int *order_place(void) { return order; }

/** PyTorch's OneCycleLR: a cosine from a tenth up to the highest rate, and one from there down to a thousandth of it. */
EXPORT("learning_rate") double learning_rate(int step) {
  const double top = WARMUP * step_count - 1, end = step_count - 1, most = LEARNING_RATE;
  const double from = step <= top ? most / 10 : most, to = step <= top ? most : most / 1000;
  const double part = step <= top ? step / top : (step - top) / (end - top);
  return to + (from - to) / 2 * (1 + cosine(PI * part));
}

/** New weights and a new order of the first `count` images, by a seed. Returns the number of steps. */
EXPORT("start") int start(uint32_t seed, int count, float mean, float std) {
  random_state = seed;
  mean_pixel = mean;
  deviation = std;
  step_number = 0;
  step_count = count / BATCH;
  clear((float *)&weights, NUMBERS);
  clear((float *)&velocities, NUMBERS);
  randomize(weights.conv1[0], 25 * 16, 25);
  randomize(weights.conv2[0][0], 9 * 16 * 32, 9 * 16);
  randomize(weights.conv3[0][0], 9 * 32 * 64, 9 * 32);
  for (int i = 0; i < 16 * 64; i++) randomize(weights.linear[0][i], CLASSES, 16 * 64);
  randomize(weights.bias, CLASSES, 16 * 64);
  for (int c = 0; c < 64; c++) {
    statistics1.running_mean[c] = statistics2.running_mean[c] = statistics3.running_mean[c] = 0;
    statistics1.running_variance[c] = statistics2.running_variance[c] = statistics3.running_variance[c] = 1;
    weights.gain3[c] = weights.gain2[c / 2] = weights.gain1[c / 4] = 1;
  }
  for (int i = 0; i < count; i++) order[i] = i;
  for (int i = count - 1; i > 0; i--) {
    const int other = (int)((uint64_t)random_bits() * (i + 1) >> 32), kept = order[i];
    order[i] = order[other];
    order[other] = kept;
  }
  return step_count;
}

/** One step of Nesterov SGD. Returns the loss of its batch before the step. */
EXPORT("step") double step(void) {
  for (int row = 0; row < BATCH; row++) put_image(row, batch[row] = order[step_number * BATCH + row]);
  forward(BATCH, 1);
  const double loss = cross_entropy();
  backward();
  const float rate = (float)learning_rate(step_number++);
  float *weight = (float *)&weights, *gradient = (float *)&gradients, *velocity = (float *)&velocities;
  for (int i = 0; i < NUMBERS; i++) {
    const float slope = gradient[i] + (i < MATRICES ? WEIGHT_DECAY * weight[i] : 0);
    velocity[i] = MOMENTUM * velocity[i] + slope;
    weight[i] -= rate * (slope + MOMENTUM * velocity[i]);
  }
  return loss;
}

/** How many of `count` ≤ 128 images from `first` on are read right. */
EXPORT("correct") int correct(int first, int count) {
  int right = 0;
  for (int row = 0; row < count; row++) put_image(row, first + row);
  forward((count + 3) / 4 * 4, 0);
  for (int row = 0; row < count; row++) {
    int best = 0;
    for (int k = 1; k < CLASSES; k++) best = logits[row][k] > logits[row][best] ? k : best;
    right += best == labels[first + row];
  }
  return right;
}

/** The logits and the maps of the image in `drawing`, 28×28 pixels from 0 to 255. */
EXPORT("look") void look(void) {
  float pixels[SIDE * SIDE];
  for (int i = 0; i < SIDE * SIDE; i++) pixels[i] = (drawing[(i / SIDE + 2) * 28 + i % SIDE + 2] / 255.0f - mean_pixel) / deviation;
  put(0, pixels);
  forward(4, 0);
}
