// The reader's own networks, next to the published ones: trained here, or read from a picture.

/** The numbers of a network of the architecture `sprint`, in the places where the blocks of a published one have theirs: a Float32Array.
 * A batch norm that follows a convolution is one with it there. state: PyTorch's names → {data}. */
export function sprintValues({ blocks, weights }, state) {
  const values = new Float32Array(weights.bytes / 4);
  const put = (place, data) => values.set(data, place.offset);
  const norm = (name) => {
    const [gain, shift, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map((part) => state[`${name}.${part}`].data);
    const scale = gain.map((value, i) => value / Math.sqrt(variance[i] + 1e-5));
    return { scale, shift: shift.map((value, i) => value - mean[i] * scale[i]) };
  };
  const kernels = blocks.filter(({ kind }) => kind === "conv");
  ["1", "4", "8"].forEach((name, i) => {
    const { kernel, bias } = kernels[i];
    const { data } = state[`${name}.weight`];
    const { scale, shift } = norm({ 1: "2", 4: "6", 8: "9" }[name]);
    put(kernel, bias ? data.map((value, at) => value * scale[Math.floor((at * scale.length) / data.length)]) : data);
    if (bias) put(bias, shift);
  });
  for (const { kind, ...block } of blocks) {
    if (kind === "norm") for (const part of ["scale", "shift"]) put(block[part], norm("6")[part]);
    if (kind === "linear") put(block.kernel, state["13.weight"].data), put(block.bias, state["13.bias"].data);
  }
  return values;
}
