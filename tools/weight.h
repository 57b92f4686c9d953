/* Weight number i in steps: so many bits, and 0 in the middle. */
static inline int NAME_weight(const unsigned char *weights, int bits, int i)
{
    int at = i * bits;
    return ((weights[at >> 3] | weights[(at >> 3) + 1] << 8) >> (at & 7) & ((1 << bits) - 1)) - (1 << bits) / 2 + 1;
}
