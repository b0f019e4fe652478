/* rnn.tmpl.h - h_t = tanh(a) or max(0, a), a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh. */

#define FR_BLOCKS(p, np) fr_min(((p) + (np)) * 4, m->blocks)
/* Run DO(u, n) with n = W spelled out where the block is full, so that masks cost nothing there. */
#define FR_LANES(b, DO) FR_LANES_OF(m->H, b, DO)
#define FR_LANES_OF(units, b, DO)                                                                                                 \
    do {                                                                                                                          \
        ptrdiff_t u_ = (b) * W, n_ = (units)-u_;                                                                                  \
        if (n_ >= W)                                                                                                              \
            DO(u_, W);                                                                                                            \
        else                                                                                                                      \
            DO(u_, n_);                                                                                                           \
    } while (0)

/* The pointwise part of one tile: s holds the sums of n rows by np panels from panel p on, four blocks of units a panel. */
static NOINLINE void NAME(rnn_tanh_point)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes) v_store_n(e[r]->y + (u), v_tanh(v_load(s + (b - p * 4) * W)), lanes)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

static NOINLINE void NAME(rnn_relu_point)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes) v_store_n(e[r]->y + (u), v_max(v_zero(), v_load(s + (b - p * 4) * W)), lanes)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

/* s holds dL/dh_t; da = dh * (1 - h^2), or dh where h > 0. */
static NOINLINE void NAME(rnn_tanh_back)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    const vec one = v_set1(1);
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes)                                                                                                        \
    do {                                                                                                                          \
        vec h = v_load_n(e[r]->y + (u), lanes);                                                                                   \
        v_store_n(e[r]->dg + (u), v_load(s + (b - p * 4) * W) * v_fnma(h, h, one), lanes);                                        \
    } while (0)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

static NOINLINE void NAME(rnn_relu_back)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes)                                                                                                        \
    do {                                                                                                                          \
        vec h = v_load_n(e[r]->y + (u), lanes);                                                                                   \
        v_store_n(e[r]->dg + (u), v_select_gt(h, v_zero(), v_load(s + (b - p * 4) * W), v_zero()), lanes);                        \
    } while (0)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}
