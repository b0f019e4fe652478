/* rnn.h - h_t = tanh(a), max(0, a) or another activation of a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh. */
#include "cells/cell.h"

static ALWAYS_INLINE void tanh_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    v_store_n(e->y + u, v_tanh(v_load(s)), lanes);
}

static ALWAYS_INLINE void relu_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    v_store_n(e->y + u, v_max(v_zero(), v_load(s)), lanes);
}

/* s holds dL/dh_t; da = dh * (1 - h^2), or dh where h > 0. */
static ALWAYS_INLINE void tanh_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    v_store_n(e->dgates + u, v_load(s) * v_dtanh(v_load_n(e->y + u, lanes)), lanes);
}

static ALWAYS_INLINE void relu_unit_back(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    v_store_n(e->dgates + u, v_select_gt(v_load_n(e->y + u, lanes), v_zero(), v_load(s), v_zero()), lanes);
}

static NOINLINE void tanh_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, tanh_unit);
}
static NOINLINE void relu_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, relu_unit);
}
static NOINLINE void tanh_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, tanh_unit_back);
}
static NOINLINE void relu_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->H, relu_unit_back);
}

/* ---- another activation -------------------------------------------------------------------------------- */

static ALWAYS_INLINE void rnn_activated_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    v_store_n(e->y + u, v_load(s), lanes);
}
static NOINLINE void rnn_activated_forward(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    activate_units(&m->call->activation[0], s, n, p, np, m->H);
    each_unit(m, s, e, n, p, np, m->H, rnn_activated_unit);
}

static ALWAYS_INLINE void rnn_activated_panel_back(const member *m, REAL *s, const item *e, ptrdiff_t u, int vectors)
{
    values v;
    load_values(&v, 0, e->y, u, vectors, m->H);
    find_slopes(&m->call->activation[0], &v, 0, 1, vectors);
    for (int k = 0; k < vectors; k++, u += W)
        v_store_n(e->dgates + u, v_load(s + k * W) * v_load(v.slope + k * W), fr_min(W, m->H - u));
}
static NOINLINE void rnn_activated_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_panel(m, s, e, n, p, np, rnn_activated_panel_back);
}

#define RNN(forward_epilogue, backward_epilogue)                                                    \
    {                                                                                               \
        .gates = 1, .dgates = 1, .stages = 1,                                                       \
        .forward = {{.nx = 1, .nh = 1, .tile = 1, .operand = OPERAND_H, .epilogue = forward_epilogue, \
                     .activated = rnn_activated_forward}},                                          \
        .backward = {{.gates = 1, .epilogue = backward_epilogue, .activated = rnn_activated_back}}, \
        .hidden_gradients = 1, .hidden = {{.blocks = 1, .operand = OPERAND_H}},                     \
    }
static const cell rnn_tanh = RNN(tanh_forward, tanh_back);
static const cell rnn_relu = RNN(relu_forward, relu_back);
#undef RNN
