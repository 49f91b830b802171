// h = a h + (1 - a) x with a = sigmoid(gate), one thread a row and channel.
// x, gate, h: [rows, length, width]; state: [rows, width], read and left.

extern "C" __global__ void {{crate}}_forward(
    const float *x, const float *gate, float *h, float *state, int rows, int length, int width)
{
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= rows * width) {
        return;
    }
    int row = index / width, channel = index % width;
    float value = state[index];
    for (int t = 0; t < length; ++t) {
        long long at = ((long long)row * length + t) * width + channel;
        float a = 1.0f / (1.0f + expf(-gate[at]));
        value = a * value + (1.0f - a) * x[at];
        h[at] = value;
    }
    state[index] = value;
}

extern "C" __global__ void {{crate}}_backward(
    const float *x, const float *gate, const float *h, const float *grad_h, float *grad_x,
    float *grad_gate, int rows, int length, int width)
{
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= rows * width) {
        return;
    }
    int row = index / width, channel = index % width;
    float carried = 0.0f;
    for (int t = length - 1; t >= 0; --t) {
        long long at = ((long long)row * length + t) * width + channel;
        float a = 1.0f / (1.0f + expf(-gate[at]));
        float before = t == 0 ? 0.0f : h[at - width];
        float g = grad_h[at] + carried;
        carried = g * a;
        grad_x[at] = g * (1.0f - a);
        grad_gate[at] = g * (before - x[at]) * a * (1.0f - a);
    }
}
