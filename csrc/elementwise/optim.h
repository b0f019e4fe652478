/* optim.h - what a training does to whole arrays between two gradients: optimisers' steps, averages, clipping.
 *
 * Each rule is one function that takes a vector, or the first n lanes of one, from each array of a row. No multiply-add is fused, and roots
 * and quotients are rounded correctly: every instruction set gives the same bits, those of the same formulas in NumPy, but that what is
 * denormal is 0.
 */

#ifndef FR_OPTIM_H
#define FR_OPTIM_H
#include "fastrnn.h"
#include "simd/fpstate.h"
#include "simd/simd.h"

#ifdef FR_SCALAR
#define WIDE 1
#else
#define WIDE (FR_VECTOR_BYTES / 8) /* doubles in a vector */
#endif
enum { OP_SUMS = 32 }; /* sums side by side: as many as four of the widest vectors hold */

/* ---- optimisers ---------------------------------------------------------------------------------------- */

/* g + weight decay * p, or g itself, whatever p is */
FR_INLINE vec op_decayed(vec g, vec p, REAL weight_decay)
{
    return weight_decay != 0 ? p * v_set1(weight_decay) + g : g;
}

FR_INLINE void op_sgd(REAL *const *a, const REAL *k, ptrdiff_t i, ptrdiff_t n)
{
    REAL *const ps = a[0], *const vs = a[1];
    const vec p = v_load_n(ps + i, n), momentum = v_set1(k[2]);
    vec g = op_decayed(v_load_n(a[2] + i, n), p, k[1]);
    if (vs) {
        const vec v = v_load_n(vs + i, n) * momentum + g;
        v_store_n(vs + i, v, n);
        g = k[3] != 0 ? v * momentum + g : v;
    }
    v_store_n(ps + i, p - g * v_set1(k[0]), n);
}

FR_INLINE void op_rmsprop(REAL *const *a, const REAL *k, ptrdiff_t i, ptrdiff_t n)
{
    REAL *const ps = a[0], *const vs = a[1], *const ms = a[2], *const bs = a[3];
    const vec p = v_load_n(ps + i, n), g = op_decayed(v_load_n(a[4] + i, n), p, k[1]);
    const vec alpha = v_set1(k[2]), rest = v_set1(k[3]);
    const vec v = v_load_n(vs + i, n) * alpha + g * g * rest;
    vec variance = v;
    v_store_n(vs + i, v, n);
    if (ms) {
        const vec m = v_load_n(ms + i, n) * alpha + g * rest;
        v_store_n(ms + i, m, n);
        variance = v_max(v_zero(), v - m * m); /* rounding may leave it below */
    }
    vec d = g / (v_sqrt(variance) + v_set1(k[4]));
    if (bs) {
        d = v_load_n(bs + i, n) * v_set1(k[5]) + d;
        v_store_n(bs + i, d, n);
    }
    v_store_n(ps + i, p - d * v_set1(k[0]), n);
}

FR_INLINE void op_adagrad(REAL *const *a, const REAL *k, ptrdiff_t i, ptrdiff_t n)
{
    REAL *const ps = a[0], *const vs = a[1];
    const vec p = v_load_n(ps + i, n), g = op_decayed(v_load_n(a[2] + i, n), p, k[1]);
    const vec v = v_load_n(vs + i, n) + g * g;
    v_store_n(vs + i, v, n);
    v_store_n(ps + i, p - g / (v_sqrt(v) + v_set1(k[2])) * v_set1(k[0]), n);
}

FR_INLINE void op_adam(REAL *const *a, const REAL *k, ptrdiff_t i, ptrdiff_t n)
{
    REAL *const ps = a[0], *const ms = a[1], *const vs = a[2];
    const vec before = v_load_n(ps + i, n), g = op_decayed(v_load_n(a[3] + i, n), before, k[1]), p = before * v_set1(k[8]);
    const vec m = v_load_n(ms + i, n) * v_set1(k[2]) + g * v_set1(k[3]);
    const vec v = v_load_n(vs + i, n) * v_set1(k[4]) + g * g * v_set1(k[5]);
    v_store_n(ms + i, m, n);
    v_store_n(vs + i, v, n);
    v_store_n(ps + i, p - m / (v_sqrt(v) * v_set1(k[6]) + v_set1(k[7])) * v_set1(k[0]), n);
}

/* ---- averages ------------------------------------------------------------------------------------------ */

FR_INLINE void op_average(REAL *const *a, const REAL *k, ptrdiff_t i, ptrdiff_t n)
{
    const vec average = v_load_n(a[0] + i, n);
    v_store_n(a[0] + i, average + (v_load_n(a[1] + i, n) - average) * v_set1(k[0]), n);
}

FR_INLINE void op_exchange(REAL *const *a, const REAL *k, ptrdiff_t i, ptrdiff_t n)
{
    (void)k;
    const vec first = v_load_n(a[0] + i, n), second = v_load_n(a[1] + i, n);
    v_store_n(a[0] + i, second, n);
    v_store_n(a[1] + i, first, n);
}

/* ---- the global norm, in double ------------------------------------------------------------------------ */

#ifdef FR_SCALAR
typedef double wide;
FR_INLINE wide wide_load(const REAL *p) { return *p; }
FR_INLINE void wide_store(REAL *p, wide v) { *p = (REAL)v; }
#else
typedef double wide __attribute__((vector_size(FR_VECTOR_BYTES)));
typedef REAL narrow __attribute__((vector_size(WIDE * sizeof(REAL))));
typedef REAL narrow_at __attribute__((vector_size(WIDE * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
FR_INLINE wide wide_load(const REAL *p) { return __builtin_convertvector(*(const narrow_at *)p, wide); }
FR_INLINE void wide_store(REAL *p, wide v) { *(narrow_at *)p = __builtin_convertvector(v, narrow); }
#endif

/* The squares of a piece, in sums that do not depend on the width of a vector: number i goes to sum i % OP_SUMS. Four vectors of
 * sums at a time; where that is not all, the piece is still in the cache for the next four. */
static double op_squares(const REAL *x, ptrdiff_t n)
{
    double sum[OP_SUMS];
    const ptrdiff_t whole = n - n % OP_SUMS;
    for (int s = 0; s < OP_SUMS; s += 4 * WIDE) {
        wide s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (ptrdiff_t i = s; i < whole; i += OP_SUMS) {
            const wide x0 = wide_load(x + i), x1 = wide_load(x + i + WIDE);
            const wide x2 = wide_load(x + i + 2 * WIDE), x3 = wide_load(x + i + 3 * WIDE);
            s0 += x0 * x0, s1 += x1 * x1, s2 += x2 * x2, s3 += x3 * x3;
        }
        const wide four[] = {s0, s1, s2, s3};
        memcpy(sum + s, four, sizeof four);
    }
    for (ptrdiff_t i = whole; i < n; i++)
        sum[i - whole] += (double)x[i] * (double)x[i];
    for (int half = OP_SUMS / 2; half; half /= 2)
        for (int s = 0; s < half; s++)
            sum[s] += sum[s + half];
    return sum[0];
}

/* In double, because a factor below 1e-38 would lose its digits in float32. */
static void op_scale(REAL *x, double factor, ptrdiff_t n)
{
    wide factors;
    double same[WIDE];
    for (int s = 0; s < WIDE; s++)
        same[s] = factor;
    memcpy(&factors, same, sizeof factors);
    ptrdiff_t i = 0;
    for (; i + WIDE <= n; i += WIDE)
        wide_store(x + i, wide_load(x + i) * factors);
    for (; i < n; i++)
        x[i] = (REAL)((double)x[i] * factor);
}

/* ---- one call ------------------------------------------------------------------------------------------ */

#undef OP_EACH
#define OP_EACH(rule)                                                                                                             \
    for (; i + W <= end; i += W)                                                                                                  \
        rule(a, k, i, W);                                                                                                         \
    if (i < end)                                                                                                                  \
        rule(a, k, i, end - i);                                                                                                   \
    break

/* The numbers i .. end-1 of a row. */
static void op_piece(const fr_update *u, const fr_row *row, ptrdiff_t i, ptrdiff_t end, double *sum)
{
    REAL *a[FR_MAX_ARRAYS], k[FR_MAX_NUMBERS];
    for (int j = 0; j < FR_MAX_ARRAYS; j++)
        a[j] = row->a[j];
    for (int j = 0; j < FR_MAX_NUMBERS; j++)
        k[j] = (REAL)u->numbers[j];
    switch (u->rule) {
    case FR_SGD: OP_EACH(op_sgd);
    case FR_RMSPROP: OP_EACH(op_rmsprop);
    case FR_ADAGRAD: OP_EACH(op_adagrad);
    case FR_ADAM: OP_EACH(op_adam);
    case FR_AVERAGE: OP_EACH(op_average);
    case FR_EXCHANGE: OP_EACH(op_exchange);
    case FR_SCALE: op_scale(a[0] + i, u->numbers[0], end - i); break;
    case FR_SQUARES: *sum = op_squares(a[0] + i, end - i); break;
    }
}

static void update(const void *task, int member, fr_team *team)
{
    const fr_update *u = task;
    const fr_row *row = u->rows;
    fr_fpstate state = fr_fp_enter();
    ptrdiff_t done = 0;
    for (ptrdiff_t piece; (piece = fr_claim(team)) < u->pieces;) {
        while (piece >= row->end)
            row++;
        const ptrdiff_t i = (piece - row->end + fr_ceil_div(row->n, FR_PIECE)) * FR_PIECE, end = fr_min(i + FR_PIECE, row->n);
        op_piece(u, row, i, end, u->sums ? u->sums + piece : NULL);
        done += end - i;
    }
    fr_fp_leave(state);
    fr_report_work(team, member, done);
}

#endif
