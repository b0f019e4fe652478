/* gru.h - r, z = sigmoid(.), h_t = (1 - z) n + z h_{t-1}, with f in place of sigmoid and g of tanh where a call has its own, and
 *   reset after  (Chung 2014, PyTorch):   n = tanh(W_in x + b_in + r (W_hn h + b_hn))
 *   reset before (Cho 2014):              n = tanh(W_in x + b_in + W_hn (r h) + b_hn), in two stages: r and z, then n. */
#include "cells/cell.h"

/* ---- reset after --------------------------------------------------------------------------------------- */

/* The slots of a unit in the scratch of a tile: the sums, and from the first pass to the second what n is the tanh of, r and z. */
enum { SUM_NX = 0, SUM_R = W, SUM_Z = 2 * W, SUM_NH = 3 * W, PASS_N = SUM_NX, PASS_R = SUM_R, PASS_Z = SUM_Z };

static ALWAYS_INLINE void gru_after_rz_unit(REAL *s)
{
    vec r = v_sigmoid(v_load(s + SUM_R)), z = v_sigmoid(v_load(s + SUM_Z));
    v_store(s + PASS_N, v_fma(r, v_load(s + SUM_NH), v_load(s + SUM_NX)));
    v_store(s + PASS_R, r);
    v_store(s + PASS_Z, z);
}

/* The rest, from n on. */
static ALWAYS_INLINE void gru_after_finish(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, vec n)
{
    vec z = v_load(s + PASS_Z), h = v_load_n(e->h_prev + u, lanes);
    v_store_n(e->y + u, v_fma(z, h - n, n), lanes);
    if (e->gates) {
        REAL *gates = e->gates + u;
        v_store_n(gates, v_load(s + PASS_R), lanes);
        v_store_n(gates + m->H, z, lanes);
        v_store_n(gates + 2 * m->H, n, lanes);
        v_store_n(gates + 3 * m->H, v_load(s + SUM_NH), lanes);
    }
}
static ALWAYS_INLINE void gru_after_n_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    gru_after_finish(m, s, e, u, lanes, v_tanh(v_load(s + PASS_N)));
}
static ALWAYS_INLINE void gru_after_activated_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    gru_after_finish(m, s, e, u, lanes, v_load(s + PASS_N));
}

/* The saved gates of a unit, and the slopes of their activations. */
typedef struct {
    vec r, z, n, dr, dz, dn;
} gru_gates;

/* dgates: those of W_hn h, r, z, W_in x; what flows straight to h_{t-1} is carried in dh. */
static ALWAYS_INLINE void gru_after_step_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, gru_gates g)
{
    const ptrdiff_t H = m->H;
    vec dh = v_load(s), hn = v_load_n(e->gates + 3 * H + u, lanes), h = v_load_n(e->h_prev + u, lanes);
    vec dan = dh * (v_set1(1) - g.z) * g.dn;
    v_store_n(e->dgates + u, dan * g.r, lanes);
    v_store_n(e->dgates + H + u, dan * hn * g.dr, lanes);
    v_store_n(e->dgates + 2 * H + u, dh * (h - g.n) * g.dz, lanes);
    v_store_n(e->dgates + 3 * H + u, dan, lanes);
    v_store_n(e->dh + u, e->cut ? v_zero() : dh * g.z, lanes);
}

static ALWAYS_INLINE void gru_after_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    const REAL *gates = e->gates + u;
    vec r = v_load_n(gates, lanes), z = v_load_n(gates + m->H, lanes), n = v_load_n(gates + 2 * m->H, lanes);
    gru_after_step_back(m, s, e, u, lanes, (gru_gates){r, z, n, v_dsigmoid(r), v_dsigmoid(z), v_dtanh(n)});
}

/* r, z, n of some units as rows of values, and their slopes. */
static inline void gru_values(const member *m, const item *e, ptrdiff_t u, int vectors, values *v)
{
    for (int gate = 0; gate < 3; gate++)
        load_values(v, gate, e->gates + gate * m->H, u, vectors, m->H);
    find_slopes(&m->call->activation[0], v, 0, 2, vectors);
    find_slopes(&m->call->activation[1], v, 2, 1, vectors);
}
static ALWAYS_INLINE gru_gates gru_gates_at(const values *v, int k)
{
    const REAL *y = v->value + k * W, *d = v->slope + k * W;
    return (gru_gates){v_load(y), v_load(y + 4 * W), v_load(y + 8 * W), v_load(d), v_load(d + 4 * W), v_load(d + 8 * W)};
}
static ALWAYS_INLINE void gru_after_panel_back(const member *m, REAL *s, const item *e, ptrdiff_t u, int vectors)
{
    values v;
    gru_values(m, e, u, vectors, &v);
    for (int k = 0; k < vectors; k++, u += W)
        gru_after_step_back(m, s + k * W, e, u, fr_min(W, m->H - u), gru_gates_at(&v, k));
}

/* In two passes, because n depends on r: independent units fill the latency. */
static NOINLINE void gru_after_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int i = 0; i < n * np; i++)
        gru_after_rz_unit(s + i * 4 * W);
    each_gated_unit(m, s, e, n, p, np, gru_after_n_unit);
}
static NOINLINE void gru_after_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, gru_after_unit_back);
}

static ALWAYS_INLINE void gru_after_sum_unit(REAL *s)
{
    v_store(s + PASS_N, v_fma(v_load(s + PASS_R), v_load(s + SUM_NH), v_load(s + SUM_NX)));
}
static NOINLINE void gru_after_activated_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    activate_slots(&m->call->activation[0], s + SUM_R, n, np, 2);
    for (int i = 0; i < n * np; i++)
        gru_after_sum_unit(s + i * 4 * W);
    activate_slots(&m->call->activation[1], s + PASS_N, n, np, 1);
    each_gated_unit(m, s, e, n, p, np, gru_after_activated_unit);
}
static NOINLINE void gru_after_activated_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_panel(m, s, e, n, p, np, gru_after_panel_back);
}

static const cell gru_after = {
    .gates = 3, .dgates = 4, .dgates_x = 1, .direct_dh = 1, .stages = 1,
    .forward = {{.nx = 3, .nh = 3, .h_at = 1, .tile = 4, .x = {2, 0, 1}, .h = {0, 1, 2}, .b_ih = {2, 0, 1, -1},
                 .b_hh = {-1, 0, 1, 2}, .operand = OPERAND_H, .epilogue = gru_after_forward,
                 .activated = gru_after_activated_forward}},
    .backward = {{.gates = 3, .order = {2, 0, 1}, .epilogue = gru_after_back, .activated = gru_after_activated_back}},
    .hidden_gradients = 2,
    .hidden = {{.dgates_at = 1, .blocks = 2, .row = 0, .operand = OPERAND_H}, {.dgates_at = 0, .blocks = 1, .row = 2, .operand = OPERAND_H}},
};

/* ---- reset before -------------------------------------------------------------------------------------- */

/* First stage: r, z and r*h. */
static ALWAYS_INLINE void gru_before_rz(const member *m, const item *e, ptrdiff_t u, ptrdiff_t lanes, vec r, vec z)
{
    REAL *gates = e->gates + u;
    v_store_n(gates, r, lanes);
    v_store_n(gates + m->H, z, lanes);
    v_store_n(gates + 3 * m->H, r * v_load_n(e->h_prev + u, lanes), lanes);
}
static ALWAYS_INLINE void gru_before_rz_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    gru_before_rz(m, e, u, lanes, v_sigmoid(v_load(s)), v_sigmoid(v_load(s + W)));
}
static ALWAYS_INLINE void gru_before_activated_rz_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    gru_before_rz(m, e, u, lanes, v_load(s), v_load(s + W));
}

/* Second stage: n and h. */
static ALWAYS_INLINE void gru_before_n(const member *m, const item *e, ptrdiff_t u, ptrdiff_t lanes, vec n)
{
    REAL *gates = e->gates + u;
    vec z = v_load_n(gates + m->H, lanes), h = v_load_n(e->h_prev + u, lanes);
    v_store_n(gates + 2 * m->H, n, lanes);
    v_store_n(e->y + u, v_fma(z, h - n, n), lanes);
}
static ALWAYS_INLINE void gru_before_n_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    gru_before_n(m, e, u, lanes, v_tanh(v_load(s)));
}
static ALWAYS_INLINE void gru_before_activated_n_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    gru_before_n(m, e, u, lanes, v_load(s));
}

/* Backward, first stage: s holds dL/dh_t; z and n, and what flows straight to h_{t-1}. */
static ALWAYS_INLINE void gru_before_zn_back_of(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, gru_gates g)
{
    const ptrdiff_t H = m->H;
    vec dh = v_load(s), h = v_load_n(e->h_prev + u, lanes);
    v_store_n(e->dgates + H + u, dh * (h - g.n) * g.dz, lanes);
    v_store_n(e->dgates + 2 * H + u, dh * (v_set1(1) - g.z) * g.dn, lanes);
    v_store_n(e->dh + u, e->cut ? v_zero() : dh * g.z, lanes);
}
static ALWAYS_INLINE void gru_before_zn_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    vec z = v_load_n(e->gates + m->H + u, lanes), n = v_load_n(e->gates + 2 * m->H + u, lanes);
    gru_before_zn_back_of(m, s, e, u, lanes, (gru_gates){.z = z, .n = n, .dz = v_dsigmoid(z), .dn = v_dtanh(n)});
}
static ALWAYS_INLINE void gru_before_zn_panel_back(const member *m, REAL *s, const item *e, ptrdiff_t u, int vectors)
{
    values v;
    gru_values(m, e, u, vectors, &v);
    for (int k = 0; k < vectors; k++, u += W)
        gru_before_zn_back_of(m, s + k * W, e, u, fr_min(W, m->H - u), gru_gates_at(&v, k));
}

/* Second stage: s holds the gradient of r*h_{t-1}. */
static ALWAYS_INLINE void gru_before_r_back_of(REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, vec r, vec dr)
{
    vec drh = v_load(s), h = v_load_n(e->h_prev + u, lanes);
    v_store_n(e->dgates + u, drh * h * dr, lanes);
    if (!e->cut)
        v_store_n(e->dh + u, v_fma(drh, r, v_load_n(e->dh + u, lanes)), lanes);
}
static ALWAYS_INLINE void gru_before_r_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    vec r = v_load_n(e->gates + u, lanes);
    gru_before_r_back_of(s, e, u, lanes, r, v_dsigmoid(r));
}
static ALWAYS_INLINE void gru_before_r_panel_back(const member *m, REAL *s, const item *e, ptrdiff_t u, int vectors)
{
    values v;
    load_values(&v, 0, e->gates, u, vectors, m->H);
    find_slopes(&m->call->activation[0], &v, 0, 1, vectors);
    for (int k = 0; k < vectors; k++, u += W)
        gru_before_r_back_of(s + k * W, e, u, fr_min(W, m->H - u), v_load(v.value + k * W), v_load(v.slope + k * W));
}

static NOINLINE void gru_before_rz_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_gated_unit(m, s, e, n, p, np, gru_before_rz_unit);
}
static NOINLINE void gru_before_n_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, gru_before_n_unit);
}
static NOINLINE void gru_before_zn_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, gru_before_zn_unit_back);
}
static NOINLINE void gru_before_r_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, gru_before_r_unit_back);
}

static NOINLINE void gru_before_activated_rz_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    activate_slots(&m->call->activation[0], s, n, np, 2);
    each_gated_unit(m, s, e, n, p, np, gru_before_activated_rz_unit);
}
static NOINLINE void gru_before_activated_n_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    activate_units(&m->call->activation[1], s, n, p, np, m->H);
    each_unit(m, s, e, n, p, np, m->H, gru_before_activated_n_unit);
}
static NOINLINE void gru_before_activated_zn_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_panel(m, s, e, n, p, np, gru_before_zn_panel_back);
}
static NOINLINE void gru_before_activated_r_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_panel(m, s, e, n, p, np, gru_before_r_panel_back);
}

static const cell gru_before = {
    .gates = 3, .dgates = 3, .direct_dh = 1, .gates_needed = 1, .stages = 2,
    .forward = {{.nx = 2, .nh = 2, .tile = 2, .x = {0, 1}, .h = {0, 1}, .b_ih = {0, 1}, .b_hh = {0, 1}, .operand = OPERAND_H,
                 .epilogue = gru_before_rz_forward, .activated = gru_before_activated_rz_forward},
                {.nx = 1, .nh = 1, .tile = 1, .x = {2}, .h = {2}, .b_ih = {2}, .b_hh = {2}, .operand = OPERAND_RH,
                 .epilogue = gru_before_n_forward, .activated = gru_before_activated_n_forward}},
    .backward = {{.gates = 2, .order = {0, 1}, .epilogue = gru_before_zn_back, .activated = gru_before_activated_zn_back},
                 {.gates = 1, .order = {2}, .dgates_at = 2, .own = 1, .epilogue = gru_before_r_back,
                  .activated = gru_before_activated_r_back}},
    .hidden_gradients = 2,
    .hidden = {{.dgates_at = 0, .blocks = 2, .row = 0, .operand = OPERAND_H}, {.dgates_at = 2, .blocks = 1, .row = 2, .operand = OPERAND_RH}},
};
