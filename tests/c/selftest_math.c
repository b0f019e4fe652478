/* selftest_math.c: exp, tanh and sigmoid of one instruction set against the table in csrc/simd/vmath.h.
 *
 *     cc -O3 -std=gnu11 -ffp-contract=off -fno-math-errno -fno-trapping-math -Icsrc \
 *        -mavx2 -mfma -DFR_V3=1 tests/c/selftest_math.c tests/c/selftest_math_f32.c -o selftest_math -lm
 *     ./selftest_math full        every float32 (a minute or so); `quick`: a sample of runs; `brief`: a smaller
 *                                 one, for emulators
 *
 * First float64 against the long double of the C library, on samples; then float32 against float64. Both: at
 * most LIMIT ulp, monotone, bounded, tanh odd, the special values; then float32 again with denormals flushed
 * to zero, as in the kernels.
 * Prints the worst of each function. Exit code 1 if anything is wrong.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simd/fpstate.h"

enum { EXP, TANH, SIGMOID, FUNCTIONS };

/* How much is tried: every `joint`-th joint, places per binade of float64, every `stride`-th block of float32,
 * and of float32 with denormals flushed. */
static const struct effort { const char *name; int joint64, per_binade, joint32, stride, flushed; } efforts[] = {
    {"full", 1, 200, 1, 1, 17}, {"quick", 13, 16, 1, 509, 4093}, {"brief", 101, 3, 7, 8191, 8191},
};
enum { EFFORTS = sizeof efforts / sizeof *efforts };
enum { BLOCK = 2048 };
static const char *const function_name[] = {"exp", "tanh", "sigmoid"};
static const double LIMIT = 2;
static long failures = 0;

/* y = f(x); n is a multiple of 16. That of float32 is in a file of its own. */
void apply_f32(int f, const float *x, float *y, int n);

#define REAL_IS_FLOAT 0
#include "selftest_apply.h"
/* from here on vec is a vector of float64 */

static void fail(int f, const char *dtype, const char *what, double x, double y)
{
    if (failures++ >= 20) return;
    printf("FAIL %s %s: %s at x = %a (%.9g), result %a\n", dtype, function_name[f], what, x, x, y);
}

static float float_of(uint32_t bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
static uint32_t bits_of(float x) { uint32_t bits; memcpy(&bits, &x, sizeof x); return bits; }

static void in_bounds(int f, const char *dtype, double x, double y)
{
    static const double low[] = {0, -1, 0}, high[] = {INFINITY, 1, 1};
    if (!(y >= low[f] && y <= high[f])) fail(f, dtype, "out of bounds", x, y);
}

/* ---- special values: the table of vmath.tmpl.h --------------------------------------------------------- */

static const struct { double x, want[FUNCTIONS]; } special[16] = {
    {INFINITY, {INFINITY, 1, 1}}, {-INFINITY, {0, -1, 0}},
    {NAN, {NAN, NAN, NAN}}, {-NAN, {NAN, NAN, NAN}},
    {0.0, {1, 0.0, 0.5}}, {-0.0, {1, -0.0, 0.5}},
    {1e-30, {1, 1e-30, 0.5}}, {-1e-30, {1, -1e-30, 0.5}},
    {FLT_MIN, {1, FLT_MIN, 0.5}}, {-FLT_MIN, {1, -FLT_MIN, 0.5}},
    {800, {INFINITY, 1, 1}}, {-800, {0, -1, 0}},
    {1000, {INFINITY, 1, 1}}, {-1000, {0, -1, 0}},
    {1e30, {INFINITY, 1, 1}}, {-1e30, {0, -1, 0}},
};

static int same(double y, double want)
{
    return isnan(want) ? isnan(y) : y == want && !signbit(y) == !signbit(want);
}

static void check_special_values(void)
{
    for (int f = 0; f < FUNCTIONS; f++) {
        double x[16], y[16];
        float x32[16], y32[16];
        for (int i = 0; i < 16; i++) x[i] = special[i].x, x32[i] = (float)special[i].x;
        apply_f64(f, x, y, 16);
        apply_f32(f, x32, y32, 16);
        for (int i = 0; i < 16; i++) {
            if (!same(y[i], special[i].want[f])) fail(f, "float64", "special value", x[i], y[i]);
            if (!same(y32[i], (float)special[i].want[f])) fail(f, "float32", "special value", x[i], y32[i]);
        }
    }
}

/* ---- float64 against long double ----------------------------------------------------------------------- */

static long double exact(int f, double x)
{
    return f == EXP ? expl(x) : f == TANH ? tanhl(x) : 1 / (1 + expl(-(long double)x));
}

static double ulps_off(double y, long double want)
{
    if (fabsl(want) < DBL_MIN) return fabs(y) <= DBL_MIN ? 0 : INFINITY;
    if (want > DBL_MAX) return y == INFINITY || y == DBL_MAX ? 0 : INFINITY;
    if (y == INFINITY) return (double)(want / DBL_MAX) > 1 - 2 * DBL_EPSILON ? 1 : INFINITY;
    int e;
    frexpl(want, &e);
    return (double)fabsl(ldexpl(y - want, 53 - e));
}

/* 16 consecutive float64 from `first` on, upwards in magnitude */
static double check_run64(int f, double first, double *worst_x)
{
    double x[16], y[16], mirror[16], minus[16], worst = 0;
    for (int i = 0; i < 16; i++) {
        x[i] = i ? nextafter(x[i - 1], first < 0 ? -INFINITY : INFINITY) : first;
        minus[i] = -x[i];
    }
    apply_f64(f, x, y, 16);
    apply_f64(f, minus, mirror, 16);
    for (int i = 0; i < 16; i++) {
        const double off = ulps_off(y[i], exact(f, x[i]));
        if (off > worst) worst = off, *worst_x = x[i];
        if (!(off <= LIMIT)) fail(f, "float64", "too far off", x[i], y[i]);
        const int falls = i && (first < 0 ? y[i] > y[i - 1] : y[i] < y[i - 1]);
        if (falls) fail(f, "float64", "not monotone", x[i], y[i]);
        if (f == TANH && mirror[i] != -y[i]) fail(f, "float64", "not odd", x[i], y[i]);
        in_bounds(f, "float64", x[i], y[i]);
    }
    return worst;
}

/* Runs at `per_binade` places in every binade, both signs, downwards in magnitude, and around every `step`-th
 * joint: multiples of ln2/4, and VM_TANH_SMALL */
static void check_float64(int f, int per_binade, int step)
{
    static const double quarter_ln2 = 0.17328679513998632736;
    double worst = 0, worst_x = 0, x_at = 0;
    uint64_t random = 88172645463325252u;
    for (int sign = 1; sign >= -1; sign -= 2) {
        double before = sign * INFINITY;
        for (int i = 81 * per_binade; i-- > 0;) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            const double place = (i % per_binade + (double)(random >> 11) * 0x1p-53) / per_binade;
            const double x[16] = {sign * ldexp(1 + place, i / per_binade - 70)};
            double y[16];
            const double off = check_run64(f, x[0], &x_at);
            if (off > worst) worst = off, worst_x = x_at;
            apply_f64(f, x, y, 16);
            if (sign * y[0] > sign * before) fail(f, "float64", "not monotone from afar", x[0], y[0]);
            before = y[0];
        }
        for (int k = 0; k < 4400; k += step)
            for (int i = -2; i < 2; i++) {
                const double joint = k ? k * quarter_ln2 : VM_TANH_SMALL;
                const double x = joint + 16 * i * (nextafter(joint, INFINITY) - joint);
                const double off = check_run64(f, sign * x, &x_at);
                if (off > worst) worst = off, worst_x = x_at;
            }
    }
    printf("float64 %-8s worst %.3f ulp at %a (%.9g)\n", function_name[f], worst, worst_x, worst_x);
}

/* ---- float32 against float64 --------------------------------------------------------------------------- */

struct worst { double ulps; float x; };

/* The distance of y from `want` in ulps of float32. Infinity counts as 2^128. Below the normal range only
 * FLT_MIN counts, and every y within it is right. */
static vec ulps32(vec y, vec want)
{
    const vec smallest = v_set1(FLT_MIN), beyond = v_set1(0x1p128);
    y = v_min(beyond, y), want = v_min(beyond, want);
    const vec size = v_abs(want);
    const ivec binade = v_bits(size) & (int64_t)0x7ff0000000000000;
    const vec per_ulp = v_set1(0x1p23) * v_from_bits(((int64_t)2046 << 52) - binade); /* 2^(23 - e) */
    return v_abs(y - want) * v_select_gt(smallest, size, v_set1(0x1p126), per_ulp);
}

static void check_accuracy(int f, const float *x, const float *y, struct worst *worst)
{
    static double x64[BLOCK], y64[BLOCK], want[BLOCK], off[BLOCK];
    for (int i = 0; i < BLOCK; i++) x64[i] = x[i], y64[i] = y[i];
    apply_f64(f, x64, want, BLOCK);
    vec most = v_zero(), wrong = v_zero();
    for (int i = 0; i < BLOCK; i += W) {
        const vec o = ulps32(v_load(y64 + i), v_load(want + i));
        v_store(off + i, o);
        most = v_max(o, most);
        /* written so that NaN is wrong too */
        wrong = wrong + v_select_gt(v_set1(nextafter(LIMIT, 3)), o, v_zero(), v_set1(1));
    }
    double lanes[2 * W];
    v_store(lanes, most);
    v_store(lanes + W, wrong);
    for (int lane = 0; lane < W; lane++)
        if (lanes[lane] > worst->ulps || lanes[W + lane] > 0) {
            for (int i = 0; i < BLOCK; i++) {
                if (off[i] > worst->ulps) worst->ulps = off[i], worst->x = x[i];
                if (!(off[i] <= LIMIT)) fail(f, "float32", "too far off", x[i], y[i]);
            }
            break;
        }
}

/* Compares each result with the one before it; y[-1] belongs to the last magnitude that was tried. */
static void check_order(int f, const float *x, const float *y, int negative)
{
    int wrong = 0;
    const float low = f == TANH ? -1 : 0, high = f == EXP ? INFINITY : 1;
    for (int i = 0; i < BLOCK; i++) wrong += !(y[i] >= low) | !(y[i] <= high);
    if (negative) for (int i = 0; i < BLOCK; i++) wrong += y[i] > y[i - 1];
    else for (int i = 0; i < BLOCK; i++) wrong += y[i] < y[i - 1];
    if (!wrong) return;
    for (int i = 0; i < BLOCK; i++) {
        in_bounds(f, "float32", x[i], y[i]);
        if (negative ? y[i] > y[i - 1] : y[i] < y[i - 1]) fail(f, "float32", "not monotone", x[i], y[i]);
    }
}

static void check_nan(int f, const float *x, const float *y)
{
    for (int i = 0; i < BLOCK; i++)
        if (x[i] != x[i] && y[i] == y[i]) fail(f, "float32", "NaN is lost", x[i], y[i]);
}

/* Magnitudes from bit pattern `first` on, both signs. y has one element in front: see check_order. */
static void check_block(int f, uint32_t first, float y[2][BLOCK + 1], struct worst *worst)
{
    static float x[2][BLOCK];
    const int finite = first + BLOCK <= 0x7f800000u;
    for (int s = 0; s < 2; s++) {
        for (uint32_t i = 0; i < BLOCK; i++) x[s][i] = float_of((first + i) | (uint32_t)s << 31);
        apply_f32(f, x[s], y[s] + 1, BLOCK);
        if (!finite) check_nan(f, x[s], y[s] + 1);
        if (finite) check_accuracy(f, x[s], y[s] + 1, worst);
        if (finite) check_order(f, x[s], y[s] + 1, s);
        y[s][0] = y[s][BLOCK];
    }
    int even = 0;
    if (f == TANH)
        for (int i = 1; i <= BLOCK; i++) even += bits_of(y[0][i]) != (bits_of(y[1][i]) ^ 0x80000000u);
    if (even && finite) fail(f, "float32", "not odd somewhere from here on", x[0][0], y[0][1]);
}

static void check_float32(int f, int joint, uint32_t stride, const char *mode)
{
    static float y[2][BLOCK + 1];
    struct worst worst = {0, 0};
    float zero[16] = {0}, at_zero[16];
    apply_f32(f, zero, at_zero, 16);
    y[0][0] = y[1][0] = at_zero[0];
    for (uint32_t block = 0; block < (1u << 31) / BLOCK; block += stride)
        check_block(f, block * BLOCK, y, &worst);
    check_block(f, 0x7f800000u, y, &worst); /* infinity and the first NaNs */
    for (int k = 0; k < 600; k += joint) {  /* around the joints: as for float64 */
        const uint32_t first = bits_of(k ? (float)k * 0.1732868f : 0.65f) - BLOCK / 2;
        const float magnitudes[16] = {float_of(first), float_of(first | 0x80000000u)};
        float start[16];
        apply_f32(f, magnitudes, start, 16);
        y[0][0] = start[0], y[1][0] = start[1];
        check_block(f, first, y, &worst);
    }
    printf("float32 %-8s worst %.3f ulp at %a (%.9g)%s\n",
           function_name[f], worst.ulps, worst.x, worst.x, mode);
}

int main(int argc, char **argv)
{
    const struct effort *e = efforts;
    while (e < efforts + EFFORTS && !(argc == 2 && !strcmp(argv[1], e->name))) e++;
    if (e == efforts + EFFORTS) {
        fprintf(stderr, "usage: %s full|quick|brief\n", argv[0]);
        return 2;
    }
    check_special_values();
    for (int f = 0; f < FUNCTIONS; f++) {
        check_float64(f, e->per_binade, e->joint64);
        check_float32(f, e->joint32, (uint32_t)e->stride, "");
        const fr_fpstate state = fr_fp_enter();
        check_float32(f, e->joint32, (uint32_t)e->flushed, ", denormals flushed");
        fr_fp_leave(state);
    }
    printf(failures ? "%ld failures\n" : "all right\n", failures);
    return failures != 0;
}
