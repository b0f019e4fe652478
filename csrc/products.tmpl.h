/* products.tmpl.h - the large products of backward, for one chunk of steps whose dgates are still in cache.
 *
 *   dw_ih += dgates^T x     dw_hh += dgates^T h     dw_hr += dh^T m     db += sum of dgates     dx = dgates w_ih
 *
 * Sums over items run in one order, that of the chunk (steps descending, rows ascending), each over a fixed group of steps
 * (call.tmpl.h), and are added to the gradient one after the other. Threads share out the outputs, never a sum, so the bits depend
 * neither on threads nor on where chunks are cut. The large products go piece by piece to whoever is free.
 */

typedef struct {
    ptrdiff_t ld;      /* distance of the rows of at */
    REAL *at;          /* dgates transposed: (dg_width, ld) */
    REAL *x, *h;       /* (items, I), (items, P) as panels of four vectors */
    REAL *rh, *m;      /* (items, H) likewise: r*h of a GRU reset-before, m of a projection, else NULL */
    const REAL *w;     /* w_ih as panels for dx */
} NAME(products);
#undef products
#define products NAME(products)

/* Rows [m0, m0 + M) of a weight's gradient are sums over the dgates columns from `column` on, times the packed rows b. */
typedef struct {
    ptrdiff_t column, M, N;
    const REAL *b;
    REAL *out;
} NAME(segment);

static products NAME(lay_out_products)(const fr_task *t, ptrdiff_t width, const REAL *w, char *base, ptrdiff_t *used)
{
    const ptrdiff_t real = sizeof(REAL), capacity = NAME(chunk_capacity)(t);
    const ptrdiff_t I = fr_ceil_div(t->I, W) * W, H = fr_ceil_div(t->H, W) * W, P = fr_ceil_div(t->P, W) * W;
    products c = {.ld = fr_ceil_div(capacity, 16) * 16 + 16, .w = w};
    c.at = NAME(take)(base, used, width * c.ld * real);
    c.x = NAME(take)(base, used, capacity * I * real);
    c.h = NAME(take)(base, used, capacity * P * real);
    if (t->cell == FR_GRU_BEFORE)
        c.rh = NAME(take)(base, used, capacity * H * real);
    if (NAME(projects)(t))
        c.m = NAME(take)(base, used, capacity * H * real);
    return c;
}

enum { NAME(from_x), NAME(from_h), NAME(from_rh), NAME(from_m) };

static inline const REAL *NAME(operand)(const call *m, const item *e, int source)
{
    return source == NAME(from_x) ? e->x : source == NAME(from_h) ? e->h : source == NAME(from_m) ? e->m : e->gates + 3 * m->H;
}

/* Rows of the items, `columns` wide, into panels [p][item][nv] of vectors: panels [p0, p1). */
static void NAME(pack_items)(const call *m, REAL *to, ptrdiff_t n, ptrdiff_t columns, int source, ptrdiff_t p0, ptrdiff_t p1)
{
    const ptrdiff_t blocks = fr_ceil_div(columns, W);
    for (ptrdiff_t p = p0; p < p1; p++) {
        const int nv = NAME(panel_vectors)(blocks, p);
        const ptrdiff_t c0 = p * 4 * W, full = fr_min(nv, (columns - c0) / W), rest = columns - c0 - full * W;
        REAL *d = to + p * 4 * W * n;
        for (ptrdiff_t k = 0; k < n; k++, d += nv * W) {
            const item *e = &m->items[k];
            const REAL *from = NAME(operand)(m, e, source) + c0;
            for (ptrdiff_t v = 0; v < full; v++)
                v_store(d + v * W, v_load(from + v * W));
            if (full < nv)
                v_store(d + full * W, v_load_n(from + full * W, rest));
        }
    }
}

static void NAME(pack_items_share)(const call *m, REAL *to, ptrdiff_t n, ptrdiff_t columns, int source)
{
    ptrdiff_t panels = fr_ceil_div(columns, 4 * W);
    NAME(pack_items)(m, to, n, columns, source, fr_share(panels, m->member, m->members), fr_share(panels, m->member + 1, m->members));
}

/* w (G*H, I), rows in their own order, into panels [p][k][nv] of vectors of its columns. gate[]: the order of the row blocks. */
static void NAME(pack_columns)(REAL *to, const REAL *w, ptrdiff_t H, ptrdiff_t columns, int gates, const int *gate, ptrdiff_t p)
{
    const ptrdiff_t blocks = fr_ceil_div(columns, W);
    const int nv = NAME(panel_vectors)(blocks, p);
    const ptrdiff_t c0 = p * 4 * W;
    to += c0 * gates * H;
    for (int g = 0; g < gates; g++)
        for (ptrdiff_t k = 0; k < H; k++, to += nv * W)
            for (int v = 0; v < nv; v++)
                v_store(to + v * W, v_load_n(w + (gate[g] * H + k) * columns + c0 + v * W, fr_min(W, columns - c0 - v * W)));
}

/* Some rows of one segment, all panels: the rows' dgates stay in the second cache while the panels go by. */
static void NAME(run_piece)(call *m, const products *c, const NAME(segment) *g, ptrdiff_t n, ptrdiff_t m0, ptrdiff_t m1)
{
    const ptrdiff_t blocks = fr_ceil_div(g->N, W);
    m->work += (long long)(m1 - m0) * blocks * n;
    for (ptrdiff_t p = 0; p * 4 < blocks; p++) {
        const int nv = NAME(panel_vectors)(blocks, p);
        for (ptrdiff_t r0 = m0; r0 < m1; r0 += MOST_ROWS) {
            const int rows = (int)fr_min(MOST_ROWS, m1 - r0);
            REAL s[MOST_ROWS * 4 * W], *out = g->out + r0 * g->N + p * 4 * W;
            const REAL *a[MOST_ROWS] = {NULL};
            for (int r = 0; r < rows; r++) {
                a[r] = c->at + (g->column + r0 + r) * c->ld;
                for (int v = 0; v < nv; v++)
                    v_store(s + (r * 4 + v) * W, v_load_n(out + r * g->N + v * W, fr_min(W, g->N - (p * 4 + v) * W)));
            }
            for (ptrdiff_t i = 0; i < m->sums; i++) {
                ptrdiff_t k0 = m->sum_first[i], terms = m->sum_first[i + 1] - k0;
                NAME(tile)(rows, 1, nv, a, g->b + p * 4 * W * n + k0 * nv * W, 0, terms, s);
                for (int r = 0; r < rows; r++)
                    a[r] += terms;
            }
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < nv; v++)
                    v_store_n(out + r * g->N + v * W, v_load(s + (r * 4 + v) * W), fr_min(W, g->N - (p * 4 + v) * W));
        }
    }
}

/* The segments in pieces of so many rows, for whoever is free. */
static void NAME(run_segments)(call *m, const products *c, const NAME(segment) *g, int segments, ptrdiff_t n)
{
    ptrdiff_t first = 0, i = fr_claim(m->team);
    for (const NAME(segment) *end = g + segments; g < end; g++) {
        const ptrdiff_t rows = g->M < 16 * MOST_ROWS ? MOST_ROWS : 2 * MOST_ROWS, pieces = fr_ceil_div(g->M, rows);
        for (; i < first + pieces; i = fr_claim(m->team)) {
            ptrdiff_t r0 = (i - first) * rows;
            NAME(run_piece)(m, c, g, n, r0, fr_min(g->M, r0 + rows));
        }
        first += pieces;
    }
}

/* One sum over items of dgates[column + j], times factor[j] if there is one (1: c_{t-1}, 2: c_t), for nv vectors of columns. */
static ALWAYS_INLINE quad NAME(sum_items)(const item *e, const item *end, ptrdiff_t column, ptrdiff_t u, int factor, const int nv,
                                          ptrdiff_t lanes)
{
    quad sum = {v_zero(), v_zero(), v_zero(), v_zero()};
    for (; e < end; e++) {
        const REAL *d = e->dg + column + u;
        if (factor) {
            sum.v0 = v_fma(v_load_n(d, lanes), v_load_n((factor > 1 ? e->cn : e->c) + u, lanes), sum.v0);
        } else {
            sum.v0 = sum.v0 + v_load_n(d, lanes);
            if (nv > 1) {
                sum.v1 = sum.v1 + v_load(d + W);
                sum.v2 = sum.v2 + v_load(d + 2 * W);
                sum.v3 = sum.v3 + v_load(d + 3 * W);
            }
        }
    }
    return sum;
}

/* out[j] += the sums over the items, and the same to `also` if there is one: this member's share of the M columns. */
static void NAME(sum_columns)(const call *m, ptrdiff_t column, ptrdiff_t M, int factor, REAL *out, REAL *also)
{
    const ptrdiff_t b0 = fr_share(fr_ceil_div(M, W), m->member, m->members), b1 = fr_share(fr_ceil_div(M, W), m->member + 1, m->members);
    for (ptrdiff_t b = b0, nv; b < b1; b += nv) {
        const ptrdiff_t u = b * W, lanes = fr_min(W, M - u);
        nv = !factor && b + 4 <= b1 && u + 4 * W <= M ? 4 : 1;
        for (ptrdiff_t i = 0; i < m->sums; i++) {
            const item *e = m->items + m->sum_first[i], *end = m->items + m->sum_first[i + 1];
            if (nv == 4) {
                quad sum = NAME(sum_items)(e, end, column, u, 0, 4, W);
                NAME(quad_add)(4, out + u, &sum);
                if (also)
                    NAME(quad_add)(4, also + u, &sum);
            } else {
                quad sum = NAME(sum_items)(e, end, column, u, factor, 1, lanes);
                v_store_n(out + u, v_load_n(out + u, lanes) + sum.v0, lanes);
                if (also)
                    v_store_n(also + u, v_load_n(also + u, lanes) + sum.v0, lanes);
            }
        }
    }
}

static void NAME(sum_biases)(const call *m)
{
    const fr_task *t = m->t;
    const ptrdiff_t H = m->H, GH = NAME(gates_of)(t->cell) * H;
    REAL *ih = t->db_ih, *hh = t->db_hh;
    if (t->cell == FR_GRU_AFTER) { /* columns: n of h, r, z, n of x */
        if (ih)
            NAME(sum_columns)(m, H, 2 * H, 0, ih, hh);
        else if (hh)
            NAME(sum_columns)(m, H, 2 * H, 0, hh, NULL);
        if (ih)
            NAME(sum_columns)(m, 3 * H, H, 0, ih + 2 * H, NULL);
        if (hh)
            NAME(sum_columns)(m, 0, H, 0, hh + 2 * H, NULL);
    } else if (ih || hh) {
        NAME(sum_columns)(m, 0, GH, 0, ih ? ih : hh, ih ? hh : NULL);
    }
    if (t->dpeephole) {
        REAL *dpeephole = t->dpeephole;
        NAME(sum_columns)(m, 0, H, 1, dpeephole, NULL);
        NAME(sum_columns)(m, H, H, 1, dpeephole + H, NULL);
        NAME(sum_columns)(m, 3 * H, H, 2, dpeephole + 2 * H, NULL);
    }
}

static void NAME(sum_weights)(call *m, const products *c, ptrdiff_t n)
{
    const fr_task *t = m->t;
    const ptrdiff_t H = m->H, GH = NAME(gates_of)(t->cell) * H;
    REAL *dw = t->dw_hh;
    NAME(segment) all[4];
    int some = 0;
    if (t->dw_ih)
        all[some++] = (NAME(segment)){t->cell == FR_GRU_AFTER ? H : 0, GH, m->I, c->x, t->dw_ih};
    if (t->dw_hr)
        all[some++] = (NAME(segment)){GH, m->P, H, c->m, t->dw_hr};
    if (dw && t->cell == FR_GRU_AFTER) { /* columns n, r, z; rows r, z, n */
        all[some++] = (NAME(segment)){H, 2 * H, H, c->h, dw};
        all[some++] = (NAME(segment)){0, H, H, c->h, dw + 2 * H * H};
    } else if (dw && t->cell == FR_GRU_BEFORE) {
        all[some++] = (NAME(segment)){0, 2 * H, H, c->h, dw};
        all[some++] = (NAME(segment)){2 * H, H, H, c->rh, dw + 2 * H * H};
    } else if (dw) {
        all[some++] = (NAME(segment)){0, GH, m->P, c->h, dw};
    }
    NAME(run_segments)(m, c, all, some, n);
}

static void NAME(dx_tile)(const call *m, const products *c, const item *e, int rows, ptrdiff_t p)
{
    const ptrdiff_t K = NAME(gates_of)(m->t->cell) * m->H, at = m->t->cell == FR_GRU_AFTER ? m->H : 0;
    const int nv = NAME(panel_vectors)(fr_ceil_div(m->I, W), p);
    REAL s[MOST_ROWS * 4 * W];
    const REAL *a[MOST_ROWS] = {NULL};
    memset(s, 0, rows * 4 * W * sizeof(REAL));
    for (int r = 0; r < rows; r++)
        a[r] = e[r].dg + at;
    NAME(tile)(rows, 1, nv, a, c->w + p * 4 * W * K, 0, K, s);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++)
            v_store_n(e[r].dx + (p * 4 + v) * W, v_load(s + (r * 4 + v) * W), fr_min(W, m->I - (p * 4 + v) * W));
}

/* dx, in pieces of some items, for whoever is free: their dgates stay in the second cache while the panels go by. */
static void NAME(make_dx)(call *m, const products *c, ptrdiff_t n)
{
    const ptrdiff_t piece = fr_min(2 * MOST_ROWS, fr_ceil_div(n, 2 * m->members));
    for (ptrdiff_t k0; (k0 = fr_claim(m->team) * piece) < n;)
        for (ptrdiff_t p = 0; p < fr_ceil_div(m->I, 4 * W); p++)
            for (ptrdiff_t k = k0; k < fr_min(n, k0 + piece); k += MOST_ROWS) {
                const int rows = (int)fr_min(MOST_ROWS, fr_min(n, k0 + piece) - k);
                NAME(dx_tile)(m, c, &m->items[k], rows, p);
                m->work += (long long)rows * 4 * NAME(gates_of)(m->t->cell) * m->H;
            }
}

/* All products of a chunk of n items. 0: the team has ended. */
static int NAME(run_products)(call *m, const products *c, ptrdiff_t n)
{
    const fr_task *t = m->t;
    if (t->dw_ih || t->dw_hh || t->dw_hr) {
        ptrdiff_t columns = NAME(dgates_of)(t->cell) * m->H + (NAME(projects)(t) ? m->P : 0);
        ptrdiff_t c0 = fr_share(columns, m->member, m->members), c1 = fr_share(columns, m->member + 1, m->members);
        NAME(transpose)(c->at + c0 * c->ld, c->ld, m->dg + c0, m->dg_width, n, c1 - c0);
        if (t->dw_ih)
            NAME(pack_items_share)(m, c->x, n, m->I, NAME(from_x));
        if (t->dw_hh)
            NAME(pack_items_share)(m, c->h, n, m->P, NAME(from_h));
        if (t->dw_hh && c->rh)
            NAME(pack_items_share)(m, c->rh, n, m->H, NAME(from_rh));
        if (t->dw_hr)
            NAME(pack_items_share)(m, c->m, n, m->H, NAME(from_m));
    }
    NAME(sum_biases)(m);
    if (t->dx.p)
        NAME(make_dx)(m, c, n);
    if (!NAME(meet)(m))
        return 0;
    NAME(sum_weights)(m, c, n);
    return 1;
}
