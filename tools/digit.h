/* Which digit 28 x 28 pixels show, row after row, each from 0 (black, the background) to 255.
 * scores: room for ten numbers, of which the digit's will be the largest, or 0. */
static inline int NAME_digit(const unsigned char *pixels, float *scores)
{
    static float values[LENGTH];
    int best = 0;
    for (int i = 0; i < 784; i++)
        values[i] = (pixels[i] / 255.0f - MEAN) / STD;
STEPS
    for (int i = 0; i < 10; i++) {
        if (scores)
            scores[i] = values[LAST + i];
        if (values[LAST + i] > values[LAST + best])
            best = i;
    }
    return best;
}
