/* products.h - the large products of backward, for one chunk of steps whose dgates are still in cache.
 *
 *   dw_ih += dgates^T x     dw_hh += dgates^T h     dw_hr += dh^T m     db += sum of dgates     dx = dgates w_ih
 *
 * Sums over items run in one order, that of the chunk (steps descending, rows ascending), each over a fixed group of steps
 * (chunk.h), and are added to the gradient one after the other. Threads share out the outputs, never a sum, so the bits depend
 * neither on threads nor on where chunks are cut. The large products are scheduled dynamically, piece by piece.
 */
#ifndef FR_PRODUCTS_H
#define FR_PRODUCTS_H
#include "sequence/stage.h"

static const int IN_ORDER[4] = {0, 1, 2, 3};

/* Where tokens stand for x, a token's row of dw_ih^T (I, G*H) takes the sum of the dgates of its items: in groups of those that a one-hot
 * operand would sum first, so that the bits are the same, but for sums of bfloat16, which have another order. An item leads to the next
 * one of its group with the same token. */
typedef struct {
    ptrdiff_t *latest;  /* (I) the first item of each token, while a group is listed from its end */
    ptrdiff_t *next;    /* (items of the chunk) or NONE */
    ptrdiff_t *heads;   /* how many, and then the first item of each token, group by group */
} token_sums;
enum { NONE = -1 };

typedef struct {
    ptrdiff_t ld;       /* distance of the rows of dgates */
    REAL *dgates;       /* transposed: (dgates_width, ld) */
    REAL *packed[4];    /* by operand, (items, n) as panels of four vectors: x, h, r*h of a GRU reset-before, m of a projection */
    const REAL *w;      /* w_ih as panels for dx, or NULL: it is read as it lies */
    int one_panel;      /* w has place for one panel, which is packed before it is used */
    term_rows rows;     /* of a piece, unless they are plain */
    widened panels;     /* of all operands */
    token_sums sums;
} products;

/* Rows of a weight's gradient: sums over M columns of dgates from `column` on, times the packed operand b of N columns. */
typedef struct {
    ptrdiff_t column, M, N;
    const REAL *b;
    REAL *out;
} segment;

/* The columns of an operand. */
static ptrdiff_t operand_size(const fr_call *t, operand source)
{
    return source == OPERAND_X ? t->I : source == OPERAND_H ? t->P : t->H;
}

static int operand_used(const fr_call *t, const cell *c, operand source)
{
    if (source == OPERAND_X)
        return t->d.dw.w_ih != NULL && !t->tokens;
    if (source == OPERAND_M)
        return t->d.dw.w_hr != NULL;
    for (int i = 0; i < c->hidden_gradients; i++)
        if (c->hidden[i].operand == source)
            return t->d.dw.w_hh != NULL;
    return 0;
}

static inline const REAL *operand_of(const member *m, const item *e, operand source)
{
    return source == OPERAND_X ? e->x : source == OPERAND_H ? e->h_prev : source == OPERAND_M ? e->m : e->gates + 3 * m->H;
}

/* The most terms that the sums over the items of a chunk have together. */
static ptrdiff_t most_sum_terms(const fr_call *t)
{
    const fr_plan *plan = &t->plan;
    const ptrdiff_t capacity = chunk_capacity(t), whole = sum_steps(plan);
    if (!plan->first)
        return (fr_ceil_div(capacity / fr_max(1, plan->B), whole) + 1) * terms_of(fr_min(capacity, whole * plan->B));
    ptrdiff_t most = 0, terms = 0, items = 0; /* of the sums from `from` to s, as many as fit into a chunk */
    for (ptrdiff_t s = 0, from = 0; s < plan->T; s += whole) {
        const ptrdiff_t more = items_between(plan, s, fr_min(plan->T, s + whole));
        for (; items + more > capacity; from += whole) {
            const ptrdiff_t less = items_between(plan, from, from + whole);
            items -= less, terms -= terms_of(less);
        }
        items += more, terms += terms_of(more);
        most = fr_max(most, terms);
    }
    /* A piece of a call may cut two sums, at its ends. If neither of them fits whole into the chunk, they are fewer items than one, but
     * two last blocks. */
    return most + terms_of(fr_min(capacity, whole * plan->B)) + terms_of(1);
}

static products lay_out_products(const member *m, ptrdiff_t width, const REAL *w, char *base, ptrdiff_t *used)
{
    const fr_call *t = m->call;
    const ptrdiff_t real = sizeof(REAL), capacity = chunk_capacity(t), terms = FR_BF16_PRODUCTS ? most_sum_terms(t) : capacity;
    products c = {.ld = fr_ceil_div(capacity, 16) * 16 + 16, .w = w, .one_panel = w && packs_one_panel(t)};
    c.dgates = take(base, used, width * c.ld * real);
    if (t->tokens) {
        c.sums.latest = take(base, used, t->I * (ptrdiff_t)sizeof(ptrdiff_t));
        c.sums.next = take(base, used, capacity * (ptrdiff_t)sizeof(ptrdiff_t));
        c.sums.heads = take(base, used, (capacity + 1) * (ptrdiff_t)sizeof(ptrdiff_t));
    }
    const ptrdiff_t first = *used;
    for (operand source = OPERAND_X; source <= OPERAND_M; source++)
        if (operand_used(t, CELLS[t->cell], source))
            c.packed[source] = take(base, used, panel_rows(terms) * fr_ceil_div(operand_size(t, source), W) * W * real);
    if (WIDENS)
        c.panels = take_wide(base ? base + first : NULL, *used - first, base, used);
    c.rows = take_rows(m, 2 * MAX_ROWS, fr_max(terms, m->cell->gates * m->H), base, used);
    return c;
}

/* The terms of all sums. */
static inline ptrdiff_t all_terms(const member *m)
{
    return m->sum_terms[m->sums];
}

/* An operand of the items into panels [p][item][nv] of vectors: this member's share. */
static void pack_operand(const member *m, const products *c, operand source)
{
    REAL *to = c->packed[source];
    const tiles widening = {.panels = c->panels};
    const ptrdiff_t columns = operand_size(m->call, source), vectors = fr_ceil_div(columns, W);
    const range panels = share_of(m, fr_ceil_div(columns, 4 * W));
    for (ptrdiff_t p = panels.from; p < panels.to; p++) {
        const int nv = panel_vectors(vectors, p);
        const ptrdiff_t c0 = p * 4 * W;
        const REAL *panel = panel_at(to, p, 4, all_terms(m));
        packer d = {.to = (REAL *)panel, .nv = nv, .rest = fr_min(W, columns - c0 - (nv - 1) * W)};
        for (ptrdiff_t i = 0; i < m->sums; i++, pack_end(&d))
            for (ptrdiff_t k = m->sum_first[i]; k < m->sum_first[i + 1]; k++)
                pack_row(&d, operand_of(m, &m->items[k], source) + c0);
        widen_panel(&widening, nv, panel, all_terms(m));
    }
}

/* Panel p of these blocks: [k][nv] of vectors of columns. */
static void pack_columns(REAL *to, row_blocks_of b, ptrdiff_t p)
{
    const int nv = panel_vectors(fr_ceil_div(b.ld, W), p);
    const ptrdiff_t c0 = p * 4 * W;
    packer d = {.to = to, .nv = nv, .rest = fr_min(W, b.ld - c0 - (nv - 1) * W)};
    for (int g = 0; g < b.blocks; g++) {
        const REAL *row = b.w + b.order[g] * b.H * b.ld + c0;
        for (ptrdiff_t k = 0; k < b.H; k++, row += b.ld)
            pack_row(&d, row);
    }
    pack_end(&d);
}

/* The same blocks from panel p on. */
static row_blocks_of lying_at(row_blocks_of w, ptrdiff_t p)
{
    w.w += p * 4 * W;
    return w;
}

/* w_ih, by whose rows dx is made. */
static row_blocks_of of_w_ih(const member *m)
{
    return (row_blocks_of){m->call->w.w_ih, m->H, m->I, m->cell->gates, IN_ORDER};
}

/* ---- the weights --------------------------------------------------------------------------------------- */

/* `lanes` numbers of a gradient, so far. */
static ALWAYS_INLINE vec so_far(const member *m, const REAL *out, ptrdiff_t lanes)
{
    return m->fresh ? v_zero() : v_load_n(out, lanes);
}

/* Row i of a piece: the dgates of a column. */
static inline const term *piece_row(const products *c, ptrdiff_t i, ptrdiff_t column)
{
#if FR_BF16_PRODUCTS
    (void)column;
    return row_at(c->rows, i);
#else
    (void)i;
    return c->dgates + column * c->ld;
#endif
}

static void round_piece(const member *m, const products *c, ptrdiff_t rows, ptrdiff_t column)
{
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t i = 0; i < m->sums; i++)
            round_terms(row_at(c->rows, r) + m->sum_terms[i], c->dgates + (column + r) * c->ld + m->sum_first[i],
                        m->sum_first[i + 1] - m->sum_first[i]);
}

/* Some rows of one segment, all panels: the rows' dgates stay in the L2 while the panels go by. */
static void run_piece(member *m, const products *c, const segment *g, ptrdiff_t n, ptrdiff_t m0, ptrdiff_t m1)
{
    const ptrdiff_t vectors = fr_ceil_div(g->N, W);
    if (FR_BF16_PRODUCTS)
        round_piece(m, c, m1 - m0, g->column + m0);
    m->work += (long long)(m1 - m0) * vectors * n;
    for (ptrdiff_t p = 0; p * 4 < vectors; p++) {
        const int nv = panel_vectors(vectors, p);
        for (ptrdiff_t r0 = m0; r0 < m1; r0 += MAX_ROWS) {
            const int rows = (int)fr_min(MAX_ROWS, m1 - r0);
            REAL s[MAX_ROWS * 4 * W], *out = g->out + r0 * g->N + p * 4 * W;
            const term *a[MAX_ROWS] = {NULL};
            for (int r = 0; r < rows; r++) {
                a[r] = piece_row(c, r0 - m0 + r, g->column + r0 + r);
                for (int v = 0; v < nv; v++)
                    v_store(s + (r * 4 + v) * W, so_far(m, out + r * g->N + v * W, fr_min(W, g->N - (p * 4 + v) * W)));
            }
            for (ptrdiff_t i = 0; i < m->sums; i++) {
                const ptrdiff_t k0 = m->sum_terms[i], terms = m->sum_terms[i + 1] - k0;
                tile(&m->tiles, rows, 1, nv, a, panel_at(g->b, p, 4, all_terms(m)) + panel_rows(k0) * nv * W, 0, terms, s);
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
static void run_segments(member *m, const products *c, const segment *g, int segments, ptrdiff_t n)
{
    ptrdiff_t first = 0, i = fr_claim(m->team);
    for (const segment *end = g + segments; g < end; g++) {
        const ptrdiff_t rows = g->M < 16 * MAX_ROWS ? MAX_ROWS : 2 * MAX_ROWS, pieces = fr_ceil_div(g->M, rows);
        for (; i < first + pieces; i = fr_claim(m->team)) {
            ptrdiff_t r0 = (i - first) * rows;
            run_piece(m, c, g, n, r0, fr_min(g->M, r0 + rows));
        }
        first += pieces;
    }
}

/* ---- the biases and peepholes -------------------------------------------------------------------------- */

/* One sum over items of nv vectors of dgates from `column` on. */
static ALWAYS_INLINE quad sum_items(const item *e, const item *end, ptrdiff_t column, const int nv, ptrdiff_t lanes)
{
    quad sum = {v_zero(), v_zero(), v_zero(), v_zero()};
    for (; e < end; e++) {
        const REAL *d = e->dgates + column;
        sum.v0 = sum.v0 + v_load_n(d, lanes);
        if (nv > 1) {
            sum.v1 = sum.v1 + v_load(d + W);
            sum.v2 = sum.v2 + v_load(d + 2 * W);
            sum.v3 = sum.v3 + v_load(d + 3 * W);
        }
    }
    return sum;
}

/* out[j] += the sum over the items of dgates[column + j], and the same to `also` if there is one: this member's share of M columns. */
static void sum_columns(const member *m, ptrdiff_t column, ptrdiff_t M, REAL *out, REAL *also)
{
    const range vectors = share_of(m, fr_ceil_div(M, W));
    for (ptrdiff_t b = vectors.from, nv; b < vectors.to; b += nv) {
        const ptrdiff_t u = b * W, lanes = fr_min(W, M - u);
        nv = b + 4 <= vectors.to && u + 4 * W <= M ? 4 : 1;
        for (ptrdiff_t v = u; m->fresh && v < fr_min(M, u + nv * W); v++) {
            out[v] = 0;
            if (also)
                also[v] = 0;
        }
        for (ptrdiff_t i = 0; i < m->sums; i++) {
            const item *e = m->items + m->sum_first[i], *end = m->items + m->sum_first[i + 1];
            if (nv == 4) {
                quad sum = sum_items(e, end, column + u, 4, W);
                quad_add(4, out + u, &sum);
                if (also)
                    quad_add(4, also + u, &sum);
            } else {
                quad sum = sum_items(e, end, column + u, 1, lanes);
                v_store_n(out + u, v_load_n(out + u, lanes) + sum.v0, lanes);
                if (also)
                    v_store_n(also + u, v_load_n(also + u, lanes) + sum.v0, lanes);
            }
        }
    }
}

/* out[j] += the sum over the items of dgates[column + j] times c[j]: this member's share. */
static void sum_peephole(const member *m, ptrdiff_t column, cell_state c, REAL *out)
{
    const range vectors = share_of(m, fr_ceil_div(m->H, W));
    for (ptrdiff_t u = vectors.from * W; u < fr_min(vectors.to * W, m->H); u += W) {
        const ptrdiff_t lanes = fr_min(W, m->H - u);
        for (ptrdiff_t v = u; m->fresh && v < u + lanes; v++)
            out[v] = 0;
        for (ptrdiff_t i = 0; i < m->sums; i++) {
            vec sum = v_zero();
            for (const item *e = m->items + m->sum_first[i]; e < m->items + m->sum_first[i + 1]; e++)
                sum = v_fma(v_load_n(e->dgates + column + u, lanes), v_load_n((c == C_CURRENT ? e->c : e->c_prev) + u, lanes), sum);
            v_store_n(out + u, v_load_n(out + u, lanes) + sum, lanes);
        }
    }
}

static void sum_biases(const member *m)
{
    const ptrdiff_t H = m->H;
    const cell *c = m->cell;
    const fr_weights *dw = &m->call->d.dw;
    REAL *ih = dw->b_ih, *hh = dw->b_hh;
    for (int i = 0; i < c->hidden_gradients; i++) {
        const hidden_gradient *g = &c->hidden[i];
        const int shared = g->dgates_at == c->dgates_x + g->row; /* the same columns feed both biases */
        REAL *of_ih = ih ? ih + g->row * H : NULL, *of_hh = hh ? hh + g->row * H : NULL;
        if (shared && (ih || hh))
            sum_columns(m, g->dgates_at * H, g->blocks * H, ih ? of_ih : of_hh, ih ? of_hh : NULL);
        if (!shared && ih)
            sum_columns(m, (c->dgates_x + g->row) * H, g->blocks * H, of_ih, NULL);
        if (!shared && hh)
            sum_columns(m, g->dgates_at * H, g->blocks * H, of_hh, NULL);
    }
    for (int i = 0; i < c->peephole_gradients && dw->peephole; i++)
        sum_peephole(m, c->peephole[i].dgates_at * H, c->peephole[i].c, (REAL *)dw->peephole + c->peephole[i].row * H);
}

/* ---- one-hot rows -------------------------------------------------------------------------------------- */

static void list_group(const member *m, const token_sums *t, ptrdiff_t k0, ptrdiff_t k1)
{
    const item *e = m->items;
    for (ptrdiff_t k = k0; k < k1; k++)
        t->latest[e[k].token] = NONE;
    for (ptrdiff_t k = k1 - 1; k >= k0; k--) {
        t->next[k] = t->latest[e[k].token];
        t->latest[e[k].token] = k;
    }
    for (ptrdiff_t k = k0; k < k1; k++)
        if (t->latest[e[k].token] == k)
            t->heads[++t->heads[0]] = k;
}

static void list_tokens(const member *m, const token_sums *t)
{
    t->heads[0] = 0;
    for (ptrdiff_t i = 0; i < m->sums; i++)
        for (ptrdiff_t k = m->sum_first[i]; k < m->sum_first[i + 1]; k += SUM_TERMS)
            list_group(m, t, k, fr_min(k + SUM_TERMS, m->sum_first[i + 1]));
}

/* dw_ih^T (I, G*H): this member's share of the columns. */
static void sum_tokens(member *m, const token_sums *t, REAL *out)
{
    const ptrdiff_t columns = m->cell->gates * m->H, first = m->cell->dgates_x * m->H;
    const range vectors = share_of(m, fr_ceil_div(columns, W));
    m->work += (long long)(vectors.to - vectors.from) * m->sum_first[m->sums];
    for (ptrdiff_t i = 1; i <= t->heads[0]; i++) {
        REAL *row = out + m->items[t->heads[i]].token * columns;
        for (ptrdiff_t b = vectors.from; b < vectors.to; b++) {
            const ptrdiff_t u = b * W, lanes = fr_min(W, columns - u);
            vec sum = v_zero();
            for (ptrdiff_t k = t->heads[i]; k != NONE; k = t->next[k])
                sum = sum + rounded(v_load_n(m->items[k].dgates + first + u, lanes));
            v_store_n(row + u, v_load_n(row + u, lanes) + sum, lanes);
        }
    }
}

/* ---- all of it ----------------------------------------------------------------------------------------- */

static void sum_weights(member *m, const products *c, ptrdiff_t n)
{
    const fr_weights *dw = &m->call->d.dw;
    const cell *k = m->cell;
    const ptrdiff_t H = m->H;
    segment all[4];
    int some = 0;
    if (dw->w_ih && m->call->tokens)
        sum_tokens(m, &c->sums, dw->w_ih);
    else if (dw->w_ih)
        all[some++] = (segment){k->dgates_x * H, k->gates * H, m->I, c->packed[OPERAND_X], dw->w_ih};
    if (dw->w_hr)
        all[some++] = (segment){k->dgates * H, m->P, H, c->packed[OPERAND_M], dw->w_hr};
    for (int i = 0; i < k->hidden_gradients && dw->w_hh; i++) {
        const hidden_gradient *g = &k->hidden[i];
        all[some++] = (segment){g->dgates_at * H, g->blocks * H, m->P, c->packed[g->operand], (REAL *)dw->w_hh + g->row * H * m->P};
    }
    const widened weights = m->tiles.panels;
    m->tiles.panels = c->panels;
    run_segments(m, c, all, some, n);
    m->tiles.panels = weights;
}

/* What dx is made of: K terms. */
static inline const REAL *dx_operand(const member *m, const item *e)
{
    return e->dgates + m->cell->dgates_x * m->H;
}

/* Panel p for some items, the first of which is number i of its piece. */
static void dx_tile(member *m, const products *c, const item *e, ptrdiff_t i, int rows, ptrdiff_t p)
{
    const ptrdiff_t K = m->cell->gates * m->H;
    const int nv = panel_vectors(fr_ceil_div(m->I, W), p);
    REAL s[MAX_ROWS * 4 * W];
    const term *a[MAX_ROWS] = {NULL};
    memset(s, 0, rows * 4 * W * sizeof(REAL));
    for (int r = 0; r < rows; r++) {
#if FR_BF16_PRODUCTS
        a[r] = row_at(c->rows, i + r);
#else
        (void)i;
        a[r] = dx_operand(m, e + r);
#endif
    }
    if (!FR_BF16_PRODUCTS && !c->w) {
        direct_rows(rows, nv, a, lying_at(of_w_ih(m), p), fr_min(W, m->I - (p * 4 + nv - 1) * W), s);
    } else {
        tile(&m->tiles, rows, 1, nv, a, panel_at(c->w, c->one_panel ? 0 : p, 4, K), 0, K, s);
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < nv; v++)
            v_store_n(e[r].dx + (p * 4 + v) * W, v_load(s + (r * 4 + v) * W), fr_min(W, m->I - (p * 4 + v) * W));
}

/* The items of a piece, from k0 to k1, by some panels. */
static void dx_piece(member *m, const products *c, ptrdiff_t k0, ptrdiff_t k1, range panels)
{
    const ptrdiff_t most = FR_BF16_PRODUCTS || c->w ? MAX_ROWS : DIRECT_ROWS;
    for (ptrdiff_t k = k0; FR_BF16_PRODUCTS && k < k1; k++)
        round_terms(row_at(c->rows, k - k0), dx_operand(m, &m->items[k]), m->cell->gates * m->H);
    for (ptrdiff_t p = panels.from; p < panels.to; p++)
        for (ptrdiff_t k = k0; k < k1; k += most) {
            const int rows = (int)fr_min(most, k1 - k);
            dx_tile(m, c, &m->items[k], k - k0, rows, p);
            m->work += (long long)rows * 4 * m->cell->gates * m->H;
        }
}

/* dx, in pieces of some items, dynamically scheduled: their dgates stay in the L2 while the panels go by. Where each panel is packed
 * for its one use, the pieces are panels. */
static void make_dx(member *m, const products *c, ptrdiff_t n)
{
    const ptrdiff_t panels = fr_ceil_div(m->I, 4 * W), piece = fr_min(2 * MAX_ROWS, fr_ceil_div(n, 2 * m->members));
    if (c->one_panel) {
        for (ptrdiff_t p; (p = fr_claim(m->team)) < panels;) {
            pack_columns((REAL *)c->w, of_w_ih(m), p);
            for (ptrdiff_t k0 = 0; k0 < n; k0 += 2 * MAX_ROWS)
                dx_piece(m, c, k0, fr_min(n, k0 + 2 * MAX_ROWS), (range){p, p + 1});
        }
        return;
    }
    for (ptrdiff_t k0; (k0 = fr_claim(m->team) * piece) < n;)
        dx_piece(m, c, k0, fr_min(n, k0 + piece), (range){0, panels});
}

/* All products of a chunk of n items. 0: the team has ended. */
static int run_products(member *m, const products *c, ptrdiff_t n)
{
    const fr_weights *dw = &m->call->d.dw;
    if (dw->w_ih || dw->w_hh || dw->w_hr) {
        const range columns = share_of(m, m->cell->dgates * m->H + (projects(m->call) ? m->P : 0));
        transpose(c->dgates + columns.from * c->ld, c->ld, m->dgates + columns.from, m->dgates_width, n, columns.to - columns.from);
        for (operand source = OPERAND_X; source <= OPERAND_M; source++)
            if (c->packed[source])
                pack_operand(m, c, source);
        if (m->call->tokens && m->index == 0)
            list_tokens(m, &c->sums);
    }
    sum_biases(m);
    if (m->call->d.dx.p)
        make_dx(m, c, n);
    if (!barrier(m))
        return 0;
    sum_weights(m, c, n);
    return 1;
}

#endif
