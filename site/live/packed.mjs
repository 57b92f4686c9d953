// A network in few bytes, as utils/runs/packed.py writes it: its numbers go to the places where the page's blocks read them.

const [VERSION, VECTOR_LEVELS, MILLION, PIXELS, HALVES] = [1, 64, 1e6, 2 ** 20, 2 ** 16]; // as there

/** The normalization and the values of a network; null for a file of another network, or a damaged one. network: an entry of
 * networks.json whose `packed` lists the numbers of the file, in its order. */
export function unpack(content, { model, packed, weights }) {
  const [body, levels] = [content.subarray(4), content[1]];
  if (content[0] !== VERSION || levels !== packed?.levels || checksum(model, levels, body) !== content[2] + 256 * content[3]) return null;
  const numbers = new Numbers(body);
  const [mean, std] = numbers.whole(2, PIXELS).map((value) => value / MILLION);
  const values = new Float32Array(weights.bytes / 4);
  for (const { to, scales, shape, levels: own } of packed.numbers) {
    const size = shape.reduce((a, b) => a * b);
    const [low, step] = own ? [0, ...numbers.whole(1, HALVES).map(half)] : numbers.whole(2, HALVES).map(half);
    const whole = own ? numbers.counted(size, own).map((code) => code - Math.floor(own / 2)) : numbers.whole(size, VECTOR_LEVELS);
    const data = whole.map((code) => Math.fround(low + Math.fround(step * code)));
    if (to) values.set(data, to.offset);
    if (scales) { // a factor for each channel of a kernel that is there already
      const each = scales.shape.reduce((a, b) => a * b) / size;
      data.forEach((factor, channel) => { for (let i = 0; i < each; i++) values[scales.offset + channel * each + i] *= factor; });
    }
  }
  return { normalization: { mean, std }, values };
}

/** Takes one number after the other from a large whole number (asymmetric numeral systems: see packed.py). */
class Numbers {
  constructor(body) {
    const digits = Array.from(body, (byte) => byte.toString(16).padStart(2, "0")).reverse();
    this.state = BigInt(`0x0${digits.join("")}`);
  }

  /** The next `count` equally likely numbers from 0. */
  whole(count, below) {
    return Array.from({ length: count }, () => {
      const value = Number(this.state % BigInt(below));
      this.state /= BigInt(below);
      return value;
    });
  }

  /** The next `count` symbols. Its probability is its share of the symbols so far. */
  counted(count, levels) {
    const counts = Array.from({ length: levels }, (_, symbol) => 1 + Math.min(symbol, levels - 1 - symbol));
    let sum = counts.reduce((a, b) => a + b);
    return Array.from({ length: count }, () => {
      const remainder = Number(this.state % BigInt(sum));
      let [symbol, first] = [0, 0];
      while (first + counts[symbol] <= remainder) first += counts[symbol++];
      this.state = (this.state / BigInt(sum)) * BigInt(counts[symbol]) + BigInt(remainder - first);
      counts[symbol]++;
      sum++;
      return symbol;
    });
  }
}

/** A float16, given as its bits. */
function half(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}

/** The CRC-16 of a network's name, its number of levels and the body (CCITT, from 0). */
function checksum(name, levels, body) {
  let crc = 0;
  for (const byte of [...new TextEncoder().encode(name.replaceAll(" ", "")), levels, ...body]) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = ((crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
  }
  return crc;
}
