// SPDX-License-Identifier: Apache-2.0
// Slopes of activations that take more than a line; R and the functions in capitals are defined by who includes it.

/* y = x/2 (1 + t), t = tanh(u), u = √(2/π)(x + 0.044715 x³): y' = (1 + t)/2 + x/2 (1 − t²) u'. */
static inline R gelu_tanh_slope(R x)
{
    R q = x * x * (R)0.044715;
    R t = TANH((R)0.7978845608028654 * x * (1 + q));
    R slope = (R)0.7978845608028654 * (1 + 3 * q);
    return (R)0.5 * (1 + t) + (R)0.5 * x * (1 - t * t) * slope;
}
/* y = x s, s = Sigmoid(k x): y' = s + k x s (1 − s). */
static inline R swish_slope(R x, R k)
{
    R s = SIGMOID(k * x);
    return s + k * x * s * (1 - s);
}
/* y = x t, t = tanh(Softplus(x)): y' = t + x (1 − t²) Sigmoid(x). */
static inline R mish_slope(R x)
{
    R t = TANH(SOFTPLUS(x));
    return t + x * (1 - t * t) * SIGMOID(x);
}
