/* selftest_kernels.c: the kernels of every instruction set of this processor against plain loops, by the
 * interface in csrc/fastrnn.h alone.
 *
 *     cc -pthread -Icsrc tests/c/selftest_kernels.c *.o -lm -o selftest_kernels
 *     ./selftest_kernels [isa [cell [threads]]]     all of them, or one: ./selftest_kernels v3 'gru before'
 *
 * An isa or cell "all" stands for all of them. threads 1 or 2: of the schedules after the first, only those for so many.
 *
 * Each case is a cell, a dtype and sizes; direction, lengths, resets, layout and what is absent are drawn,
 * the same everywhere. A case passes if training, forward and backward, agrees with the loops; every other
 * schedule (threads, shared units, chunks, inputs first) gives the same bits, and so does inference, in
 * pieces too; and nothing is written, or has an effect, that the plan does not name.
 *
 * All cases are drawn a second time with options: a projection, a gradient of the sequence c, truncation; and
 * these are also trained from checkpoints, with c and the gates made again: the same bits, those of what was
 * made again included, where the checkpoints cut no sum.
 *
 * A third time they are drawn with activations of their own.
 *
 * bfloat16 is float32 with the operands of all products rounded to bfloat16, in the loops as well. Their other sums differ, so now and
 * then a number is rounded to the neighbour of what the kernels have: the tolerance is a few steps of bfloat16.
 *
 * Prints a hash of all float32 results, one of all float64 and one of all bfloat16 results of each instruction set, three more of the
 * cases with options, and three of those with activations: v3, v4, neon and amx do the same operations in the same order, so theirs must be equal,
 * and so must those of scalar on all machines. With -DAMX_IN_C and tests/c/amx_in_c.c the kernels of amx are among them, with AMX's
 * instructions in C. Exit code 1 if anything is wrong.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fastrnn.h"

/* Hidden units: a vector of 1, 4, 8 and 16 lanes, one more, and twice that; then panels of four vectors. The
 * same for every instruction set, for the sake of the hashes. Rows: tiles of all heights, and more than one.
 * Steps: the last are so many that the sums over all items are taken in parts. */
static const int HIDDEN[] = {1, 3, 4, 5, 8, 9, 16, 17, 33, 65, 130}, ROWS[] = {0, 1, 2, 3, 5, 6, 7, 8, 9};
static const int STEPS[] = {0, 1, 2, 5, 67, 67}, INPUTS[] = {0, 1, 3, 9, 9, 9, 20, 70};
static const int TRUNCATE[] = {0, 1, 2, 4, 30, 64};
enum { MOST_H = 130, MOST_B = 9, MOST_T = 67, MOST_ITEMS = MOST_T * MOST_B };
enum { MOST_UNITS = 160, MOST_UNITS_OF_LONG = 40 }; /* H times B */
#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

static const char *const CELL_NAME[] = {
    "rnn tanh", "rnn relu", "lstm", "lstm peephole", "gru after", "gru before",
};
enum { DTYPES = 3, ROUNDS = 3 };
static const char *const DTYPE_NAME[DTYPES] = {"float32", "float64", "bfloat16"};
static const double TOLERANCE[DTYPES] = {2e-5, 1e-12, 2e-2};

/* A way to run a case. The bits are those of the first, but for a backward in pieces, whose sums are cut
 * where the pieces are. */
typedef struct {
    int threads, split_units, input_first, chunk, pieces, row_blocks, direct;
} schedule;
static const schedule SCHEDULES[] = {
    {1, 0, 0, 1000, 1, 0, 0}, {1, 0, 1, 1, 2, 0, 0},    {1, 0, 1, 7, 1, 0, 1}, {2, 0, 0, 4, 2, 0, 0},  {2, 0, 1, 1, 1, 0, 0},
    {2, 1, 1, 5, 2, 0, 0},    {2, 1, 0, 1000, 1, 0, 1}, {2, 0, 0, 1, 1, 3, 0}, {2, 0, 1, 20, 2, 4, 1}, {1, 0, 0, 64, 1, 0, 1},
};

/* The arrays of a call: what is only read; what is read and written; what is only written. */
enum {
    X, W_IH, W_HH, B_IH, B_HH, PEEPHOLE, W_HR, H0, C0, DY, DCS,
    DW_IH, DW_HH, DB_IH, DB_HH, DPEEPHOLE, DW_HR, DH, DC,
    Y, C, GATES, DX,
    ARRAYS, RESULTS = DW_IH, WRITTEN = Y
};
static const char *const ARRAY_NAME[] = {
    "x", "w_ih", "w_hh", "b_ih", "b_hh", "peephole", "w_hr", "h0", "c0", "dy", "dcs",
    "dw_ih", "dw_hh", "db_ih", "db_hh", "dpeephole", "dw_hr", "dh", "dc",
    "y", "c", "gates", "dx",
};

typedef struct {
    const char *isa;
    int cell, dtype, reverse, ragged, batch_first;
    int options; /* is it of the second round, or 2, of the third? */
    fr_activation f[3]; /* all 0 before the third round */
    ptrdiff_t T, B, I, H, P, G, truncate;
    ptrdiff_t steps, items; /* the plan */
    ptrdiff_t first[MOST_T + 1], row[MOST_ITEMS], time[MOST_ITEMS], prev[MOST_ITEMS], rank[MOST_B];
    ptrdiff_t count[ARRAYS]; /* elements; 0: absent */
    double *start[ARRAYS], *want[ARRAYS]; /* before the call, after it; NaN: not to be touched */
} problem;

/* ---- problems ------------------------------------------------------------------------------------------ */

static uint64_t random_state;
static uint64_t draw(uint64_t below)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (random_state >> 20) % below;
}
static double draw_number(const problem *p, double scale)
{
    const double x = ((double)draw(1 << 24) - (1 << 23)) * 0x1p-23 * scale;
    return p->dtype == FR_F64 ? x : (float)x;
}

static int is_lstm(const problem *p) { return p->cell == FR_LSTM || p->cell == FR_LSTM_PEEPHOLE; }
static int is_gru(const problem *p) { return p->cell >= FR_GRU_AFTER; }
static int projects(const problem *p) { return p->P < p->H; }

/* Row and time as one index, in the layout of the case. */
static ptrdiff_t place(const problem *p, ptrdiff_t t, ptrdiff_t b)
{
    return p->batch_first ? b * p->T + t : t * p->B + b;
}

/* The items, in the order of fr_plan: the rows alive at a step, longest first. */
static void draw_plan(problem *p)
{
    ptrdiff_t length[MOST_B] = {0}, order[MOST_B] = {0};
    p->steps = p->ragged ? 0 : p->T;
    for (ptrdiff_t b = 0; b < p->B; b++) {
        length[b] = p->ragged ? (ptrdiff_t)draw((uint64_t)p->T + 1) : p->T;
        p->steps = length[b] > p->steps ? length[b] : p->steps;
    }
    for (ptrdiff_t b = 0; b < p->B; b++) {
        p->rank[b] = 0;
        for (ptrdiff_t a = 0; a < p->B; a++)
            p->rank[b] += length[a] > length[b] || (length[a] == length[b] && a < b);
        order[p->rank[b]] = b;
    }
    p->items = p->first[0] = 0;
    for (ptrdiff_t s = 0; s < p->steps; s++) {
        for (ptrdiff_t r = 0; r < p->B && length[order[r]] > s; r++) {
            const ptrdiff_t i = p->items++, t = p->reverse ? length[order[r]] - 1 - s : s;
            p->row[i] = order[r], p->time[i] = t;
            p->prev[i] = s == 0 ? FR_FROM_INITIAL : p->reverse ? t + 1 : t - 1;
            if (p->ragged && draw(4) == 0) p->prev[i] = FR_FROM_ZERO;
        }
        p->first[s + 1] = p->items;
    }
}

/* Those of the gates are bounded, or states would grow from step to step. No jump: the loops may be on its other side. */
static void draw_activations(problem *p)
{
    static const fr_activation bounded[] = {{FR_TANH, 0, 0}, {FR_SIGMOID, 0, 0}, {FR_HARD_SIGMOID, 0.2, 0.5}, {FR_HARD_SIGMOID, 0.4, 0.6},
                                            {FR_SOFTSIGN, 0, 0}, {FR_SCALED_TANH, 0.7, 1.2}};
    static const fr_activation any[] = {{FR_RELU, 0, 0}, {FR_LEAKY_RELU, 0.1, 0}, {FR_THRESHOLDED_RELU, 0, 0}, {FR_AFFINE, 0.5, 0.1},
                                        {FR_ELU, 0.8, 0}, {FR_SOFTPLUS, 0, 0}, {FR_SOFTSIGN, 0, 0}, {FR_SCALED_TANH, 1.1, 0.9},
                                        {FR_TANH, 0, 0}, {FR_SIGMOID, 0, 0}};
    if (p->options < 2) return;
    for (int k = 0; k < 3; k++)
        p->f[k] = k == 0 && p->G > 1 ? bounded[draw(LENGTH(bounded))] : any[draw(LENGTH(any))];
}

/* Which arrays there are, and how large. */
static void draw_sizes(problem *p)
{
    const ptrdiff_t T = p->T, B = p->B, H = p->H, P = p->P, GH = p->G * H;
    const ptrdiff_t hr = projects(p) ? P * H : 0;
    const ptrdiff_t peephole = p->cell == FR_LSTM_PEEPHOLE ? 3 * H : 0;
    const ptrdiff_t cells = is_lstm(p) ? H : 0, gates = is_lstm(p) || is_gru(p) ? 4 * H : 0;
    const ptrdiff_t all[ARRAYS] = {
        T * B * p->I, GH * p->I, GH * P, GH, GH, peephole, hr, B * P, B * cells, T * B * P, 0,
        GH * p->I, GH * P, GH, GH, peephole, hr, B * P, B * cells,
        T * B * P, T * B * cells, T * B * gates, T * B * p->I,
    };
    static const char optional[ARRAYS] = {
        [B_IH] = 1, [B_HH] = 1, [H0] = 1, [C0] = 1, [DY] = 1, [DW_IH] = 1, [DW_HH] = 1, [DB_IH] = 1,
        [DB_HH] = 1, [DPEEPHOLE] = 1, [DX] = 1,
    };
    for (int a = 0; a < ARRAYS; a++) p->count[a] = optional[a] && draw(5) == 0 ? 0 : all[a];
    if (!p->options) return;
    draw_activations(p);
    p->count[DCS] = draw(3) ? T * B * cells : 0;
    if (draw(5) == 0) p->count[DW_HR] = 0;
}

/* The square of what such numbers are divided by, so that no sum grows. With options c stays small, too: dcs comes in at every step
 * and dc hardly fades, and a peephole of f that opens it as c grows would let c grow with it. */
static ptrdiff_t terms_of(const problem *p, int array)
{
    if (p->options && (array == DCS || array == PEEPHOLE)) return 16;
    return array == W_IH ? p->I + 1 : array == W_HH ? p->P : array == W_HR ? p->H : 1;
}

static void draw_numbers(problem *p)
{
    for (int a = 0; a < ARRAYS; a++) {
        const double scale = 1 / sqrt((double)terms_of(p, a));
        const ptrdiff_t bytes = p->count[a] * (ptrdiff_t)sizeof(double), width = a == X ? p->I : a == DY ? p->P : p->H;
        p->start[a] = p->want[a] = NULL;
        if (!bytes) continue;
        p->start[a] = malloc((size_t)bytes), p->want[a] = malloc((size_t)bytes);
        memset(p->start[a], 0xff, (size_t)bytes);
        if (a == X || a == DY || a == DCS)
            for (ptrdiff_t i = 0; i < p->items; i++)
                for (ptrdiff_t j = 0; j < width; j++)
                    p->start[a][place(p, p->time[i], p->row[i]) * width + j] = draw_number(p, scale);
        else if (a < WRITTEN)
            for (ptrdiff_t i = 0; i < p->count[a]; i++) p->start[a][i] = draw_number(p, scale);
        memcpy(p->want[a], p->start[a], (size_t)bytes);
    }
}

static problem draw_problem(const char *isa, int cell, int dtype, int H, int B, int options)
{
    problem p = {.isa = isa, .cell = cell, .dtype = dtype, .options = options, .B = B, .H = H, .P = H};
    p.T = STEPS[draw((uint64_t)LENGTH(STEPS))], p.I = INPUTS[draw((uint64_t)LENGTH(INPUTS))];
    if (H * B > MOST_UNITS_OF_LONG && p.T == MOST_T) p.T = 5;
    p.G = is_gru(&p) ? 3 : is_lstm(&p) ? 4 : 1;
    p.reverse = (int)draw(2), p.ragged = (int)draw(2), p.batch_first = (int)draw(2);
    draw_plan(&p);
    if (options) p.truncate = TRUNCATE[draw((uint64_t)LENGTH(TRUNCATE))];
    if (options && is_lstm(&p) && H > 1 && draw(3)) p.P = 1 + (ptrdiff_t)draw((uint64_t)H - 1);
    draw_sizes(&p);
    draw_numbers(&p);
    return p;
}

static void free_problem(problem *p)
{
    for (int a = 0; a < ARRAYS; a++) free(p->start[a]), free(p->want[a]);
}

/* ---- what the kernels should compute: plain loops over float64 ----------------------------------------- */

/* One item: x, the state before and behind it, and the gates as fr_call has them. */
typedef struct {
    const double *x, *h, *c;
    double *y, *cn, *gates;
} item;

/* The activation of the gates (0), of the candidate (1) and of an LSTM's c (2) at a. */
static double value(const problem *p, int which, double a)
{
    const double alpha = p->f[which].alpha, beta = p->f[which].beta;
    switch (p->f[which].kind) {
    case FR_TANH: return tanh(a);
    case FR_RELU: return a > 0 ? a : 0;
    case FR_LEAKY_RELU: return a < 0 ? alpha * a : a;
    case FR_THRESHOLDED_RELU: return a >= alpha ? a : 0;
    case FR_AFFINE: return alpha * a + beta;
    case FR_SCALED_TANH: return alpha * tanh(beta * a);
    case FR_HARD_SIGMOID: return fmin(1, fmax(0, alpha * a + beta));
    case FR_ELU: return a < 0 ? alpha * expm1(a) : a;
    case FR_SOFTSIGN: return a / (1 + fabs(a));
    case FR_SOFTPLUS: return log1p(exp(-fabs(a))) + (a > 0 ? a : 0);
    case FR_USUAL:
        if (p->cell == FR_RNN_RELU) return a > 0 ? a : 0;
        if (which > 0 || p->cell == FR_RNN_TANH) return tanh(a);
    }
    return 1 / (1 + exp(-a));
}

/* Its slope where its value is y. */
static double slope(const problem *p, int which, double y)
{
    const double alpha = p->f[which].alpha, beta = p->f[which].beta;
    switch (p->f[which].kind) {
    case FR_TANH: return 1 - y * y;
    case FR_RELU: return y > 0;
    case FR_LEAKY_RELU: return y > 0 ? 1 : alpha;
    case FR_THRESHOLDED_RELU: return y != 0;
    case FR_AFFINE: return alpha;
    case FR_SCALED_TANH: return alpha * beta * (1 - y / alpha * (y / alpha));
    case FR_HARD_SIGMOID: return y > 0 && y < 1 ? alpha : 0;
    case FR_ELU: return y > 0 ? 1 : y + alpha;
    case FR_SOFTSIGN: return (1 - fabs(y)) * (1 - fabs(y));
    case FR_SOFTPLUS: return -expm1(-y);
    case FR_USUAL:
        if (p->cell == FR_RNN_RELU) return y > 0;
        if (which > 0 || p->cell == FR_RNN_TANH) return 1 - y * y;
    }
    return y * (1 - y);
}

/* An operand of a product: rounded to the nearest bfloat16, the upper half of a float32, where it is one. */
static double operand(const problem *p, double x)
{
    if (p->dtype != FR_BF16) return x;
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000;
    memcpy(&f, &u, sizeof f);
    return f;
}

static double *at(const problem *p, int array, ptrdiff_t i, ptrdiff_t width)
{
    return p->want[array] ? p->want[array] + place(p, p->time[i], p->row[i]) * width : NULL;
}

static const double *before(const problem *p, int sequence, int initial, ptrdiff_t i, ptrdiff_t width)
{
    static const double zeros[MOST_H];
    const ptrdiff_t prev = p->prev[i];
    if (prev >= 0 && p->want[sequence]) return p->want[sequence] + place(p, prev, p->row[i]) * width;
    return prev == FR_FROM_INITIAL && p->want[initial] ? p->want[initial] + p->row[i] * width : zeros;
}

static item item_of(const problem *p, ptrdiff_t i)
{
    const ptrdiff_t H = p->H;
    return (item){.x = at(p, X, i, p->I), .h = before(p, Y, H0, i, p->P), .c = before(p, C, C0, i, H),
                  .y = at(p, Y, i, p->P), .cn = at(p, C, i, H), .gates = at(p, GATES, i, 4 * H)};
}

/* Row `row` of W v + b. */
static double affine(const problem *p, int weight, int bias, ptrdiff_t row, const double *v, ptrdiff_t n)
{
    double sum = p->want[bias] ? p->want[bias][row] : 0;
    for (ptrdiff_t k = 0; k < n; k++) sum += operand(p, p->want[weight][row * n + k]) * operand(p, v[k]);
    return sum;
}
static double input(const problem *p, const item *e, ptrdiff_t row)
{
    return affine(p, W_IH, B_IH, row, e->x, p->I);
}
static double recurrent(const problem *p, const double *h, ptrdiff_t row)
{
    return affine(p, W_HH, B_HH, row, h, p->P);
}
static double peephole(const problem *p, int gate, ptrdiff_t u)
{
    return p->want[PEEPHOLE] ? p->want[PEEPHOLE][gate * p->H + u] : 0;
}

/* o tanh(c_t): h_t, or what is projected to it. */
static double lstm_m(const problem *p, const item *e, ptrdiff_t u) { return e->gates[3 * p->H + u] * value(p, 2, e->cn[u]); }

static void lstm_unit(const problem *p, const item *e, ptrdiff_t u)
{
    const ptrdiff_t H = p->H;
    double a[4], *gate = e->gates + u;
    for (int g = 0; g < 4; g++) a[g] = input(p, e, g * H + u) + recurrent(p, e->h, g * H + u);
    gate[0] = value(p, 0, a[0] + peephole(p, 0, u) * e->c[u]);
    gate[H] = value(p, 0, a[1] + peephole(p, 1, u) * e->c[u]);
    gate[2 * H] = value(p, 1, a[2]);
    e->cn[u] = gate[H] * e->c[u] + gate[0] * gate[2 * H];
    gate[3 * H] = value(p, 0, a[3] + peephole(p, 2, u) * e->cn[u]);
}

static void lstm_item(const problem *p, const item *e)
{
    for (ptrdiff_t u = 0; u < p->H; u++) lstm_unit(p, e, u);
    for (ptrdiff_t j = 0; j < p->P; j++) {
        double sum = 0;
        for (ptrdiff_t u = 0; projects(p) && u < p->H; u++)
            sum += operand(p, p->want[W_HR][j * p->H + u]) * operand(p, lstm_m(p, e, u));
        e->y[j] = projects(p) ? sum : lstm_m(p, e, j);
    }
}

static void gru_item(const problem *p, const item *e)
{
    const ptrdiff_t H = p->H;
    double *r = e->gates, *z = r + H, *n = z + H, *other = n + H; /* W_hn h + b_hn, or r*h */
    const int after = p->cell == FR_GRU_AFTER;
    for (ptrdiff_t u = 0; u < H; u++) {
        r[u] = value(p, 0, input(p, e, u) + recurrent(p, e->h, u));
        z[u] = value(p, 0, input(p, e, H + u) + recurrent(p, e->h, H + u));
        other[u] = after ? recurrent(p, e->h, 2 * H + u) : r[u] * e->h[u];
    }
    for (ptrdiff_t u = 0; u < H; u++) {
        n[u] = value(p, 1, input(p, e, 2 * H + u) + (after ? r[u] * other[u] : recurrent(p, other, 2 * H + u)));
        e->y[u] = (1 - z[u]) * n[u] + z[u] * e->h[u];
    }
}

static void forward_item(const problem *p, const item *e)
{
    if (is_gru(p)) gru_item(p, e);
    else if (is_lstm(p)) lstm_item(p, e);
    else for (ptrdiff_t u = 0; u < p->H; u++) {
        e->y[u] = value(p, 0, input(p, e, u) + recurrent(p, e->h, u));
    }
}

/* Gradients of the sums of one item: the part of x and that of h, which differ in n of a GRU; and what goes
 * straight to the h before. */
typedef struct {
    double ax[4 * MOST_H], ah[4 * MOST_H], direct[MOST_H];
} gradient;

/* to += v */
static void add(double *to, const double *v, ptrdiff_t n)
{
    for (ptrdiff_t k = 0; to && k < n; k++) to[k] += v[k];
}
/* to += factor * v */
static void add_product(const problem *p, double *to, double factor, const double *v, ptrdiff_t n)
{
    for (ptrdiff_t k = 0; to && k < n; k++) to[k] += operand(p, factor) * operand(p, v[k]);
}

static void lstm_unit_back(const problem *p, const item *e, ptrdiff_t u, double dh, double *dc, gradient *d)
{
    const ptrdiff_t H = p->H;
    const double i = e->gates[u], f = e->gates[H + u], g = e->gates[2 * H + u], o = e->gates[3 * H + u];
    const double tc = value(p, 2, e->cn[u]), dao = dh * tc * slope(p, 0, o);
    const double dcn = *dc + dh * o * slope(p, 2, tc) + dao * peephole(p, 2, u);
    const double da[4] = {dcn * g * slope(p, 0, i), dcn * e->c[u] * slope(p, 0, f), dcn * i * slope(p, 1, g), dao};
    for (int k = 0; k < 4; k++) d->ax[k * H + u] = d->ah[k * H + u] = da[k];
    *dc = dcn * f + da[0] * peephole(p, 0, u) + da[1] * peephole(p, 1, u);
    if (!p->want[DPEEPHOLE]) return;
    p->want[DPEEPHOLE][u] += da[0] * e->c[u];
    p->want[DPEEPHOLE][H + u] += da[1] * e->c[u];
    p->want[DPEEPHOLE][2 * H + u] += da[3] * e->cn[u];
}

static void lstm_back(const problem *p, const item *e, const double *dh, double *dc, gradient *d)
{
    const ptrdiff_t H = p->H;
    double m[MOST_H], dm[MOST_H] = {0};
    for (ptrdiff_t u = 0; u < H; u++) m[u] = lstm_m(p, e, u);
    for (ptrdiff_t j = 0; projects(p) && j < p->P; j++) {
        add_product(p, dm, dh[j], p->want[W_HR] + j * H, H);
        add_product(p, p->want[DW_HR] ? p->want[DW_HR] + j * H : NULL, dh[j], m, H);
    }
    for (ptrdiff_t u = 0; u < H; u++) lstm_unit_back(p, e, u, projects(p) ? dm[u] : dh[u], &dc[u], d);
}

static void gru_back(const problem *p, const item *e, const double *dh, gradient *d)
{
    const ptrdiff_t H = p->H;
    const double *r = e->gates, *z = r + H, *n = z + H, *hn = n + H;
    const int after = p->cell == FR_GRU_AFTER;
    double dr[MOST_H] = {0}; /* of r, or of r*h */
    for (ptrdiff_t u = 0; u < H; u++) {
        const double dan = dh[u] * (1 - z[u]) * slope(p, 1, n[u]);
        d->ax[2 * H + u] = dan, d->ah[2 * H + u] = after ? dan * r[u] : dan;
        d->ax[H + u] = d->ah[H + u] = dh[u] * (e->h[u] - n[u]) * slope(p, 0, z[u]);
        d->direct[u] = dh[u] * z[u];
        if (after) dr[u] = dan * hn[u];
        else add_product(p, dr, dan, p->want[W_HH] + (2 * H + u) * H, H);
    }
    for (ptrdiff_t u = 0; u < H; u++) {
        if (!after) d->direct[u] += dr[u] * r[u], dr[u] *= e->h[u];
        d->ax[u] = d->ah[u] = dr[u] * slope(p, 0, r[u]);
    }
}

/* The gradients of one item, all that follows from them, and dh and dc of the state before; cut: none flows there. */
static void backward_item(const problem *p, const item *e, ptrdiff_t i, int cut)
{
    const ptrdiff_t H = p->H, I = p->I, P = p->P;
    const int reset_before = p->cell == FR_GRU_BEFORE;
    double *const *w = p->want, *dx = at(p, DX, i, I);
    double *dh = w[DH] + p->row[i] * P, *dc = w[DC] ? w[DC] + p->row[i] * H : NULL;
    gradient d = {.direct = {0}};
    add(dh, at(p, DY, i, P), w[DY] ? P : 0);
    add(dc, at(p, DCS, i, H), w[DCS] ? H : 0);
    if (is_gru(p)) gru_back(p, e, dh, &d);
    else if (is_lstm(p)) lstm_back(p, e, dh, dc, &d);
    else for (ptrdiff_t u = 0; u < H; u++) d.ax[u] = d.ah[u] = dh[u] * slope(p, 0, e->y[u]);
    memcpy(dh, d.direct, (size_t)P * sizeof *dh);
    for (ptrdiff_t k = 0; dx && k < I; k++) dx[k] = 0;
    for (ptrdiff_t row = 0; row < p->G * H; row++) {
        const int of_rh = reset_before && row >= 2 * H;
        add_product(p, w[DW_IH] ? w[DW_IH] + row * I : NULL, d.ax[row], e->x, I);
        add_product(p, w[DW_HH] ? w[DW_HH] + row * P : NULL, d.ah[row], of_rh ? e->gates + 3 * H : e->h, P);
        if (w[DB_IH]) w[DB_IH][row] += d.ax[row];
        if (w[DB_HH]) w[DB_HH][row] += d.ah[row];
        if (dx) add_product(p, dx, d.ax[row], w[W_IH] + row * I, I);
        if (!of_rh) add_product(p, dh, d.ah[row], w[W_HH] + row * P, P);
    }
    if (!cut) return;
    for (ptrdiff_t j = 0; j < P; j++) dh[j] = 0;
    for (ptrdiff_t u = 0; dc && u < H; u++) dc[u] = 0;
}

static void solve(const problem *p)
{
    for (ptrdiff_t i = 0; i < p->items; i++) {
        const item e = item_of(p, i);
        forward_item(p, &e);
    }
    for (ptrdiff_t s = p->steps; s-- > 0;) {
        const int truncated = p->truncate && s > 0 && s % p->truncate == 0;
        for (ptrdiff_t i = p->first[s + 1]; i-- > p->first[s];) {
            const item e = item_of(p, i);
            backward_item(p, &e, i, truncated || p->prev[i] == FR_FROM_ZERO);
        }
    }
}

/* ---- running the kernels ------------------------------------------------------------------------------- */

/* All arrays of one run, each between guards. Guards, and what is not set yet, are bytes of ones: NaN. */
enum { GUARD = 72 };
typedef struct {
    unsigned char *memory;
    ptrdiff_t bytes, end[ARRAYS];
    void *at[ARRAYS];
} image;

static ptrdiff_t size_of(const problem *p) { return p->dtype == FR_F64 ? 8 : 4; }

static double get(const problem *p, const void *array, ptrdiff_t i)
{
    return p->dtype == FR_F64 ? ((const double *)array)[i] : ((const float *)array)[i];
}
static void put(const problem *p, void *array, ptrdiff_t i, double x)
{
    if (p->dtype == FR_F64) ((double *)array)[i] = x;
    else ((float *)array)[i] = (float)x;
}

static image new_image(const problem *p)
{
    image m = {.bytes = GUARD};
    for (int a = 0; a < ARRAYS; a++) m.bytes += p->count[a] * size_of(p) + GUARD;
    m.memory = malloc((size_t)m.bytes);
    memset(m.memory, 0xff, (size_t)m.bytes);
    unsigned char *next = m.memory + GUARD;
    for (int a = 0; a < ARRAYS; a++) {
        m.at[a] = p->count[a] ? next : NULL;
        for (ptrdiff_t i = 0; a < WRITTEN && i < p->count[a]; i++) put(p, m.at[a], i, p->start[a][i]);
        next += p->count[a] * size_of(p);
        m.end[a] = next - m.memory;
        next += GUARD;
    }
    return m;
}

static int all_ones(const unsigned char *p, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        if (p[i] != 0xff) return 0;
    return 1;
}

/* Scratch memory of `bytes`, full of NaN, with a guard behind. */
static unsigned char *new_scratch(ptrdiff_t bytes)
{
    const size_t size = ((size_t)bytes + 63) / 64 * 64 + 64;
    return memset(aligned_alloc(64, size), 0xff, size);
}
static int free_scratch(unsigned char *memory, ptrdiff_t bytes)
{
    const int right = all_ones(memory + bytes, 64);
    free(memory);
    return right;
}

static fr_seq seq_of(const problem *p, const image *m, int array, ptrdiff_t width)
{
    return (fr_seq){m->at[array], (p->batch_first ? 1 : p->B) * width, (p->batch_first ? p->T : 1) * width};
}

static fr_call task_of(const problem *p, const image *m)
{
    fr_call t = {.cell = p->cell, .I = p->I, .H = p->H, .P = p->P, .d.truncate = p->truncate};
    memcpy(t.activation, p->f, sizeof t.activation);
    t.plan = (fr_plan){.T = p->steps, .B = p->B, .reverse = p->reverse};
    if (p->ragged)
        t.plan = (fr_plan){p->steps, p->B, p->reverse, p->first, p->row, p->time, p->prev, p->rank};
    t.x = seq_of(p, m, X, p->I), t.y = seq_of(p, m, Y, p->P);
    t.saved.c = seq_of(p, m, C, p->H), t.saved.gates = seq_of(p, m, GATES, 4 * p->H);
    t.w.w_ih = m->at[W_IH], t.w.w_hh = m->at[W_HH], t.w.b_ih = m->at[B_IH], t.w.b_hh = m->at[B_HH];
    t.w.peephole = m->at[PEEPHOLE], t.w.w_hr = m->at[W_HR], t.h0 = m->at[H0], t.c0 = m->at[C0];
    t.d.dy = seq_of(p, m, DY, p->P), t.d.dcs = seq_of(p, m, DCS, p->H), t.d.dx = seq_of(p, m, DX, p->I);
    t.d.dh = m->at[DH], t.d.dc = m->at[DC];
    t.d.dw.w_ih = m->at[DW_IH], t.d.dw.w_hh = m->at[DW_HH], t.d.dw.b_ih = m->at[DB_IH], t.d.dw.b_hh = m->at[DB_HH];
    t.d.dw.peephole = m->at[DPEEPHOLE], t.d.dw.w_hr = m->at[DW_HR];
    return t;
}

static fr_pool pool;
static fr_work *work_to_count;
static long teams[2]; /* calls for two threads that were run by one, by two */
static long ended;    /* teams that ended before their call, because somebody was late */

/* In every other call whoever comes after member 0 is late, so that teams end at any of their barriers. */
static void choose_patience(void)
{
    static int call = 0;
    pool.late_ns = call++ % 2 ? 1 : 1LL << 60;
    pool.always = 1;
}

static void count_team(const void *task, int member, fr_team *team)
{
    if (member == 0) teams[team->n > 1]++;
    work_to_count(task, member, team);
}

static void run_team(int threads, fr_work *work, const fr_call *t)
{
    work_to_count = work;
    choose_patience();
    fr_pool_run(&pool, threads, t->schedule.split_units, 100000, threads > 1 ? count_team : work, t);
    ended += threads > 1 && pool.team.n > 1 && atomic_load(&pool.team.last_round) > 0;
}

/* A task in one direction, by one schedule, with the scratch memory that its pieces share. */
typedef struct {
    fr_call t;
    fr_work *kernel;
    fr_sizes sizes;
    unsigned char *packed, *work;
    int back, threads, pieces;
} course;

static course new_course(const fr_kernels *k, fr_call t, const schedule *how, int back)
{
    course c = {.back = back, .threads = how->threads, .pieces = how->pieces, .kernel = back ? k->backward : k->forward};
    t.schedule.split_units = how->split_units, t.schedule.input_first = how->input_first && !back, t.schedule.chunk = how->chunk;
    t.schedule.row_blocks = how->row_blocks, t.schedule.direct = how->direct;
    (back ? k->backward_sizes : k->forward_sizes)(&t, how->threads, &c.sizes);
    t.memory.packed = c.packed = new_scratch(c.sizes.packed_bytes), t.memory.work = c.work = new_scratch(c.sizes.work_bytes);
    c.t = t;
    return c;
}

/* The steps from s0 to s1. The team of a second piece is of one: a team may always be smaller than asked. */
static void run_steps(course *c, ptrdiff_t s0, ptrdiff_t s1)
{
    fr_call *t = &c->t;
    for (int i = 0; i < c->pieces; i++) {
        const ptrdiff_t piece = c->back ? c->pieces - 1 - i : i;
        t->range.s0 = s0 + (s1 - s0) * piece / c->pieces, t->range.s1 = s0 + (s1 - s0) * (piece + 1) / c->pieces;
        t->range.first = i == 0 && s1 == t->plan.T, t->range.last = i == c->pieces - 1 && s0 == 0;
        run_team(i ? 1 : c->threads, c->kernel, t);
        t->memory.packed_ready = 1;
    }
}

/* Did the scratch memory suffice? */
static int end_course(course *c)
{
    const int enough = free_scratch(c->packed, c->sizes.packed_bytes);
    return free_scratch(c->work, c->sizes.work_bytes) && enough;
}

static int run_all(const fr_kernels *k, fr_call t, const schedule *how, int back)
{
    course c = new_course(k, t, how, back);
    run_steps(&c, 0, t.plan.T);
    return end_course(&c);
}

/* ---- checking ------------------------------------------------------------------------------------------ */

static long passed = 0, failed = 0;
static int running = 0; /* which of SCHEDULES */
static int threads = 0; /* of the schedules to check, or 0 for all */

static int fail(const problem *p, const char *what, int array, ptrdiff_t i, double got, double want)
{
    static int said = 0;
    if (said++ >= 20) return 0;
    printf("FAIL %s %s %s T=%d B=%d I=%d H=%d", p->isa, DTYPE_NAME[p->dtype], CELL_NAME[p->cell], (int)p->T,
           (int)p->B, (int)p->I, (int)p->H);
    printf("%s%s%s, schedule %d: ", p->reverse ? " reverse" : "", p->ragged ? " ragged" : "",
           p->batch_first ? " batch first" : "", running);
    if (array < 0) printf("%s\n", what);
    else printf("%s[%d] %s: got %.17g, expected %.17g\n", ARRAY_NAME[array], (int)i, what, got, want);
    return 0;
}

static int agrees(const problem *p, const image *m)
{
    for (int a = 0; a < ARRAYS; a++) {
        const double tolerance = a < RESULTS ? 0 : TOLERANCE[p->dtype];
        for (ptrdiff_t i = 0; i < p->count[a]; i++) {
            const double got = get(p, m->at[a], i), want = p->want[a][i];
            const int right = isnan(want) ? isnan(got) : fabs(got - want) <= tolerance * (1 + fabs(want));
            if (!right) return fail(p, a < RESULTS ? "was written" : "is wrong", a, i, got, want);
        }
        if (!all_ones(m->memory + m->end[a], GUARD))
            return fail(p, "was written past its end", a, p->count[a], NAN, NAN);
    }
    return all_ones(m->memory, GUARD) || fail(p, "memory in front of the arrays was written", -1, 0, 0, 0);
}

/* Training by one schedule. */
static int train(const fr_kernels *k, const problem *p, const schedule *how, const image *m)
{
    const fr_call t = task_of(p, m);
    const int enough = run_all(k, t, how, 0);
    return (run_all(k, t, how, 1) && enough) || fail(p, "the scratch memory is too small", -1, 0, 0, 0);
}

/* The task of the first way through: no gates, and c of an LSTM (B, H), updated in place. */
static fr_call without_gates(const problem *p, const image *m, void *c)
{
    fr_call t = task_of(p, m);
    t.saved.gates.p = NULL;
    if (!is_lstm(p)) return t;
    t.saved.c = (fr_seq){c, 0, p->H}, t.c0 = c;
    for (ptrdiff_t i = 0; i < p->B * p->H; i++) put(p, c, i, p->start[C0] ? p->start[C0][i] : 0);
    return t;
}

/* c behind the steps from s0 to s1, and their gates, to where a training without checkpoints has them. */
static void show_again(const problem *p, const image *m, const char *c, const char *gates, ptrdiff_t s0, ptrdiff_t s1)
{
    const ptrdiff_t row = p->H * size_of(p);
    for (ptrdiff_t s = s0; s < s1; s++)
        for (ptrdiff_t i = p->first[s]; i < p->first[s + 1]; i++) {
            const ptrdiff_t to = place(p, p->time[i], p->row[i]), from = (s - s0) * p->B + p->row[i];
            if (c) memcpy((char *)m->at[C] + to * row, c + (from + p->B) * row, (size_t)row);
            memcpy((char *)m->at[GATES] + to * 4 * row, gates + from * 4 * row, (size_t)(4 * row));
        }
}

/* Training that keeps y and, of an LSTM, c in front of every so many steps. */
static int train_from_checkpoints(const fr_kernels *k, const problem *p, const schedule *how, ptrdiff_t every, const image *m)
{
    const ptrdiff_t state = p->B * p->H * size_of(p), segments = (p->steps + every - 1) / every;
    char *kept = malloc((size_t)((segments + 1) * state)), *carried = kept + segments * state;
    char *c = is_lstm(p) ? (char *)new_scratch((every + 1) * state) : NULL, *gates = (char *)new_scratch(every * 4 * state);
    course forward = new_course(k, without_gates(p, m, carried), how, 0);
    for (ptrdiff_t i = 0; i < segments; i++) {
        memcpy(kept + i * state, carried, c ? (size_t)state : 0);
        run_steps(&forward, i * every, i + 1 < segments ? (i + 1) * every : p->steps);
    }
    fr_call t = task_of(p, m);
    t.saved.c = (fr_seq){c, p->B * p->H, p->H}, t.saved.gates = (fr_seq){gates, 4 * p->B * p->H, 4 * p->H}, t.saved.recompute = 1;
    course again = new_course(k, t, how, 0), back = new_course(k, t, how, 1);
    for (ptrdiff_t i = segments; i-- > 0;) {
        const ptrdiff_t s0 = i * every, s1 = i + 1 < segments ? s0 + every : p->steps;
        if (c) memcpy(c, kept + i * state, (size_t)state);
        again.t.saved.first_step = back.t.saved.first_step = s0;
        run_steps(&again, s0, s1);
        run_steps(&back, s0, s1);
        show_again(p, m, c, gates, s0, s1);
    }
    int right = end_course(&forward) & end_course(&again) & end_course(&back);
    if (!right) fail(p, "the scratch memory is too small", -1, 0, 0, 0);
    int inside = free_scratch((unsigned char *)gates, every * 4 * state);
    if (c) inside &= free_scratch((unsigned char *)c, (every + 1) * state);
    if (!inside) fail(p, "a segment was written past its end", -1, 0, 0, 0);
    free(kept);
    return right && inside;
}

/* Inference by one schedule, whose y and last c are those of training. */
static int infers(const fr_kernels *k, const problem *p, const schedule *how, const image *trained)
{
    const ptrdiff_t row = p->H * size_of(p);
    image m = new_image(p);
    const fr_call t = without_gates(p, &m, m.at[DC]); /* c in the place of dc, in and out */
    int right = run_all(k, t, how, 0) || fail(p, "the scratch memory is too small", -1, 0, 0, 0);
    if (p->count[Y] && memcmp(m.at[Y], trained->at[Y], (size_t)(p->count[Y] * size_of(p))))
        right = fail(p, "inference gives another y than training", -1, 0, 0, 0);
    for (ptrdiff_t i = 0; is_lstm(p) && i < p->items; i++) {
        const ptrdiff_t b = p->row[i], end = place(p, p->time[i], b);
        int last = 1;
        for (ptrdiff_t j = i + 1; j < p->items; j++) last &= p->row[j] != b;
        if (last && memcmp((char *)m.at[DC] + b * row, (char *)trained->at[C] + end * row, (size_t)row))
            right = fail(p, "inference gives another c than training", -1, 0, 0, 0);
    }
    free(m.memory);
    return right;
}

static void hash_results(const problem *p, const image *m, uint64_t *hash)
{
    for (int a = RESULTS; a < ARRAYS; a++)
        for (ptrdiff_t i = 0; i < p->count[a] * size_of(p); i++)
            *hash = (*hash ^ ((const unsigned char *)m->at[a])[i]) * 0x100000001b3u; /* FNV-1a */
}

/* Checkpoints where they cut no sum, so that they do not show, and where they do. */
static int check_checkpoints(const fr_kernels *k, const problem *p, const schedule *how, const image *first)
{
    if (p->cell <= FR_RNN_RELU || p->steps == 0) return 1;
    fr_sizes sizes;
    const fr_call t = task_of(p, first);
    k->forward_sizes(&t, 1, &sizes);
    int right = 1;
    for (int whole = 0; whole < 2 && right; whole++) {
        image m = new_image(p);
        right = train_from_checkpoints(k, p, how, whole ? sizes.sum_steps : 1 + p->steps / 3, &m);
        if (!whole || how->pieces > 1) right &= agrees(p, &m);
        else if (memcmp(m.memory, first->memory, (size_t)m.bytes))
            right = fail(p, "other bits with checkpoints", -1, 0, 0, 0);
        free(m.memory);
    }
    return right;
}

static int check_problem(const fr_kernels *k, const problem *p, uint64_t *hash)
{
    image first = new_image(p);
    running = 0;
    int right = train(k, p, &SCHEDULES[0], &first) && agrees(p, &first);
    hash_results(p, &first, hash);
    for (int s = 0; right && s < LENGTH(SCHEDULES); s++) {
        if (threads && s > 0 && SCHEDULES[s].threads != threads) continue;
        running = s;
        right = infers(k, p, &SCHEDULES[s], &first);
        if (p->options) right = check_checkpoints(k, p, &SCHEDULES[s], &first) && right;
        if (s == 0) continue;
        image m = new_image(p);
        right &= train(k, p, &SCHEDULES[s], &m);
        if (SCHEDULES[s].pieces > 1) right &= agrees(p, &m);
        else if (memcmp(m.memory, first.memory, (size_t)m.bytes))
            right = fail(p, "other bits than schedule 0", -1, 0, 0, 0);
        free(m.memory);
    }
    free(first.memory);
    return right;
}

/* All cases of these kernels, of an instruction set and a dtype, without or with options; only this cell's, if one is named. Returns
 * their hash. */
static uint64_t check_cases(const char *isa, const fr_kernels *k, int dtype, int options, const char *only)
{
    uint64_t hash = 0xcbf29ce484222325u;
    random_state = 88172645463325252u;
    for (int cell = FR_RNN_TANH; cell <= FR_GRU_BEFORE; cell++) {
        if (options == 2 && cell == FR_RNN_RELU) continue; /* an RNN like the other one */
        if (only && strcmp(only, CELL_NAME[cell])) continue;
        for (int h = 0; h < LENGTH(HIDDEN); h++)
            for (int b = 0; b < LENGTH(ROWS) && HIDDEN[h] * ROWS[b] <= MOST_UNITS; b++) {
                problem p = draw_problem(isa, cell, dtype, HIDDEN[h], ROWS[b], options);
                solve(&p);
                const int right = check_problem(k, &p, &hash);
                passed += right, failed += !right;
                free_problem(&p);
            }
    }
    return hash;
}

static void check_that(int right, const char *what)
{
    if (!right) printf("FAIL %s\n", what);
    passed += right, failed += !right;
}

/* A backward whose middle piece cuts two sums, 5 of 16 and 9 of 16 steps, and has a whole one between them: as many items as a chunk
 * holds, and more blocks of terms than any chunk of a call in one piece. */
static int check_cut_sums(const char *isa, const fr_kernels *k, int dtype, int ragged)
{
    static const schedule how = {1, 0, 0, 240, 1, 0, 0};
    problem p = {.isa = isa, .cell = FR_RNN_RELU, .dtype = dtype, .T = 64, .B = 8, .I = 1, .H = 1, .P = 1, .G = 1};
    draw_plan(&p);
    p.ragged = ragged; /* a plan in full, though rows are as long as each other */
    draw_sizes(&p);
    p.count[DW_IH] = p.count[DW_HH] = 1;
    draw_numbers(&p);
    solve(&p);
    image m = new_image(&p);
    const fr_call t = task_of(&p, &m);
    int right = run_all(k, t, &how, 0);
    course back = new_course(k, t, &how, 1);
    run_steps(&back, 37, 64);
    run_steps(&back, 7, 37);
    run_steps(&back, 0, 7);
    right = (end_course(&back) && right) || fail(&p, "the scratch memory is too small", -1, 0, 0, 0);
    right &= agrees(&p, &m);
    free(m.memory);
    free_problem(&p);
    return right;
}

/* The kernels of an instruction set; of dtypes it does not have, NULL, there are no hashes. */
static void check_isa(const char *isa, const fr_kernels *const k[DTYPES], const char *only, uint64_t hash[ROUNDS][DTYPES])
{
    const long failed_before = failed;
    printf("%-6s", isa);
    for (int options = 0; options < ROUNDS; options++) {
        printf("%s", options == 0 ? "" : options == 1 ? ", with options" : ", with activations");
        for (int dtype = 0; dtype < DTYPES; dtype++) {
            hash[options][dtype] = k[dtype] ? check_cases(isa, k[dtype], dtype, options, only) : 0;
            for (int ragged = 0; ragged < 2 && k[dtype] && !options; ragged++)
                check_that(check_cut_sums(isa, k[dtype], dtype, ragged), "a piece that cuts two sums");
            if (k[dtype]) printf(" %s %016llx", DTYPE_NAME[dtype], (unsigned long long)hash[options][dtype]);
        }
    }
    printf("%s\n", failed > failed_before ? " wrong" : "");
    fflush(stdout);
}

/* The argument at k, or NULL where there is none or it says "all". */
static const char *argument(int argc, char **argv, int k)
{
    return argc > k && strcmp(argv[k], "all") ? argv[k] : NULL;
}

#ifdef AMX_IN_C
extern const fr_kernels fr_kernels_amx_in_c_bf16;
#endif

/* The instruction set at this place and its kernels, those of AMX in C behind all others; NULL past the end. */
static const char *kernels_at(int isa, const fr_kernels *k[DTYPES])
{
    const char *name = fr_isa_name(isa);
    for (int dtype = 0; dtype < DTYPES; dtype++) k[dtype] = name ? fr_kernels_of(isa, dtype) : NULL;
    if (name && !strcmp(name, "amx")) { /* where it is not v4 once more */
        k[FR_F32] = k[FR_F64] = NULL;
        if (!fr_ask_for_amx()) k[FR_BF16] = NULL;
    }
#ifdef AMX_IN_C
    if (!name && (isa == 0 || fr_isa_name(isa - 1))) {
        k[FR_BF16] = &fr_kernels_amx_in_c_bf16;
        return "amx_in_c";
    }
#endif
    return name;
}

static int is_fused(const char *isa) { return strcmp(isa, "scalar") && strcmp(isa, "sse2"); }

int main(int argc, char **argv)
{
    uint64_t hash[ROUNDS][DTYPES], fused[ROUNDS][DTYPES] = {{0}};
    int checked = 0;
    const char *only = argument(argc, argv, 1), *cell = argument(argc, argv, 2), *name;
    const fr_kernels *k[DTYPES];
    threads = argc > 3 ? atoi(argv[3]) : 0;
    for (int isa = 0; (name = kernels_at(isa, k)); isa++) {
        if (only && strcmp(only, name)) continue;
        check_isa(name, k, cell, hash);
        checked++;
        for (int i = 0; is_fused(name) && i < ROUNDS * DTYPES; i++) {
            uint64_t *first = &fused[i / DTYPES][i % DTYPES], mine = hash[i / DTYPES][i % DTYPES];
            if (*first && mine) check_that(*first == mine, "instruction sets with fused multiply-adds give different bits");
            if (mine) *first = mine;
        }
    }
    if (!checked) {
        fprintf(stderr, "usage: %s [isa [cell [threads]]]: this processor does not run %s\n", argv[0], only);
        return 2;
    }
    check_that(passed + failed > 0, "there is no such cell");
    check_that(threads == 1 || teams[1] > 0, "no call for two threads was given two");
    check_that(threads == 1 || ended > 0, "no team ended before its call");
    printf("%ld of %ld calls for two threads were given two, %ld teams ended before their call\n", teams[1], teams[0] + teams[1],
           ended);
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}
