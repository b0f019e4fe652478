/* gru.tmpl.h - r, z = sigmoid(.), h_t = (1 - z) n + z h_{t-1}, and
 *   reset after  (Chung 2014, PyTorch):   n = tanh(W_in x + b_in + r (W_hn h + b_hn))
 *   reset before (Cho 2014):              n = tanh(W_in x + b_in + W_hn (r h) + b_hn), in two stages: r and z, then n. */

/* One block of units of one row, reset after; s holds the sums of n's input part, r, z, n's recurrent part, and afterwards what n is
 * the tanh of, r and z in place of the first three. */
static ALWAYS_INLINE void NAME(gru_unit_rz)(REAL *s)
{
    vec r = v_sigmoid(v_load(s + W)), z = v_sigmoid(v_load(s + 2 * W));
    v_store(s, v_fma(r, v_load(s + 3 * W), v_load(s)));
    v_store(s + W, r);
    v_store(s + 2 * W, z);
}

static ALWAYS_INLINE void NAME(gru_unit_n)(const call *m, const REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    vec n = v_tanh(v_load(s)), z = v_load(s + 2 * W), h = v_load_n(e->h + u, lanes);
    v_store_n(e->y + u, v_fma(z, h - n, n), lanes);
    if (e->gates) {
        REAL *gates = e->gates + u;
        v_store_n(gates, v_load(s + W), lanes);
        v_store_n(gates + m->H, z, lanes);
        v_store_n(gates + 2 * m->H, n, lanes);
        v_store_n(gates + 3 * m->H, v_load(s + 3 * W), lanes);
    }
}

/* dgates: those of W_hn h, r, z, W_in x; what flows straight to h_{t-1} is carried in dh. */
static ALWAYS_INLINE void NAME(gru_unit_back)(const call *m, vec dh, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    const ptrdiff_t H = m->H;
    const vec one = v_set1(1);
    const REAL *gates = e->gates + u;
    vec r = v_load_n(gates, lanes), z = v_load_n(gates + H, lanes), n = v_load_n(gates + 2 * H, lanes);
    vec hn = v_load_n(gates + 3 * H, lanes), h = v_load_n(e->h + u, lanes);
    vec dan = dh * (one - z) * v_fnma(n, n, one);
    v_store_n(e->dg + u, dan * r, lanes);
    v_store_n(e->dg + H + u, dan * hn * v_fnma(r, r, r), lanes);
    v_store_n(e->dg + 2 * H + u, dh * (h - n) * v_fnma(z, z, z), lanes);
    v_store_n(e->dg + 3 * H + u, dan, lanes);
    v_store_n(e->dh + u, e->cut ? v_zero() : dh * z, lanes);
}

static NOINLINE void NAME(gru_point)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int i = 0; i < n * np; i++)
        NAME(gru_unit_rz)(s + i * 4 * W);
    for (int r = 0; r < n; r++)
        for (ptrdiff_t b = p; b < p + np; b++, s += 4 * W) {
#define FR_POINT(u, lanes) NAME(gru_unit_n)(m, s, e[r], u, lanes)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

static NOINLINE void NAME(gru_back)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes) NAME(gru_unit_back)(m, v_load(s + (b - p * 4) * W), e[r], u, lanes)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

/* Reset before, first stage: r, z and r*h. */
static NOINLINE void NAME(gru_before_rz)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++)
        for (ptrdiff_t b = p; b < p + np; b++, s += 4 * W) {
#define FR_POINT(u, lanes)                                                                                                        \
    do {                                                                                                                          \
        REAL *gates = e[r]->gates + (u);                                                                                          \
        vec reset = v_sigmoid(v_load(s)), z = v_sigmoid(v_load(s + W));                                                           \
        v_store_n(gates, reset, lanes);                                                                                           \
        v_store_n(gates + m->H, z, lanes);                                                                                        \
        v_store_n(gates + 3 * m->H, reset * v_load_n(e[r]->h + (u), lanes), lanes);                                               \
    } while (0)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

/* Second stage: n and h. */
static NOINLINE void NAME(gru_before_n)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes)                                                                                                        \
    do {                                                                                                                          \
        REAL *gates = e[r]->gates + (u);                                                                                          \
        vec z = v_load_n(gates + m->H, lanes), h = v_load_n(e[r]->h + (u), lanes);                                                \
        vec candidate = v_tanh(v_load(s + (b - p * 4) * W));                                                                      \
        v_store_n(gates + 2 * m->H, candidate, lanes);                                                                            \
        v_store_n(e[r]->y + (u), v_fma(z, h - candidate, candidate), lanes);                                                      \
    } while (0)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

/* Backward, first stage: s holds dL/dh_t; z and n, and what flows straight to h_{t-1}. */
static NOINLINE void NAME(gru_before_back_zn)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    const vec one = v_set1(1);
    const ptrdiff_t H = m->H;
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes)                                                                                                        \
    do {                                                                                                                          \
        const REAL *gates = e[r]->gates + (u);                                                                                    \
        vec dh = v_load(s + (b - p * 4) * W), h = v_load_n(e[r]->h + (u), lanes);                                                 \
        vec z = v_load_n(gates + H, lanes), candidate = v_load_n(gates + 2 * H, lanes);                                           \
        v_store_n(e[r]->dg + H + (u), dh * (h - candidate) * v_fnma(z, z, z), lanes);                                             \
        v_store_n(e[r]->dg + 2 * H + (u), dh * (one - z) * v_fnma(candidate, candidate, one), lanes);                             \
        v_store_n(e[r]->dh + (u), e[r]->cut ? v_zero() : dh * z, lanes);                                                          \
    } while (0)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

/* Second stage: s holds the gradient of r*h_{t-1}. */
static NOINLINE void NAME(gru_before_back_r)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes)                                                                                                        \
    do {                                                                                                                          \
        vec drh = v_load(s + (b - p * 4) * W), h = v_load_n(e[r]->h + (u), lanes), reset = v_load_n(e[r]->gates + (u), lanes);    \
        v_store_n(e[r]->dg + (u), drh * h * v_fnma(reset, reset, reset), lanes);                                                  \
        if (!e[r]->cut)                                                                                                           \
            v_store_n(e[r]->dh + (u), v_fma(drh, reset, v_load_n(e[r]->dh + (u), lanes)), lanes);                                 \
    } while (0)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}
