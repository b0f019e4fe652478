/* forward.h - a whole sequence forward, for inference and for training alike; and the recomputation of what a training forward has not
 * saved: where every h is known, the steps of a chunk do not wait for each other, and one product takes all of them.
 *
 * Every sum starts at the bias (plus zero, so that it never starts at -0); x_t W_ih is added, then h_{t-1} W_hh. Where the input part
 * is made first for a chunk of steps, the sum pauses in `xw` and goes on from the same number. Where tokens stand for one-hot rows x_t,
 * it begins in a table of the sums of all tokens.
 */
#ifndef FR_FORWARD_H
#define FR_FORWARD_H
#include "cells/cells.h"
#include "sequence/stage.h"
#include "tile/pack.h"

static ptrdiff_t panels_in(const forward_stage *o, ptrdiff_t vectors)
{
    return o->nx == 1 ? fr_ceil_div(vectors, 4) : vectors;
}

/* ---- tiles --------------------------------------------------------------------------------------------- */

/* The start of the sums of n rows by np panels from panel p on. */
static inline void start_at_bias(const stage *g, REAL *s, int n, ptrdiff_t p, int np)
{
    for (int i = 0; i < (n > np ? n : np); i++)
        for (int v = 0; v < 4; v++)
            v_store(s + (i * 4 + v) * W, v_load(g->bias + ((p + (np > 1 ? i : 0)) * 4 + v) * W));
}

/* Some blocks of w (G*H, K) as they lie. */
static void multiply_direct(const member *m, const REAL *w, ptrdiff_t K, int single, const int *gate, const term *const *a, int n, ptrdiff_t p,
                            int nv, REAL *s)
{
    column_vector c[4];
    for (int j = 0; j < nv; j++) {
        const ptrdiff_t u = (single ? 4 * p + j : p) * W;
        c[j] = (column_vector){w + (gate[single ? 0 : j] * m->H + u) * K, fr_min(W, m->H - u)};
    }
    direct_columns(n, nv, a, c, K, K, s);
}

static void multiply_x(member *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv, REAL *s)
{
    const term *a[MAX_ROWS] = {NULL}; /* compilers do not see that there are rows */
    for (int i = 0; i < n; i++)
        a[i] = x_of(m, e + i);
    if (lies(g))
        multiply_direct(m, m->call->w.w_ih, m->I, g->narrow, g->forward->x, a, n, p, nv, s);
    else
        multiply_packed(m, g, g->wx, m->I, n, np, nv, a, p, s);
}

/* What the recurrent product takes of an item. */
static inline const REAL *recurrent_operand(const member *m, const stage *g, const item *e)
{
    return g->operand == OPERAND_RH ? e->gates + 3 * m->H : e->h_prev;
}

static void forward_tile(member *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv)
{
    REAL s[MAX_ROWS * 4 * W];
    const term *a[MAX_ROWS];
    a[0] = NULL; /* compilers do not see that there are rows */
    if (e[0]->xw) {
        for (int i = 0; i < (n > np ? n : np); i++) {
            const REAL *from = e[n > 1 ? i : 0]->xw + (g->xw_at + p + (np > 1 ? i : 0)) * 4 * W;
            for (int v = 0; v < 4; v++)
                v_store(s + (i * 4 + v) * W, v_load(from + v * W));
        }
    } else {
        start_at_bias(g, s, n, p, np);
        multiply_x(m, g, e, n, p, np, nv, s);
    }
    for (int i = 0; i < n; i++)
        a[i] = operand_row(m, e + i, recurrent_operand(m, g, e[i]));
    if (lies(g))
        multiply_direct(m, m->call->w.w_hh, m->P, g->narrow, g->forward->h, a, n, p, nv, s + g->h_at * W);
    else
        multiply_packed(m, g, g->wh, m->P, n, np, nv, a, p, s + g->h_at * W);
    g->epilogue(m, s, e, n, p, np);
}

/* A tile of a projection: its only operand is m. */
static void project_tile(member *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv)
{
    REAL s[MAX_ROWS * 4 * W];
    const term *a[MAX_ROWS];
    a[0] = NULL; /* compilers do not see that there are rows */
    memset(s, 0, (n > np ? n : np) * 4 * W * sizeof(REAL));
    for (int i = 0; i < n; i++)
        a[i] = operand_row(m, e + i, e[i]->m);
    if (lies(g)) {
        column_vector c[4];
        for (int j = 0; j < nv; j++)
            c[j] = (column_vector){(const REAL *)m->call->w.w_hr + (4 * p + j) * W * m->H, fr_min(W, m->P - (4 * p + j) * W)};
        direct_columns(n, nv, a, c, m->H, m->H, s);
    } else {
        multiply_packed(m, g, g->wh, m->H, n, np, nv, a, p, s);
    }
    g->epilogue(m, s, e, n, p, np);
}

/* The input part of a tile alone, into xw. */
static void input_tile(member *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv)
{
    REAL s[MAX_ROWS * 4 * W];
    start_at_bias(g, s, n, p, np);
    multiply_x(m, g, e, n, p, np, nv, s);
    for (int i = 0; i < (n > np ? n : np); i++)
        memcpy((REAL *)e[n > 1 ? i : 0]->xw + (g->xw_at + p + (np > 1 ? i : 0)) * 4 * W, s + i * 4 * W, 4 * W * sizeof(REAL));
}

/* ---- the rows of a step, rounded ------------------------------------------------------------------------ */

static void round_x(const member *m, const stage *g, const item *e, ptrdiff_t i)
{
    (void)g;
    round_terms(row_at(m->rounded_x, i), e->x, m->I);
}

static void round_forward(const member *m, const stage *g, const item *e, ptrdiff_t i)
{
    if (!e->xw)
        round_x(m, g, e, i);
    round_terms(row_at(m->rounded, i), recurrent_operand(m, g, e), m->P);
}

static void round_projected(const member *m, const stage *g, const item *e, ptrdiff_t i)
{
    (void)g;
    round_terms(row_at(m->rounded, i), e->m, m->H);
}

/* ---- packed weights ------------------------------------------------------------------------------------ */

/* Panel p of w (G*H, K): [k][nv] of vectors; gate[j] is the row block of vector j (one vector of units), or, for a single gate, vector
 * j is units 4p + j of it. */
static void pack_gates(REAL *to, const REAL *w, ptrdiff_t H, ptrdiff_t K, ptrdiff_t p, int n, const int *gate)
{
    const int nv = n == 1 ? panel_vectors(fr_ceil_div(H, W), p) : n;
    for (int j = 0; j < nv; j++) {
        ptrdiff_t b = n == 1 ? 4 * p + j : p, lanes = fr_min(W, H - b * W);
        const REAL *from = w + (gate[n == 1 ? 0 : j] * H + b * W) * K;
        pack_transposed(to, j, nv, from, K, lanes, K);
    }
}

static void pack_panel(const member *m, const stage *g, item *const *e, ptrdiff_t n, ptrdiff_t p)
{
    const fr_call *t = m->call;
    const forward_stage *o = g->forward;
    (void)e, (void)n;
    if (!t->xw)
        pack_gates((REAL *)panel_at(g->wx, place_of(g, p), g->nv, m->I), t->w.w_ih, m->H, m->I, p, o->nx, o->x);
    pack_gates((REAL *)panel_at(g->wh, place_of(g, p), g->nv, m->P), t->w.w_hh, m->H, m->P, p, o->nh, o->h);
}

static void pack_projection(const member *m, const stage *g, item *const *e, ptrdiff_t n, ptrdiff_t p)
{
    static const int whole = 0;
    (void)e, (void)n;
    pack_gates((REAL *)panel_at(g->wh, place_of(g, p), g->nv, m->H), m->call->w.w_hr, m->P, m->H, p, 1, &whole);
}

/* Set up the stages over the memory for packed weights, as one member; base == NULL counts bytes. */
static int forward_stages(const fr_call *t, const cell *c, stage *g, int index, int members, char *base, ptrdiff_t *used)
{
    const ptrdiff_t vectors = fr_ceil_div(t->H, W), real = sizeof(REAL);
    ptrdiff_t xw_at = 0;
    for (int i = 0; i < c->stages; i++) {
        const forward_stage *o = &c->forward[i];
        const int nv = o->nx == 1 ? 4 : o->nx;
        const ptrdiff_t panels = panels_in(o, vectors);
        g[i] = (stage){.panels = panels, .vectors = vectors, .nv = nv, .narrow = o->nx == 1, .h_at = o->h_at, .operand = o->operand};
        g[i].xw_at = xw_at;
        g[i].bias = take(base, used, panels * 4 * W * real); /* before all panels: pieces of a call may have teams of other sizes */
        g[i].forward = o;
        g[i].one_panel = packs_one_panel(t);
        g[i].epilogue = has_activations(t) ? o->activated : o->epilogue;
        g[i].pack = pack_panel;
        g[i].round = round_forward;
        g[i].tile = forward_tile;
        g[i].terms = nv * ((t->schedule.input_first || t->tokens ? 0 : t->I) + t->P);
        xw_at += panels;
    }
    for (int i = 0; i < c->stages; i++) {
        g[i].wx = take_panels(t, g[i].panels, g[i].nv, t->I, index, members, base, used);
        g[i].wh = take_panels(t, g[i].panels, g[i].nv, t->P, index, members, base, used);
    }
    if (!projects(t))
        return c->stages;
    stage *last = &g[c->stages];
    *last = (stage){.vectors = fr_ceil_div(t->P, W), .nv = 4, .narrow = 1, .epilogue = c->project, .tile = project_tile};
    last->panels = fr_ceil_div(last->vectors, 4);
    last->terms = 4 * t->H;
    last->pack = pack_projection;
    last->round = round_projected;
    last->one_panel = packs_one_panel(t);
    last->wh = take_panels(t, last->panels, 4, t->H, index, members, base, used);
    return c->stages + 1;
}

/* The start of every sum of panel p: b_ih + b_hh as the gate has them. */
static void pack_bias(REAL *to, const fr_call *t, ptrdiff_t p, const forward_stage *o)
{
    const REAL *bi = t->w.b_ih, *bh = t->w.b_hh;
    for (int j = 0; j < 4; j++) {
        int v = o->tile == 1 ? 0 : j;
        ptrdiff_t b = o->tile == 1 ? 4 * p + j : p;
        const ptrdiff_t u = b * W, lanes = fr_min(W, t->H - u);
        vec sum = v_zero();
        if (lanes > 0 && v < o->tile && bi && o->b_ih[v] >= 0)
            sum = sum + v_load_n(bi + o->b_ih[v] * t->H + u, lanes);
        if (lanes > 0 && v < o->tile && bh && o->b_hh[v] >= 0)
            sum = sum + v_load_n(bh + o->b_hh[v] * t->H + u, lanes);
        v_store(to + (p * 4 + j) * W, sum);
    }
}

static void pack_forward(const member *m, const stage *g, int stages)
{
    const fr_call *t = m->call;
    for (int i = 0; i < stages; i++) {
        const range panels = share_of(m, g[i].panels);
        for (ptrdiff_t p = panels.from; p < panels.to; p++) {
            if (g[i].forward)
                pack_bias((REAL *)g[i].bias, t, p, g[i].forward);
            if (!t->schedule.direct)
                g[i].pack(m, &g[i], NULL, 0, p);
        }
    }
}

static void widen_forward(const member *m, const stage *g, int stages)
{
    const fr_call *t = m->call;
    for (int i = 0; i < stages && m->tiles.panels.wide; i++) {
        const range panels = share_of(m, g[i].panels);
        for (ptrdiff_t p = panels.from; p < panels.to; p++) {
            const int nv = stage_vectors(&g[i], p);
            const ptrdiff_t K = g[i].forward ? t->P : t->H;
            widen_panel(&m->tiles, nv, panel_at(g[i].wh, p, g[i].nv, K), K);
            if (g[i].forward && !t->xw)
                widen_panel(&m->tiles, nv, panel_at(g[i].wx, p, g[i].nv, t->I), t->I);
        }
    }
}

static ptrdiff_t xw_width(const fr_call *t, const cell *c)
{
    ptrdiff_t panels = 0;
    for (int i = 0; i < c->stages; i++)
        panels += panels_in(&c->forward[i], fr_ceil_div(t->H, W));
    return panels * 4 * W;
}

/* ---- the sequence -------------------------------------------------------------------------------------- */

/* packed: the bytes of all packed weights. */
static member forward_member(const fr_call *t, ptrdiff_t packed, int index, int members, fr_team *team, char *base, ptrdiff_t *used)
{
    const ptrdiff_t real = sizeof(REAL);
    const cell *c = CELLS[t->cell];
    member m = member_of(t, c, index, members, team, base, used);
    m.xw_width = xw_width(t, c);
    m.zero = take(base, used, t->H * real);
    if (members > 1 && t->schedule.row_blocks && !m.units && !t->plan.first)
        m.row_blocks = take(base, used, t->schedule.row_blocks * (ptrdiff_t)sizeof(fr_row_block));
    if (t->saved.c.p && !t->saved.gates.p)
        m.c = t->saved.c.p;
    if (c->gates_needed && !t->saved.gates.p)
        m.scratch_gates = take(base, used, t->plan.B * 4 * t->H * real);
    if (projects(t) || t->saved.recompute)
        m.scratch_m = take(base, used, t->plan.B * t->H * real);
    if (t->schedule.input_first && !t->xw)
        m.xw = take(base, used, chunk_capacity(t) * m.xw_width * real);
    if (widens_panels(t))
        m.tiles.panels = take_wide(t->memory.packed, packed, base, used);
    /* a member works on the items of a step at a time, or on those of a chunk */
    m.rounded_x = take_rows(&m, t->schedule.input_first || t->saved.recompute ? chunk_capacity(t) : t->plan.B, t->I, base, used);
    m.rounded = take_rows(&m, t->saved.recompute ? chunk_capacity(t) : t->plan.B, t->H, base, used);
    return m;
}

static void forward_sizes(const fr_call *t, int threads, fr_sizes *sizes)
{
    stage g[MAX_STAGES + 1];
    const cell *c = CELLS[t->cell];
    *sizes = (fr_sizes){0};
    forward_stages(t, c, g, 0, threads, NULL, &sizes->packed_bytes);
    forward_member(t, sizes->packed_bytes, 0, threads, NULL, NULL, &sizes->work_bytes);
    sizes->xw_width = xw_width(t, c);
    sizes->sum_steps = sum_steps(&t->plan);
}

/* The input products of a chunk: all of this member's items, or all items by this member's panels. */
static void make_inputs(member *m, const stage *g, ptrdiff_t n)
{
    for (int i = 0; i < m->cell->stages && n > 0; i++) {
        stage input = g[i];
        input.tile = input_tile;
        input.round = round_x;
        input.terms = input.nv * m->I;
        run_stage(m, &input, m->mine, n, panels_of(m, input.panels), 0);
    }
}

/* One chunk from step s on: the rows of this member, or all rows where units are shared. 0: the team has ended. */
static int forward_chunk(member *m, const stage *g, int stages, ptrdiff_t s, ptrdiff_t steps)
{
    const fr_call *t = m->call;
    if (t->xw)
        m->xw = (REAL *)t->xw + (t->tokens ? 0 : items_between(&t->plan, t->range.s0, s)) * m->xw_width;
    gather(m, s, steps, 1);
    if (m->units && !barrier(m))
        return 0;
    if (m->xw && !t->xw)
        make_inputs(m, g, m->mine_first[steps]);
    for (ptrdiff_t q = 0, next; q < steps; q = next) { /* where an item's c is updated in place, it needs the item before in the list */
        next = t->saved.recompute ? steps : q + 1;
        if (!run_step(m, g, stages, m->mine + m->mine_first[q], m->mine_first[next] - m->mine_first[q], q & 1))
            return 0;
    }
    return 1;
}

/* All steps, in turns at the row blocks: nobody waits for a member that was descheduled, or has a slow core. */
static void forward_row_blocks(member *m, const stage *g, int stages)
{
    const fr_call *t = m->call;
    const int blocks = t->schedule.row_blocks;
    const ptrdiff_t most = chunk_steps(t, t->range.s0, 1), chunks = fr_ceil_div(t->range.s1 - t->range.s0, fr_max(1, most));
    for (int i; (i = fr_row_block_take(m->row_blocks, blocks, (int)chunks)) >= 0; fr_row_block_done(&m->row_blocks[i])) {
        ptrdiff_t s = t->range.s0 + m->row_blocks[i].chunks * most;
        m->row0 = fr_share(t->plan.B, i, blocks), m->row1 = fr_share(t->plan.B, i + 1, blocks);
        forward_chunk(m, g, stages, s, fr_min(most, t->range.s1 - s));
    }
}

/* All steps, as one member of a team. */
static void forward_steps(member *m, const stage *g, int stages)
{
    const fr_call *t = m->call;
    if (m->index == 0) {
        memset((REAL *)m->zero, 0, t->H * sizeof(REAL));
        if (m->row_blocks)
            memset(m->row_blocks, 0, t->schedule.row_blocks * sizeof(fr_row_block));
    }
    if (!t->memory.packed_ready)
        pack_forward(m, g, stages);
    widen_forward(m, g, stages);
    if (t->saved.recompute && projects(t))
        stages--;
    if (!barrier(m))
        return;
    if (m->row_blocks) {
        forward_row_blocks(m, g, stages);
        return;
    }
    for (ptrdiff_t s = t->range.s0, steps; t->plan.B > 0 && s < t->range.s1; s += steps) {
        if (t->plan.first && !barrier(m)) /* an item's place in the table is another row's in the next chunk */
            return;
        steps = chunk_steps(t, s, 1);
        if (!forward_chunk(m, g, stages, s, steps))
            return;
    }
}

static void forward(const void *call, int index, fr_team *team)
{
    const fr_call *t = call;
    const fr_fpstate state = fr_fp_enter();
    stage g[MAX_STAGES + 1];
    ptrdiff_t packed = 0, work = 0;
    const int stages = forward_stages(t, CELLS[t->cell], g, index, team->n, t->memory.packed, &packed);
    member m = forward_member(t, packed, index, team->n, team, t->memory.work, &work);
    forward_steps(&m, g, stages);
    fr_report_work(team, index, m.work);
    release_tiles(&m.tiles);
    fr_fp_leave(state);
}

/* w_ih as a matrix (I, xw_width) with the columns in the order of `xw`, and the bias in the same order: for a BLAS. */
static void input_matrix(const fr_call *t, void *matrix, void *bias)
{
    const cell *c = CELLS[t->cell];
    const ptrdiff_t width = xw_width(t, c), vectors = fr_ceil_div(t->H, W);
    REAL *to = matrix, *b = bias;
    memset(to, 0, t->I * width * sizeof(REAL));
    for (int i = 0; i < c->stages; i++) {
        const forward_stage *o = &c->forward[i];
        for (ptrdiff_t p = 0; p < panels_in(o, vectors); p++, to += 4 * W, b += 4 * W) {
            pack_bias(b - p * 4 * W, t, p, o);
            for (int j = 0; j < (o->nx == 1 ? 4 : o->nx); j++) {
                const ptrdiff_t v = o->nx == 1 ? 4 * p + j : p, lanes = fr_min(W, t->H - v * W);
                const REAL *from = (const REAL *)t->w.w_ih + (o->x[o->nx == 1 ? 0 : j] * t->H + v * W) * t->I;
                if (lanes > 0)
                    transpose(to + j * W, width, from, t->I, lanes, t->I);
            }
        }
    }
}
/* The input products of all tokens: what a one-hot row adds to the bias is a column of w_ih, the other terms being 0. */
static void token_table(const fr_call *t, void *table)
{
    const ptrdiff_t width = xw_width(t, CELLS[t->cell]);
    REAL *bias = (REAL *)table + t->I * width;
    const fr_fpstate state = fr_fp_enter();
    input_matrix(t, table, bias);
    for (REAL *row = table; row < bias; row += width)
        for (ptrdiff_t j = 0; j < width; j += W)
            v_store(row + j, v_load(bias + j) + rounded(v_load(row + j)));
    fr_fp_leave(state);
}

#endif
