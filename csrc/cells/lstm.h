/* lstm.h - i, f, o = sigmoid(.), g = tanh(.), c_t = f c_{t-1} + i g, h_t = o tanh(c_t).
 * Peepholes: i and f see c_{t-1}, o sees c_t (Gers and Schmidhuber 2000).
 * Projection: h_t = W_hr m_t with m_t = o tanh(c_t), a stage of its own (Sak, Senior and Beaufays 2014). */
#include "cells/cell.h"

/* The slots of a unit in the scratch of a tile: the sums of the gates, and from the first pass to the second c_t and o. */
enum { SUM_I = 0, SUM_F = W, SUM_G = 2 * W, SUM_O = 3 * W, PASS_C = SUM_G, PASS_O = SUM_O };

static ALWAYS_INLINE void lstm_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, const int peep)
{
    const ptrdiff_t H = m->H;
    const REAL *w = m->peephole;
    vec c = v_load_n(e->c_prev + u, lanes), ai = v_load(s + SUM_I), af = v_load(s + SUM_F), ao = v_load(s + SUM_O);
    if (peep) {
        ai = v_fma(v_load_n(w + u, lanes), c, ai);
        af = v_fma(v_load_n(w + H + u, lanes), c, af);
    }
    vec i = v_sigmoid(ai), f = v_sigmoid(af), g = v_tanh(v_load(s + SUM_G));
    c = v_fma(f, c, i * g);
    v_store_n(e->c + u, c, lanes);
    if (peep)
        ao = v_fma(v_load_n(w + 2 * H + u, lanes), c, ao);
    vec o = v_sigmoid(ao);
    v_store(s + PASS_C, c);
    v_store(s + PASS_O, o);
    if (e->gates) {
        REAL *gates = e->gates + u;
        v_store_n(gates, i, lanes);
        v_store_n(gates + H, f, lanes);
        v_store_n(gates + 2 * H, g, lanes);
        v_store_n(gates + 3 * H, o, lanes);
    }
}

static ALWAYS_INLINE void lstm_plain_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    lstm_unit(m, s, e, u, lanes, 0);
}
static ALWAYS_INLINE void lstm_peephole_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    lstm_unit(m, s, e, u, lanes, 1);
}
static ALWAYS_INLINE void lstm_output_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    v_store_n(e->m + u, v_load(s + PASS_O) * v_tanh(v_load(s + PASS_C)), lanes);
}

/* s holds dL/dh_t, or dL/dm_t. */
static ALWAYS_INLINE void lstm_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, const int peep)
{
    const ptrdiff_t H = m->H;
    const REAL *gates = e->gates + u, *w = m->peephole;
    vec dh = v_load(s), i = v_load_n(gates, lanes), f = v_load_n(gates + H, lanes), g = v_load_n(gates + 2 * H, lanes);
    vec o = v_load_n(gates + 3 * H, lanes), c = v_load_n(e->c_prev + u, lanes);
    vec tc = v_tanh(v_load_n(e->c + u, lanes)), dc = v_load_n(e->dc + u, lanes);
    if (e->dcs)
        dc = dc + v_load_n(e->dcs + u, lanes);
    if (e->m)
        v_store_n(e->m + u, o * tc, lanes);
    vec dao = dh * tc * v_dsigmoid(o);
    dc = v_fma(dh * o, v_dtanh(tc), dc);
    if (peep)
        dc = v_fma(dao, v_load_n(w + 2 * H + u, lanes), dc);
    vec dai = dc * g * v_dsigmoid(i), daf = dc * c * v_dsigmoid(f), dag = dc * i * v_dtanh(g);
    dc = dc * f;
    if (peep)
        dc = v_fma(daf, v_load_n(w + H + u, lanes), v_fma(dai, v_load_n(w + u, lanes), dc));
    v_store_n(e->dgates + u, dai, lanes);
    v_store_n(e->dgates + H + u, daf, lanes);
    v_store_n(e->dgates + 2 * H + u, dag, lanes);
    v_store_n(e->dgates + 3 * H + u, dao, lanes);
    v_store_n(e->dc + u, e->cut ? v_zero() : dc, lanes);
}

static ALWAYS_INLINE void lstm_plain_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    lstm_unit_back(m, s, e, u, lanes, 0);
}
static ALWAYS_INLINE void lstm_peephole_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    lstm_unit_back(m, s, e, u, lanes, 1);
}

/* In two passes, because tanh(c) depends on c: independent units fill the latency. */
static NOINLINE void lstm_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_gated_unit(m, s, e, n, p, np, lstm_plain_unit);
    each_gated_unit(m, s, e, n, p, np, lstm_output_unit);
}
static NOINLINE void lstm_peephole_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_gated_unit(m, s, e, n, p, np, lstm_peephole_unit);
    each_gated_unit(m, s, e, n, p, np, lstm_output_unit);
}
static NOINLINE void lstm_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, lstm_plain_unit_back);
}
static NOINLINE void lstm_peephole_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, lstm_peephole_unit_back);
}

/* The projection's own stage: forward, s holds h_t; backward dL/dh_t, which is kept for dm_t and for the gradient of w_hr. */
static ALWAYS_INLINE void project_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    v_store_n(e->y + u, v_load(s), lanes);
}
static ALWAYS_INLINE void project_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    v_store_n(e->dgates + 4 * m->H + u, v_load(s), lanes);
}
static NOINLINE void project_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->P, project_unit);
}
static NOINLINE void project_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->P, project_unit_back);
}

#define LSTM(forward_epilogue, backward_epilogue, ...)                                                      \
    {                                                                                                       \
        .gates = 4, .dgates = 4, .stages = 1,                                                               \
        .forward = {{.nx = 4, .nh = 4, .tile = 4, .x = {0, 1, 2, 3}, .h = {0, 1, 2, 3}, .b_ih = {0, 1, 2, 3}, \
                     .b_hh = {0, 1, 2, 3}, .operand = OPERAND_H, .epilogue = forward_epilogue}},            \
        .backward = {{.gates = 4, .order = {0, 1, 2, 3}, .epilogue = backward_epilogue}},                   \
        .hidden_gradients = 1, .hidden = {{.blocks = 4, .operand = OPERAND_H}},                             \
        .project = project_forward, .project_back = project_back, __VA_ARGS__                               \
    }
static const cell lstm = LSTM(lstm_forward, lstm_back, .peephole_gradients = 0);
static const cell lstm_peephole = LSTM(lstm_peephole_forward, lstm_peephole_back, .peephole_gradients = 3,
                                       .peephole = {{0, 0, C_PREVIOUS}, {1, 1, C_PREVIOUS}, {3, 2, C_CURRENT}});
#undef LSTM
