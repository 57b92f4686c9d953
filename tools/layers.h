/* Channels x height x width numbers in, as many or others out; out may be in, except in NAME_convolve, NAME_largest and NAME_window. */

static inline void NAME_convolve(const float *in, int height, int width, float *out, int out_height, int out_width, int channels,
                                 int filters, int groups, int kernel_height, int kernel_width, int stride, int top, int left,
                                 STORED)
{
    int per_group = channels / groups, next = 0;
    for (int filter = 0; filter < filters; filter++) {
        float *to = out + filter * out_height * out_width;
        for (int i = 0; i < out_height * out_width; i++)
            to[i] = 0;
        for (int channel = 0; channel < per_group; channel++) {
            const float *from = in + (filter / (filters / groups) * per_group + channel) * height * width;
            for (int row = 0; row < kernel_height; row++)
                for (int column = 0; column < kernel_width; column++) {
                    float weight = WEIGHT;
                    if (weight == 0)
                        continue;
                    int first = column < left ? (left - column + stride - 1) / stride : 0;
                    int end = (width - 1 + left - column) / stride + 1;
                    for (int y = 0; y < out_height; y++) {
                        int from_y = y * stride + row - top;
                        if (from_y < 0 || from_y >= height)
                            continue;
                        for (int x = first; x < end && x < out_width; x++)
                            to[y * out_width + x] += weight * from[from_y * width + x * stride + column - left];
                    }
                }
        }
    }
}

/* Batch norm: factor times in, plus shift, or a bias, where there are no factors. */
static inline void NAME_affine(const float *in, float *out, int channels, int size, const float *factor, const float *shift)
{
    for (int i = 0; i < channels * size; i++)
        out[i] = (factor ? factor[i / size] * in[i] : in[i]) + shift[i / size];
}

static inline void NAME_relu(const float *in, float *out, int size)
{
    for (int i = 0; i < size; i++)
        out[i] = in[i] > 0 ? in[i] : 0;
}

static inline void NAME_add(const float *in, const float *other, float *out, int size)
{
    for (int i = 0; i < size; i++)
        out[i] = in[i] + other[i];
}

/* Max-pooling. */
static inline void NAME_largest(const float *in, int height, int width, float *out, int out_height, int out_width, int channels,
                                int kernel_height, int kernel_width, int stride)
{
    for (int i = 0; i < channels * out_height * out_width; i++) {
        int channel = i / (out_height * out_width), y = i / out_width % out_height * stride, x = i % out_width * stride;
        const float *from = in + (channel * height + y) * width + x;
        out[i] = from[0];
        for (int row = 0; row < kernel_height; row++)
            for (int column = 0; column < kernel_width; column++)
                if (from[row * width + column] > out[i])
                    out[i] = from[row * width + column];
    }
}

static inline void NAME_average(const float *in, float *out, int channels, int size)
{
    for (int channel = 0; channel < channels; channel++) {
        float sum = 0;
        for (int i = 0; i < size; i++)
            sum += in[channel * size + i];
        out[channel] = sum / size;
    }
}

/* What lies from (top, left) on; 0 where that is outside. */
static inline void NAME_window(const float *in, int height, int width, float *out, int out_height, int out_width, int channels, int top,
                               int left)
{
    for (int i = 0; i < channels * out_height * out_width; i++) {
        int channel = i / (out_height * out_width), y = i / out_width % out_height + top, x = i % out_width + left;
        out[i] = y < 0 || y >= height || x < 0 || x >= width ? 0 : in[(channel * height + y) * width + x];
    }
}
