/* activations.h - the activations that a call may have in place of a cell's own: those of ONNX's operators RNN, GRU and LSTM, and their
 * slopes, for the vectors of a tile.
 *
 *     kind                  y                                   slope, of y
 *     FR_TANH               tanh(x)                             1 - y^2
 *     FR_SIGMOID            1 / (1 + exp(-x))                   y - y^2
 *     FR_RELU               max(0, x)                           y > 0
 *     FR_LEAKY_RELU         x < 0 ? alpha x : x                 y > 0 ? 1 : alpha
 *     FR_THRESHOLDED_RELU   x >= alpha ? x : 0                  y != 0
 *     FR_AFFINE             alpha x + beta                      alpha
 *     FR_SCALED_TANH        alpha tanh(beta x)                  alpha beta (1 - (y / alpha)^2)
 *     FR_HARD_SIGMOID       min(1, max(0, alpha x + beta))      0 < y < 1 ? alpha : 0
 *     FR_ELU                x < 0 ? alpha (exp(x) - 1) : x      y > 0 ? 1 : y + alpha
 *     FR_SOFTSIGN           x / (1 + |x|)                       (1 - |y|)^2
 *     FR_SOFTPLUS           log(1 + exp(x))                     1 - exp(-y)
 *
 * A slope is a function of the value, because the values are what forward saves. With a negative alpha FR_LEAKY_RELU and FR_ELU have
 * the same values on both sides of 0: their slopes are not for these. NaN stays NaN. The choice stands outside of the loops over vectors.
 */
#ifndef FR_ACTIVATIONS_H
#define FR_ACTIVATIONS_H
#include "fastrnn.h"
#include "simd/vmath.h"

/* Does this call have activations of its own? */
static inline int has_activations(const fr_call *t)
{
    return t->activation[0].kind != FR_USUAL;
}

/* max(0, x): -0 stays -0, where processors disagree about the maximum of two zeros. */
FR_INLINE vec v_ramp(vec x)
{
    return v_select_gt(v_zero(), x, v_zero(), x);
}

/* x is what stands in each of `vectors` vectors side by side, in each of some rows that are four vectors apart. */
#define EACH_VECTOR(result)                                                   \
    for (int r = 0; r < rows; r++)                                            \
        for (ptrdiff_t i = r * 4 * W; i < (r * 4 + vectors) * W; i += W) {    \
            const vec x = v_load(from + i);                                   \
            v_store(to + i, result);                                          \
        }                                                                     \
    break

/* From preactivations to values, which may stand in the same place. */
static NOINLINE void activate(const fr_activation *f, const REAL *from, REAL *to, int rows, int vectors)
{
    const vec alpha = v_set1((REAL)f->alpha), beta = v_set1((REAL)f->beta), zero = v_zero(), one = v_set1(1);
    switch (f->kind) {
    case FR_TANH: EACH_VECTOR(v_tanh(x));
    case FR_SIGMOID: EACH_VECTOR(v_sigmoid(x));
    case FR_RELU: EACH_VECTOR(v_ramp(x));
    case FR_LEAKY_RELU: EACH_VECTOR(v_select_gt(zero, x, alpha * x, x));
    case FR_THRESHOLDED_RELU: EACH_VECTOR(v_select_gt(alpha, x, zero, x));
    case FR_AFFINE: EACH_VECTOR(v_fma(alpha, x, beta));
    case FR_SCALED_TANH: EACH_VECTOR(alpha * v_tanh(beta * x));
    case FR_HARD_SIGMOID: EACH_VECTOR(v_min(one, v_ramp(v_fma(alpha, x, beta))));
    case FR_ELU: EACH_VECTOR(v_select_gt(zero, x, alpha * v_expm1_negative(x), x));
    case FR_SOFTSIGN: EACH_VECTOR(v_softsign(x));
    case FR_SOFTPLUS: EACH_VECTOR(v_softplus(x));
    }
}

/* From the values to the slopes. */
static NOINLINE void slopes(const fr_activation *f, const REAL *from, REAL *to, int rows, int vectors)
{
    const double scale = f->alpha != 0 ? 1 / f->alpha : 0;
    const vec alpha = v_set1((REAL)f->alpha), zero = v_zero(), one = v_set1(1);
    const vec steepest = v_set1((REAL)(f->alpha * f->beta)), to_one = v_set1((REAL)scale);
    switch (f->kind) {
    case FR_TANH: EACH_VECTOR(v_dtanh(x));
    case FR_SIGMOID: EACH_VECTOR(v_dsigmoid(x));
    case FR_RELU: EACH_VECTOR(v_select_gt(x, zero, one, zero));
    case FR_LEAKY_RELU: EACH_VECTOR(v_select_gt(x, zero, one, alpha));
    case FR_THRESHOLDED_RELU: EACH_VECTOR(v_select_gt(v_abs(x), zero, one, zero));
    case FR_AFFINE: EACH_VECTOR(((void)x, alpha));
    case FR_SCALED_TANH: EACH_VECTOR(steepest * v_dtanh(x * to_one));
    case FR_HARD_SIGMOID: EACH_VECTOR(v_select_gt(x, zero, v_select_gt(one, x, alpha, zero), zero));
    case FR_ELU: EACH_VECTOR(v_select_gt(x, zero, one, x + alpha));
    case FR_SOFTSIGN: EACH_VECTOR((one - v_abs(x)) * (one - v_abs(x)));
    case FR_SOFTPLUS: EACH_VECTOR(-v_expm1_negative(-x));
    }
}
#undef EACH_VECTOR

#endif
