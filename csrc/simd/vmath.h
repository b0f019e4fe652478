/* vmath.h - exp, tanh and sigmoid of a vector, without branches, and the derivatives of the last two; and what other activations need:
 * softplus, softsign, and exp(x) - 1 for x <= 0.
 *
 *     x           v_exp       v_tanh      v_sigmoid
 *     NaN         NaN         NaN         NaN
 *     +inf        +inf        +1          1
 *     -inf        0           -1          0
 *     +0, -0      1           +0, -0      1/2
 *     tiny        1           x           1/2
 *     large       +inf        +-1         1 or 0
 *
 * At most 2 ulp where the result is in the normal range, below it the result or zero; tanh is odd bit for
 * bit; all three are monotone, and so |tanh| <= 1 and 0 <= sigmoid <= 1. The C self-test tries every float32.
 * The others: at most 4 ulp, and NaN stays NaN.
 * The steps are the same for every instruction set with a fused v_fma, and so are the bits.
 *
 * Why monotone: what follows the polynomial is a chain of rounded operations, each of which is monotone and
 * has one operand that varies; and the polynomial is x plus less: its errors are small beside the steps of x.
 * Therefore tanh is 1 - 2 / (exp(2|x|) + 1), and not the shorter e / (e + 2) with e = expm1(2|x|),
 * whose numerator and denominator are rounded apart. Close to zero that cancels; there it is
 * x plus a small odd polynomial.
 *
 * Exponentials: n = round(x / ln2) by adding MAGIC = 1.5 * 2^MANTISSA + bias, which leaves n + bias in the
 * low bits; shifted into the exponent's place they are 2^n. r = x - n ln2 takes two steps (Cody and Waite
 * 1980): n times LN2_HI is exact, with no need of a fused multiply-add. The polynomials are near-minimax, by
 *
 * csrc/tools/vmath_coefficients.py.
 */

#ifndef FR_VMATH_H
#define FR_VMATH_H
#include "simd/simd.h"

#define VM_LENGTH(c) ((int)(sizeof(c) / sizeof(c)[0]))
#define VM_LOG2E 0x1.71547652b82fep+0
#define VM_LN2 0x1.62e42fefa39efp-1

/*  VM_EXP_MIN, MAX      exp is 0, inf from here
 *  VM_SIGMOID_MIN, MAX  2^n is 0 from here, and so is sigmoid; it rounds to 1 from here
 *  VM_TANH_MAX          tanh rounds to 1 from here
 *  VM_TANH_SMALL        where tanh changes from the polynomial to the exponential */
#if REAL_IS_FLOAT
#define VM_MANTISSA 23
#define VM_MAGIC (0x1.8p23 + 127)
#define VM_LN2_HI 0x1.62e4p-1
#define VM_LN2_LO 0x1.7f7d1cf79abcap-20
#define VM_EXP_MIN (-105)
#define VM_EXP_MAX 89
#define VM_SIGMOID_MIN (-88)
#define VM_SIGMOID_MAX 20
#define VM_TANH_MAX 10
#define VM_TANH_SMALL 0.65
#else
#define VM_MANTISSA 52
#define VM_MAGIC (0x1.8p52 + 1023)
#define VM_LN2_HI 0x1.62e42feep-1
#define VM_LN2_LO 0x1.a39ef35793c76p-33
#define VM_EXP_MIN (-746)
#define VM_EXP_MAX 710
#define VM_SIGMOID_MIN (-709)
#define VM_SIGMOID_MAX 40
#define VM_TANH_MAX 20
#define VM_TANH_SMALL 0.55
#endif

/* exp(r) = 1 + r + r^2 p(r) for |r| <= ln2/2: relative error 2^-28.2, 2^-57.8 */
static const REAL VM_EXP[] = {
#if REAL_IS_FLOAT
    0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558acp-5f, 0x1.12397ep-7f, 0x1.6a5198p-10f,
#else
    0x1.000000000000ap-1, 0x1.5555555555500p-3, 0x1.55555555506b3p-5, 0x1.111111112638ap-7,
    0x1.6c16c1847999bp-10, 0x1.a01a013270933p-13, 0x1.a01999577cc6fp-16, 0x1.71df137df1e3bp-19,
    0x1.28ae03d77ee28p-22, 0x1.ad9b52c9d7d9cp-26,
#endif
};

/* exp(2u) = 1 + u p(u) for |u| <= ln2/4: the error in the tanh that comes of it 2^-25.3, 2^-59.6 */
static const REAL VM_EXP_TWICE[] = {
#if REAL_IS_FLOAT
    0x1.fffffcp+0f, 0x1.fffdc6p+0f, 0x1.555856p+0f, 0x1.5739fcp-1f, 0x1.105894p-2f,
#else
    0x1.0000000000000p+1, 0x1.0000000000008p+1, 0x1.55555555554eap+0, 0x1.5555555551097p-1,
    0x1.111111112b900p-2, 0x1.6c16c1828b901p-4, 0x1.a01a01169c040p-6, 0x1.a0199e18dac6dp-8,
    0x1.71df4fb983ceap-10, 0x1.28a9f9f4b0e1dp-12, 0x1.ad3e29739d59bp-15,
#endif
};

/* tanh(a) = a + a z p(z), z = a^2, for a <= VM_TANH_SMALL: relative error 2^-27.1, 2^-60.5 */
static const REAL VM_TANH[] = {
#if REAL_IS_FLOAT
    -0x1.555524p-2f, 0x1.1103f0p-3f, -0x1.b7cfbap-5f, 0x1.4f5da0p-6f, -0x1.696b9cp-8f,
#else
    -0x1.555555555554fp-2, 0x1.1111111110793p-3, -0x1.ba1ba1b97cf93p-5, 0x1.664f485954341p-6,
    -0x1.226e2f112e856p-7, 0x1.d6d29b1c21b38p-9, -0x1.7d8fcdeb5725dp-10, 0x1.348381fa18149p-11,
    -0x1.e96e17c44ef5bp-13, 0x1.5d6fc2bcde1c4p-14, -0x1.47062e29e2b82p-16,
#endif
};

/* atanh(s) = s + s z p(z), z = s^2, for 0 <= s <= 1/3: relative error 2^-27.7, 2^-59.4 */
static const REAL VM_ATANH[] = {
#if REAL_IS_FLOAT
    0x1.555502p-2f, 0x1.99d1cap-3f, 0x1.1ec06ep-3f, 0x1.1ec918p-3f,
#else
    0x1.5555555555535p-2, 0x1.99999999a071ep-3, 0x1.249249208edf7p-3, 0x1.c71c741ae28cep-4,
    0x1.745cb4408a358p-4, 0x1.3b1dd5743a653p-4, 0x1.10681aa563450p-4, 0x1.efd2a57956182p-5,
    0x1.55cb1a915c342p-5, 0x1.5c5fa7e140dc9p-4,
#endif
};

/* c[0] + c[1] x + ... + c[n-1] x^(n-1) (Horner: the fewest operations; other vectors fill the waits) */
FR_INLINE vec vm_poly(const REAL *c, int n, vec x)
{
    vec y = v_set1(c[n - 1]);
    for (int i = n - 2; i >= 0; i--) y = v_fma(y, x, v_set1(c[i]));
    return y;
}

/* 2^n of t = VM_MAGIC + n: 0 for n = -bias, inf for n = bias + 1 */
FR_INLINE vec vm_pow2(vec t) { return v_from_bits(v_shift_left(v_bits(t), VM_MANTISSA)); }

/* exp(r) - 1 for |r| <= ln2/2 */
FR_INLINE vec vm_expm1_reduced(vec r)
{
    return v_fma(r * r, vm_poly(VM_EXP, VM_LENGTH(VM_EXP), r), r);
}

FR_INLINE vec v_exp(vec x)
{
    const vec magic = v_set1((REAL)VM_MAGIC);
    x = v_min(v_set1(VM_EXP_MAX), v_max(v_set1(VM_EXP_MIN), x));
    const vec n = v_fma(x, v_set1((REAL)VM_LOG2E), magic) - magic;
    const vec r = v_fnma(n, v_set1((REAL)VM_LN2_LO), v_fnma(n, v_set1((REAL)VM_LN2_HI), x));
    /* 2^n in two factors: n reaches beyond the exponents at both ends */
    const vec t = v_fma(n, v_set1((REAL)0.5), magic);
    return (vm_expm1_reduced(r) + v_set1(1)) * vm_pow2(t) * vm_pow2(n - (t - magic) + magic);
}

/* 1 / (1 + exp(-x)) = s / (s + 1 + expm1(r)) with x = n ln2 - r, s = 2^n; s is 0 at the lower end. What
 * s + 1 loses goes to the small summand, or the result would be 2.5 ulp off around x = -MANTISSA ln2. */
FR_INLINE vec v_sigmoid(vec x)
{
    x = v_min(v_set1(VM_SIGMOID_MAX), v_max(v_set1(VM_SIGMOID_MIN), x));
    const vec t = v_fma(x, v_set1((REAL)VM_LOG2E), v_set1((REAL)VM_MAGIC));
    const vec n = t - v_set1((REAL)VM_MAGIC), s = vm_pow2(t);
    const vec r = v_fma(n, v_set1((REAL)VM_LN2_LO), v_fma(n, v_set1((REAL)VM_LN2_HI), -x));
    const vec s1 = s + v_set1(1), lost = s - (s1 - v_set1(1));
    return s / (s1 + (vm_expm1_reduced(r) + lost));
}

FR_INLINE vec v_tanh(vec x)
{
    const vec a = v_abs(x), z = x * x;
    const vec small = v_fma(a * z, vm_poly(VM_TANH, VM_LENGTH(VM_TANH), z), a);

    const vec b = v_min(v_set1(VM_TANH_MAX), a);
    const vec t = v_fma(b, v_set1((REAL)(2 * VM_LOG2E)), v_set1((REAL)VM_MAGIC));
    const vec n = t - v_set1((REAL)VM_MAGIC);
#if FR_FUSED /* n is small, the product exact, and errors of the exponent fade: one step is enough */
    const vec u = v_fnma(n, v_set1((REAL)(VM_LN2 / 2)), b);
#else
    const vec u = v_fnma(n, v_set1((REAL)(VM_LN2_LO / 2)), v_fnma(n, v_set1((REAL)(VM_LN2_HI / 2)), b));
#endif
    const vec e = v_fma(u, vm_poly(VM_EXP_TWICE, VM_LENGTH(VM_EXP_TWICE), u), v_set1(1));
    const vec d = v_fma(vm_pow2(t), e, v_set1(1));
    const vec large = v_set1(1) - v_set1(2) / d;

    const vec y = v_select_gt(a, v_set1((REAL)VM_TANH_SMALL), large, small);
    return v_from_bits(v_bits(y) | (v_bits(x) ^ v_bits(a)));
}

/* For x <= 0: exp(x) = s + s e, with s = 2^n and e = exp(r) - 1. s is 0 at the lower end. */
typedef struct {
    vec s, e;
} vm_exp_parts;

FR_INLINE vm_exp_parts vm_exp_negative(vec x)
{
    x = v_max(v_set1(VM_SIGMOID_MIN), x);
    const vec t = v_fma(x, v_set1((REAL)VM_LOG2E), v_set1((REAL)VM_MAGIC)), n = t - v_set1((REAL)VM_MAGIC);
    const vec r = v_fnma(n, v_set1((REAL)VM_LN2_LO), v_fnma(n, v_set1((REAL)VM_LN2_HI), x));
    return (vm_exp_parts){vm_pow2(t), vm_expm1_reduced(r)};
}

/* exp(x) - 1 for x <= 0, as if x were 0 above: s e + (s - 1). Around 0, where that would cancel, s is 1. */
FR_INLINE vec v_expm1_negative(vec x)
{
    const vm_exp_parts p = vm_exp_negative(v_min(v_zero(), x));
    return v_fma(p.s, p.e, p.s - v_set1(1));
}

/* max(0, x) + log(1 + e), e = exp(-|x|): log(1 + e) = 2 atanh(e / (2 + e)), which keeps the digits of a small e. */
FR_INLINE vec v_softplus(vec x)
{
    const vm_exp_parts p = vm_exp_negative(-v_abs(x));
    const vec e = (p.e + v_set1(1)) * p.s, s = e / (v_set1(2) + e), z = s * s;
    const vec half = v_fma(s * z, vm_poly(VM_ATANH, VM_LENGTH(VM_ATANH), z), s);
    return v_fma(v_set1(2), half, v_max(v_zero(), x));
}

/* x / (1 + |x|), with infinities cut to what gives +-1 */
FR_INLINE vec v_softsign(vec x)
{
    x = v_min(v_set1((REAL)0x1p100), v_max(v_set1((REAL)-0x1p100), x));
    return x / (v_set1(1) + v_abs(x));
}

/* The derivatives, by the values: y (1 - y) of a sigmoid, 1 - y^2 of a tanh. */
FR_INLINE vec v_dsigmoid(vec y)
{
    return v_fnma(y, y, y);
}
FR_INLINE vec v_dtanh(vec y)
{
    return v_fnma(y, y, v_set1(1));
}

#endif
