/* lstm.h - i, f, o = sigmoid(.), g = tanh(.), c_t = f c_{t-1} + i g, h_t = o tanh(c_t).
 * A call may have activations of its own: f in place of sigmoid, g of the tanh of the candidate, h of that of c.
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

/* The saved gates of a unit and tanh(c), and the slopes of their activations. */
typedef struct {
    vec i, f, o, g, tc, di, df, d_o, dg, dtc;
} lstm_gates;

/* s holds dL/dh_t, or dL/dm_t. */
static ALWAYS_INLINE void lstm_back_of(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, const int peep, lstm_gates v)
{
    const ptrdiff_t H = m->H;
    const REAL *w = m->peephole;
    vec dh = v_load(s), c = v_load_n(e->c_prev + u, lanes), dc = v_load_n(e->dc + u, lanes);
    if (e->dcs)
        dc = dc + v_load_n(e->dcs + u, lanes);
    if (e->m)
        v_store_n(e->m + u, v.o * v.tc, lanes);
    vec dao = dh * v.tc * v.d_o;
    dc = v_fma(dh * v.o, v.dtc, dc);
    if (peep)
        dc = v_fma(dao, v_load_n(w + 2 * H + u, lanes), dc);
    vec dai = dc * v.g * v.di, daf = dc * c * v.df, dag = dc * v.i * v.dg;
    dc = dc * v.f;
    if (peep)
        dc = v_fma(daf, v_load_n(w + H + u, lanes), v_fma(dai, v_load_n(w + u, lanes), dc));
    v_store_n(e->dgates + u, dai, lanes);
    v_store_n(e->dgates + H + u, daf, lanes);
    v_store_n(e->dgates + 2 * H + u, dag, lanes);
    v_store_n(e->dgates + 3 * H + u, dao, lanes);
    v_store_n(e->dc + u, e->cut ? v_zero() : dc, lanes);
}

static ALWAYS_INLINE void lstm_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, const int peep)
{
    const ptrdiff_t H = m->H;
    const REAL *gates = e->gates + u;
    lstm_gates v = {.i = v_load_n(gates, lanes), .f = v_load_n(gates + H, lanes), .g = v_load_n(gates + 2 * H, lanes)};
    v.o = v_load_n(gates + 3 * H, lanes), v.tc = v_tanh(v_load_n(e->c + u, lanes));
    v.di = v_dsigmoid(v.i), v.df = v_dsigmoid(v.f), v.dg = v_dtanh(v.g), v.d_o = v_dsigmoid(v.o), v.dtc = v_dtanh(v.tc);
    lstm_back_of(m, s, e, u, lanes, peep, v);
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

/* ---- activations of the call's own --------------------------------------------------------------------- */

/* Before those of i and f: what they see of c. */
static ALWAYS_INLINE void lstm_look_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    vec c = v_load_n(e->c_prev + u, lanes);
    v_store(s + SUM_I, v_fma(v_load_n(m->peephole + u, lanes), c, v_load(s + SUM_I)));
    v_store(s + SUM_F, v_fma(v_load_n(m->peephole + m->H + u, lanes), c, v_load(s + SUM_F)));
}

/* Between those of i, f and g and those of o and c: s holds the gates. */
static ALWAYS_INLINE void lstm_activated_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    const ptrdiff_t H = m->H;
    vec i = v_load(s + SUM_I), f = v_load(s + SUM_F), g = v_load(s + SUM_G);
    vec c = v_fma(f, v_load_n(e->c_prev + u, lanes), i * g);
    v_store_n(e->c + u, c, lanes);
    if (m->peephole)
        v_store(s + SUM_O, v_fma(v_load_n(m->peephole + 2 * H + u, lanes), c, v_load(s + SUM_O)));
    v_store(s + PASS_C, c);
    if (e->gates) {
        REAL *gates = e->gates + u;
        v_store_n(gates, i, lanes);
        v_store_n(gates + H, f, lanes);
        v_store_n(gates + 2 * H, g, lanes);
    }
}

/* After all of them. */
static ALWAYS_INLINE void lstm_activated_output_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    vec o = v_load(s + PASS_O);
    v_store_n(e->m + u, o * v_load(s + PASS_C), lanes);
    if (e->gates)
        v_store_n(e->gates + 3 * m->H + u, o, lanes);
}

/* Peepholes look at c before its row's next step: where steps are computed again, a tile may have several of one row, so rows take turns. */
static ALWAYS_INLINE void lstm_gates_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np, const int peep)
{
    const fr_activation *f = m->call->activation;
    const int together = peep && m->call->saved.recompute ? 1 : n;
    activate_slots(&f[1], s + SUM_G, n, np, 1);
    for (int r = 0; r < n; r += together) {
        REAL *of_rows = s + r * 4 * W;
        if (peep)
            each_gated_unit(m, of_rows, e + r, together, p, np, lstm_look_unit);
        activate_slots(&f[0], of_rows + SUM_I, together, np, 2);
        each_gated_unit(m, of_rows, e + r, together, p, np, lstm_activated_unit);
    }
    activate_slots(&f[0], s + SUM_O, n, np, 1);
    activate_slots(&f[2], s + PASS_C, n, np, 1);
    each_gated_unit(m, s, e, n, p, np, lstm_activated_output_unit);
}
static NOINLINE void lstm_activated_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    lstm_gates_forward(m, s, e, n, p, np, 0);
}
static NOINLINE void lstm_peephole_activated_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    lstm_gates_forward(m, s, e, n, p, np, 1);
}

/* Rows of values: i, f, o, g and the activation of c. */
static ALWAYS_INLINE void lstm_activated_panel_back(const member *m, REAL *s, const item *e, ptrdiff_t u, int vectors, const int peep)
{
    static const int GATE[] = {0, 1, 3, 2};
    const fr_activation *f = m->call->activation;
    values v;
    for (int row = 0; row < 4; row++)
        load_values(&v, row, e->gates + GATE[row] * m->H, u, vectors, m->H);
    load_values(&v, 4, e->c, u, vectors, m->H);
    activate(&f[2], v.value + 16 * W, v.value + 16 * W, 1, vectors);
    find_slopes(&f[0], &v, 0, 3, vectors);
    find_slopes(&f[1], &v, 3, 1, vectors);
    find_slopes(&f[2], &v, 4, 1, vectors);
    for (int k = 0; k < vectors; k++, u += W) {
        const REAL *y = v.value + k * W, *d = v.slope + k * W;
        const lstm_gates gates = {
            v_load(y), v_load(y + 4 * W), v_load(y + 8 * W), v_load(y + 12 * W), v_load(y + 16 * W),
            v_load(d), v_load(d + 4 * W), v_load(d + 8 * W), v_load(d + 12 * W), v_load(d + 16 * W),
        };
        lstm_back_of(m, s + k * W, e, u, fr_min(W, m->H - u), peep, gates);
    }
}
static ALWAYS_INLINE void lstm_plain_panel_back(const member *m, REAL *s, const item *e, ptrdiff_t u, int vectors)
{
    lstm_activated_panel_back(m, s, e, u, vectors, 0);
}
static ALWAYS_INLINE void lstm_peephole_panel_back(const member *m, REAL *s, const item *e, ptrdiff_t u, int vectors)
{
    lstm_activated_panel_back(m, s, e, u, vectors, 1);
}
static NOINLINE void lstm_activated_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_panel(m, s, e, n, p, np, lstm_plain_panel_back);
}
static NOINLINE void lstm_peephole_activated_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_panel(m, s, e, n, p, np, lstm_peephole_panel_back);
}

/* ---- the projection ------------------------------------------------------------------------------------ */

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

#define LSTM(forward_epilogue, backward_epilogue, activated_forward, activated_back, ...)                   \
    {                                                                                                       \
        .gates = 4, .dgates = 4, .stages = 1,                                                               \
        .forward = {{.nx = 4, .nh = 4, .tile = 4, .x = {0, 1, 2, 3}, .h = {0, 1, 2, 3}, .b_ih = {0, 1, 2, 3}, \
                     .b_hh = {0, 1, 2, 3}, .operand = OPERAND_H, .epilogue = forward_epilogue,              \
                     .activated = activated_forward}},                                                      \
        .backward = {{.gates = 4, .order = {0, 1, 2, 3}, .epilogue = backward_epilogue, .activated = activated_back}}, \
        .hidden_gradients = 1, .hidden = {{.blocks = 4, .operand = OPERAND_H}},                             \
        .project = project_forward, .project_back = project_back, __VA_ARGS__                               \
    }
static const cell lstm = LSTM(lstm_forward, lstm_back, lstm_activated_forward, lstm_activated_back, .peephole_gradients = 0);
static const cell lstm_peephole = LSTM(lstm_peephole_forward, lstm_peephole_back, lstm_peephole_activated_forward,
                                       lstm_peephole_activated_back, .peephole_gradients = 3,
                                       .peephole = {{0, 0, C_PREVIOUS}, {1, 1, C_PREVIOUS}, {3, 2, C_CURRENT}});
#undef LSTM
