/* gru.h - r, z = sigmoid(.), h_t = (1 - z) n + z h_{t-1}, and
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

static ALWAYS_INLINE void gru_after_n_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    vec n = v_tanh(v_load(s + PASS_N)), z = v_load(s + PASS_Z), h = v_load_n(e->h_prev + u, lanes);
    v_store_n(e->y + u, v_fma(z, h - n, n), lanes);
    if (e->gates) {
        REAL *gates = e->gates + u;
        v_store_n(gates, v_load(s + PASS_R), lanes);
        v_store_n(gates + m->H, z, lanes);
        v_store_n(gates + 2 * m->H, n, lanes);
        v_store_n(gates + 3 * m->H, v_load(s + SUM_NH), lanes);
    }
}

/* dgates: those of W_hn h, r, z, W_in x; what flows straight to h_{t-1} is carried in dh. */
static ALWAYS_INLINE void gru_after_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    const ptrdiff_t H = m->H;
    const REAL *gates = e->gates + u;
    vec dh = v_load(s), r = v_load_n(gates, lanes), z = v_load_n(gates + H, lanes), n = v_load_n(gates + 2 * H, lanes);
    vec hn = v_load_n(gates + 3 * H, lanes), h = v_load_n(e->h_prev + u, lanes);
    vec dan = dh * (v_set1(1) - z) * v_dtanh(n);
    v_store_n(e->dgates + u, dan * r, lanes);
    v_store_n(e->dgates + H + u, dan * hn * v_dsigmoid(r), lanes);
    v_store_n(e->dgates + 2 * H + u, dh * (h - n) * v_dsigmoid(z), lanes);
    v_store_n(e->dgates + 3 * H + u, dan, lanes);
    v_store_n(e->dh + u, e->cut ? v_zero() : dh * z, lanes);
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

static const cell gru_after = {
    .gates = 3, .dgates = 4, .dgates_x = 1, .direct_dh = 1, .stages = 1,
    .forward = {{.nx = 3, .nh = 3, .h_at = 1, .tile = 4, .x = {2, 0, 1}, .h = {0, 1, 2}, .b_ih = {2, 0, 1, -1},
                 .b_hh = {-1, 0, 1, 2}, .operand = OPERAND_H, .epilogue = gru_after_forward}},
    .backward = {{.gates = 3, .order = {2, 0, 1}, .epilogue = gru_after_back}},
    .hidden_gradients = 2,
    .hidden = {{.dgates_at = 1, .blocks = 2, .row = 0, .operand = OPERAND_H}, {.dgates_at = 0, .blocks = 1, .row = 2, .operand = OPERAND_H}},
};

/* ---- reset before -------------------------------------------------------------------------------------- */

/* First stage: r, z and r*h. */
static ALWAYS_INLINE void gru_before_rz_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    REAL *gates = e->gates + u;
    vec r = v_sigmoid(v_load(s)), z = v_sigmoid(v_load(s + W));
    v_store_n(gates, r, lanes);
    v_store_n(gates + m->H, z, lanes);
    v_store_n(gates + 3 * m->H, r * v_load_n(e->h_prev + u, lanes), lanes);
}

/* Second stage: n and h. */
static ALWAYS_INLINE void gru_before_n_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    REAL *gates = e->gates + u;
    vec z = v_load_n(gates + m->H, lanes), h = v_load_n(e->h_prev + u, lanes), n = v_tanh(v_load(s));
    v_store_n(gates + 2 * m->H, n, lanes);
    v_store_n(e->y + u, v_fma(z, h - n, n), lanes);
}

/* Backward, first stage: s holds dL/dh_t; z and n, and what flows straight to h_{t-1}. */
static ALWAYS_INLINE void gru_before_zn_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    const ptrdiff_t H = m->H;
    const REAL *gates = e->gates + u;
    vec dh = v_load(s), h = v_load_n(e->h_prev + u, lanes), z = v_load_n(gates + H, lanes), n = v_load_n(gates + 2 * H, lanes);
    v_store_n(e->dgates + H + u, dh * (h - n) * v_dsigmoid(z), lanes);
    v_store_n(e->dgates + 2 * H + u, dh * (v_set1(1) - z) * v_dtanh(n), lanes);
    v_store_n(e->dh + u, e->cut ? v_zero() : dh * z, lanes);
}

/* Second stage: s holds the gradient of r*h_{t-1}. */
static ALWAYS_INLINE void gru_before_r_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    vec drh = v_load(s), h = v_load_n(e->h_prev + u, lanes), r = v_load_n(e->gates + u, lanes);
    v_store_n(e->dgates + u, drh * h * v_dsigmoid(r), lanes);
    if (!e->cut)
        v_store_n(e->dh + u, v_fma(drh, r, v_load_n(e->dh + u, lanes)), lanes);
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

static const cell gru_before = {
    .gates = 3, .dgates = 3, .direct_dh = 1, .gates_needed = 1, .stages = 2,
    .forward = {{.nx = 2, .nh = 2, .tile = 2, .x = {0, 1}, .h = {0, 1}, .b_ih = {0, 1}, .b_hh = {0, 1}, .operand = OPERAND_H,
                 .epilogue = gru_before_rz_forward},
                {.nx = 1, .nh = 1, .tile = 1, .x = {2}, .h = {2}, .b_ih = {2}, .b_hh = {2}, .operand = OPERAND_RH,
                 .epilogue = gru_before_n_forward}},
    .backward = {{.gates = 2, .order = {0, 1}, .epilogue = gru_before_zn_back},
                 {.gates = 1, .order = {2}, .dgates_at = 2, .own = 1, .epilogue = gru_before_r_back}},
    .hidden_gradients = 2,
    .hidden = {{.dgates_at = 0, .blocks = 2, .row = 0, .operand = OPERAND_H}, {.dgates_at = 2, .blocks = 1, .row = 2, .operand = OPERAND_RH}},
};
