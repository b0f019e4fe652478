/* lstm.tmpl.h - i, f, o = sigmoid(.), g = tanh(.), c_t = f c_{t-1} + i g, h_t = o tanh(c_t).
 * Peepholes: i and f see c_{t-1}, o sees c_t (Gers and Schmidhuber 2000).
 * Projection: h_t = W_hr m_t with m_t = o tanh(c_t), a stage of its own (Sak, Senior and Beaufays 2014). */

/* One block of units of one row; s holds the four sums, and afterwards c and o in place of the last two. */
static ALWAYS_INLINE void NAME(lstm_unit)(const call *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes, const int peep)
{
    const REAL *w = m->t->peephole;
    vec c = v_load_n(e->c + u, lanes), ai = v_load(s), af = v_load(s + W), ao = v_load(s + 3 * W);
    if (peep) {
        ai = v_fma(v_load_n(w + u, lanes), c, ai);
        af = v_fma(v_load_n(w + m->H + u, lanes), c, af);
    }
    vec i = v_sigmoid(ai), f = v_sigmoid(af), g = v_tanh(v_load(s + 2 * W));
    c = v_fma(f, c, i * g);
    v_store_n(e->cn + u, c, lanes);
    if (peep)
        ao = v_fma(v_load_n(w + 2 * m->H + u, lanes), c, ao);
    vec o = v_sigmoid(ao);
    v_store(s + 2 * W, c);
    v_store(s + 3 * W, o);
    if (e->gates) {
        REAL *gates = e->gates + u;
        v_store_n(gates, i, lanes);
        v_store_n(gates + m->H, f, lanes);
        v_store_n(gates + 2 * m->H, g, lanes);
        v_store_n(gates + 3 * m->H, o, lanes);
    }
}

/* One block of units of one row, backward; dh = dL/dh_t, or dL/dm_t. */
static ALWAYS_INLINE void NAME(lstm_unit_back)(const call *m, vec dh, const item *e, ptrdiff_t u, ptrdiff_t lanes, const int peep)
{
    const ptrdiff_t H = m->H;
    const vec one = v_set1(1);
    const REAL *gates = e->gates + u, *w = m->t->peephole;
    vec i = v_load_n(gates, lanes), f = v_load_n(gates + H, lanes), g = v_load_n(gates + 2 * H, lanes);
    vec o = v_load_n(gates + 3 * H, lanes), c = v_load_n(e->c + u, lanes);
    vec tc = v_tanh(v_load_n(e->cn + u, lanes)), dc = v_load_n(e->dc + u, lanes);
    if (e->dcs)
        dc = dc + v_load_n(e->dcs + u, lanes);
    if (e->m)
        v_store_n(e->m + u, o * tc, lanes);
    vec dao = dh * tc * v_fnma(o, o, o);
    dc = v_fma(dh * o, v_fnma(tc, tc, one), dc);
    if (peep)
        dc = v_fma(dao, v_load_n(w + 2 * H + u, lanes), dc);
    vec dai = dc * g * v_fnma(i, i, i), daf = dc * c * v_fnma(f, f, f), dag = dc * i * v_fnma(g, g, one);
    dc = dc * f;
    if (peep)
        dc = v_fma(daf, v_load_n(w + H + u, lanes), v_fma(dai, v_load_n(w + u, lanes), dc));
    v_store_n(e->dg + u, dai, lanes);
    v_store_n(e->dg + H + u, daf, lanes);
    v_store_n(e->dg + 2 * H + u, dag, lanes);
    v_store_n(e->dg + 3 * H + u, dao, lanes);
    v_store_n(e->dc + u, e->cut ? v_zero() : dc, lanes);
}

/* In two passes, because tanh(c) waits long for c: units that do not wait for each other fill the time. */
static ALWAYS_INLINE void NAME(lstm_tile)(const call *m, REAL *sums, item *const *e, int n, ptrdiff_t p, int np, const int peep)
{
    REAL *s = sums;
    for (int r = 0; r < n; r++)
        for (ptrdiff_t b = p; b < p + np; b++, s += 4 * W) {
#define FR_POINT(u, lanes) NAME(lstm_unit)(m, s, e[r], u, lanes, peep)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
    s = sums;
    for (int r = 0; r < n; r++)
        for (ptrdiff_t b = p; b < p + np; b++, s += 4 * W) {
#define FR_POINT(u, lanes) v_store_n(e[r]->m + (u), v_load(s + 3 * W) * v_tanh(v_load(s + 2 * W)), lanes)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

static ALWAYS_INLINE void NAME(lstm_tile_back)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np, const int peep)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < FR_BLOCKS(p, np); b++) {
#define FR_POINT(u, lanes) NAME(lstm_unit_back)(m, v_load(s + (b - p * 4) * W), e[r], u, lanes, peep)
            FR_LANES(b, FR_POINT);
#undef FR_POINT
        }
}

static NOINLINE void NAME(lstm_point)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    NAME(lstm_tile)(m, s, e, n, p, np, 0);
}
static NOINLINE void NAME(lstm_peephole_point)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    NAME(lstm_tile)(m, s, e, n, p, np, 1);
}
static NOINLINE void NAME(lstm_back)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    NAME(lstm_tile_back)(m, s, e, n, p, np, 0);
}
static NOINLINE void NAME(lstm_peephole_back)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    NAME(lstm_tile_back)(m, s, e, n, p, np, 1);
}

/* The projection's own stage: s holds h_t. */
static NOINLINE void NAME(project_point)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < fr_min((p + np) * 4, fr_ceil_div(m->P, W)); b++) {
#define FR_POINT(u, lanes) v_store_n(e[r]->y + (u), v_load(s + (b - p * 4) * W), lanes)
            FR_LANES_OF(m->P, b, FR_POINT);
#undef FR_POINT
        }
}

/* Backward, its first stage: s holds dL/dh_t, which is kept for dm_t and for the gradient of W_hr. */
static NOINLINE void NAME(project_back)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < fr_min((p + np) * 4, fr_ceil_div(m->P, W)); b++) {
#define FR_POINT(u, lanes) v_store_n(e[r]->dg + 4 * m->H + (u), v_load(s + (b - p * 4) * W), lanes)
            FR_LANES_OF(m->P, b, FR_POINT);
#undef FR_POINT
        }
}
