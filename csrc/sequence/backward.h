/* backward.h - a whole sequence backward: the chain of dh through time, and after it the products of each chunk.
 *
 * Step t, as one fused tile: dh_t = dy_t + dgates_{t+1} W_hh (+ what the cell carries), then the epilogue on the finished sums, which
 * writes dgates_t. A row that ends at t, or is cut after it, finds zeros in place of dgates_{t+1}. With a projection the first stage
 * ends with dh_t, and the second is dm_t = dh_t W_hr with the cell's epilogue.
 */
#ifndef FR_BACKWARD_H
#define FR_BACKWARD_H
#include "cells/cells.h"
#include "sequence/products.h"
#include "sequence/stage.h"

/* ---- tiles --------------------------------------------------------------------------------------------- */

/* Where the sums of a row and a panel start: at what flows into dh_t from outside the recurrence. */
static inline void start_at_dy(const member *m, const stage *g, const item *f, ptrdiff_t p, int nv, REAL *s)
{
    for (int v = 0; v < nv; v++) {
        ptrdiff_t u = (p * 4 + v) * W, lanes = fr_min(W, m->P - u);
        vec start = v_zero();
        if (!g->own && f->dy)
            start = start + v_load_n(f->dy + u, lanes);
        if (!g->own)
            start = start + v_load_n(f->dh_carry + u, lanes);
        v_store(s + v * W, start);
    }
}

static void round_backward(const member *m, const stage *g, const item *e, ptrdiff_t i)
{
    round_terms(row_at(m->rounded, i), (g->own ? e->dgates : e->next_dgates) + g->dgates_at, g->K);
}

static void backward_tile(member *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv)
{
    REAL s[MAX_ROWS * 4 * W];
    const term *a[MAX_ROWS];
    a[0] = NULL; /* compilers do not see that there are rows */
    int flows = g->own;
    for (int r = 0; r < n; r++) {
        a[r] = operand_row(m, e + r, (g->own ? e[r]->dgates : e[r]->next_dgates) + g->dgates_at);
        flows |= e[r]->next_dgates != m->zero;
    }
    for (int i = 0; i < n * np; i++)
        start_at_dy(m, g, e[n > 1 ? i : 0], p + (np > 1 ? i : 0), nv, s + i * 4 * W);
    if (flows && lies(g))
        direct_rows(n, nv, a, lying_at(g->lying, p), fr_min(W, g->outputs - (p * 4 + nv - 1) * W), s);
    else if (flows)
        multiply_packed(m, g, g->wh, g->K, n, np, nv, a, p, s);
    for (int r = 0; r < n && n > 1 && flows && !g->own; r++)
        if (e[r]->next_dgates == m->zero) /* as if it were alone: 0 times a weight is not 0 where that is infinite */
            start_at_dy(m, g, e[r], p, nv, s + r * 4 * W);
    g->epilogue(m, s, e, n, p, np);
}

/* The epilogue before the first step: dh is the gradient of the initial state. */
static ALWAYS_INLINE void initial_state_unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes)
{
    (void)m;
    v_store_n(e->dh + u, v_load(s), lanes);
}
static NOINLINE void initial_state_back(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    each_unit(m, s, e, n, p, np, m->P, initial_state_unit);
}

/* ---- packed weights ------------------------------------------------------------------------------------ */

/* A panel that is about to be used, if any item needs it. */
static void pack_back_panel(const member *m, const stage *g, item *const *e, ptrdiff_t n, ptrdiff_t p)
{
    int flows = g->own;
    for (ptrdiff_t r = 0; r < n; r++)
        flows |= e[r]->next_dgates != m->zero;
    if (flows)
        pack_columns((REAL *)g->wh, g->lying, p);
}

/* A stage whose sums go over blocks of H rows of w (blocks*H, outputs). */
static stage backward_stage_of(const fr_call *t, const void *w, ptrdiff_t H, int blocks, const int *order, ptrdiff_t outputs, char *base,
                               ptrdiff_t *used, int index, int members)
{
    stage g = {.vectors = fr_ceil_div(outputs, W), .nv = 4, .narrow = 1, .K = blocks * H, .outputs = outputs};
    g.panels = fr_ceil_div(g.vectors, 4);
    g.terms = 4 * g.K;
    g.lying = (row_blocks_of){w, H, outputs, blocks, order};
    g.one_panel = packs_one_panel(t);
    g.pack = pack_back_panel;
    g.round = round_backward;
    g.tile = backward_tile;
    g.wh = take_panels(t, g.panels, 4, g.K, index, members, base, used);
    return g;
}

static int backward_stages(const fr_call *t, const cell *c, stage *g, int index, int members, char *base, ptrdiff_t *used)
{
    const ptrdiff_t H = t->H;
    for (int i = 0; i < c->stages; i++) {
        const backward_stage *o = &c->backward[i];
        g[i] = backward_stage_of(t, t->w.w_hh, H, o->gates, o->order, t->P, base, used, index, members);
        g[i].epilogue = has_activations(t) ? o->activated : o->epilogue;
        g[i].dgates_at = o->dgates_at * H;
        g[i].own = o->own;
    }
    g[0].wx = take_panels(t, fr_ceil_div(t->I, 4 * W), 4, c->gates * H, index, members, base, used); /* for dx */
    if (!projects(t))
        return c->stages;
    g[1] = backward_stage_of(t, t->w.w_hr, t->P, 1, IN_ORDER, H, base, used, index, members);
    g[1].epilogue = g[0].epilogue;
    g[1].dgates_at = c->dgates * H;
    g[1].own = 1;
    g[0].epilogue = c->project_back;
    return 2;
}

static void pack_backward(const member *m, const stage *g, int stages)
{
    const fr_call *t = m->call;
    for (int i = 0; i < stages; i++) {
        const range panels = share_of(m, g[i].panels);
        for (ptrdiff_t p = panels.from; p < panels.to; p++)
            pack_columns((REAL *)panel_at(g[i].wh, p, 4, g[i].K), g[i].lying, p);
    }
    const range panels = share_of(m, t->d.dx.p ? fr_ceil_div(m->I, 4 * W) : 0);
    for (ptrdiff_t p = panels.from; p < panels.to; p++)
        pack_columns((REAL *)panel_at(g[0].wx, p, 4, m->cell->gates * m->H), of_w_ih(m), p);
}

static void widen_backward(const member *m, const stage *g, int stages)
{
    for (int i = 0; i < stages && m->tiles.panels.wide; i++) {
        const range panels = share_of(m, g[i].panels);
        for (ptrdiff_t p = panels.from; p < panels.to; p++)
            widen_panel(&m->tiles, stage_vectors(&g[i], p), panel_at(g[i].wh, p, 4, g[i].K), g[i].K);
    }
    const ptrdiff_t vectors = fr_ceil_div(m->I, W), K = m->cell->gates * m->H;
    const range panels = share_of(m, m->tiles.panels.wide && m->call->d.dx.p ? fr_ceil_div(vectors, 4) : 0);
    for (ptrdiff_t p = panels.from; p < panels.to; p++)
        widen_panel(&m->tiles, panel_vectors(vectors, p), panel_at(g[0].wx, p, 4, K), K);
}

/* ---- the sequence -------------------------------------------------------------------------------------- */

typedef struct {
    member m;
    products products;
    REAL *edge; /* (B, dgates_width): the dgates of each row's next step, while the chunk that made them is overwritten */
} backward_member;

/* packed: the bytes of all packed weights. */
static backward_member backward_member_of(const fr_call *t, ptrdiff_t packed, const REAL *wx, int index, int members, fr_team *team, char *base,
                                          ptrdiff_t *used)
{
    const ptrdiff_t real = sizeof(REAL);
    const cell *c = CELLS[t->cell];
    ptrdiff_t width = c->dgates * t->H + (projects(t) ? t->P + t->H : 0);
    if (width * real % 1024 == 0) /* rows 4 KiB apart would share their place in the cache */
        width += 64 / real;
    /* What lasts from one piece of a backward to the next comes first: teams of other sizes lay out the rest elsewhere. */
    const REAL *zero = take(base, used, width * real);
    const REAL **next = take(base, used, t->plan.B * (ptrdiff_t)sizeof(REAL *));
    backward_member b = {.edge = take(base, used, t->plan.B * width * real)};
    REAL *dgates = t->d.dgates ? t->d.dgates : take(base, used, chunk_capacity(t) * width * real);
    b.m = member_of(t, c, index, members, team, base, used);
    b.m.dgates_width = width;
    b.m.zero = zero;
    b.m.next_dgates = next;
    b.m.dh = t->d.dh;
    b.m.dc = t->d.dc;
    b.m.dgates = dgates;
    b.m.rounded = take_rows(&b.m, t->plan.B, c->gates * t->H, base, used);
    if (widens_panels(t))
        b.m.tiles.panels = take_wide(t->memory.packed, packed, base, used);
    b.products = lay_out_products(&b.m, width, wx, base, used);
    return b;
}

static void backward_sizes(const fr_call *t, int threads, fr_sizes *sizes)
{
    stage g[MAX_STAGES];
    const cell *c = CELLS[t->cell];
    *sizes = (fr_sizes){0};
    backward_stages(t, c, g, 0, threads, NULL, &sizes->packed_bytes);
    sizes->dgates_width = backward_member_of(t, sizes->packed_bytes, NULL, 0, threads, NULL, NULL, &sizes->work_bytes).m.dgates_width;
    sizes->dgates_x = c->dgates_x * t->H;
}

/* The chunk's dgates are about to be overwritten: keep those that flow on. */
static void keep_edges(const member *m, REAL *edge)
{
    for (ptrdiff_t b = 0; b < m->call->plan.B; b++) {
        REAL *mine = edge + b * m->dgates_width;
        if (owns(m, b) && m->next_dgates[b] && m->next_dgates[b] != m->zero && m->next_dgates[b] != mine) {
            memcpy(mine, m->next_dgates[b], m->cell->dgates * m->H * sizeof(REAL));
            m->next_dgates[b] = mine;
        }
    }
}

/* dh of the initial state, as one more step with another epilogue. */
static void finish(member *m, const stage *g)
{
    const ptrdiff_t B = m->call->plan.B;
    stage last = g[0];
    last.epilogue = initial_state_back;
    for (ptrdiff_t b = 0; b < B; b++) {
        item *e = &m->items[b];
        if (!owns(m, b))
            continue;
        e->dy = NULL;
        e->dh = m->dh + b * m->P;
        e->next_dgates = m->next_dgates[b] ? m->next_dgates[b] : m->zero;
        e->dh_carry = m->cell->direct_dh || !m->next_dgates[b] ? e->dh : m->zero;
    }
    if (!barrier(m))
        return;
    ptrdiff_t n = 0;
    for (ptrdiff_t b = 0; b < B; b++)
        if (m->units || owns(m, b))
            m->mine[n++] = &m->items[b];
    run_stage(m, &last, m->mine, n, panels_of(m, last.panels), 0);
}

/* All steps downwards, as one member of a team. The barrier at the start of a chunk is also that after the products of the one before:
 * what they read is not overwritten before it. */
static void backward_steps(member *m, const stage *g, int stages, const products *c, REAL *edge)
{
    const fr_call *t = m->call;
    m->fresh = t->d.fresh && t->range.first;
    for (ptrdiff_t s = t->range.s1 - 1, steps; t->plan.B > 0 && s >= t->range.s0; s -= steps, m->fresh = 0) {
        keep_edges(m, edge);
        if (!barrier(m))
            return;
        steps = chunk_steps(t, s, -1);
        const ptrdiff_t n = gather(m, s, steps, -1);
        if (m->units && !barrier(m)) /* after it, members work on items that others have filled in */
            return;
        for (ptrdiff_t q = 0; q < steps; q++)
            if (!run_step(m, g, stages, m->mine + m->mine_first[q], m->mine_first[q + 1] - m->mine_first[q], q & 1))
                return;
        if (!barrier(m))
            return;
        if (t->d.dgates && !t->d.make_dx)
            sum_biases(m);
        else if (!run_products(m, c, n))
            return;
    }
    if (t->range.last && t->plan.B > 0)
        finish(m, g);
}

static void backward(const void *call, int index, fr_team *team)
{
    const fr_call *t = call;
    const fr_fpstate state = fr_fp_enter();
    stage g[MAX_STAGES];
    ptrdiff_t packed = 0, work = 0;
    const int stages = backward_stages(t, CELLS[t->cell], g, index, team->n, t->memory.packed, &packed);
    backward_member b = backward_member_of(t, packed, g[0].wx, index, team->n, team, t->memory.work, &work);
    member *m = &b.m;
    if (t->range.first) {
        if (index == 0) {
            memset((REAL *)m->zero, 0, m->dgates_width * sizeof(REAL));
            memset((void *)m->next_dgates, 0, t->plan.B * sizeof(REAL *));
        }
        if (!t->schedule.direct && !t->memory.back_ready)
            pack_backward(m, g, stages);
    }
    widen_backward(m, g, stages);
    if (barrier(m))
        backward_steps(m, g, stages, &b.products, b.edge);
    fr_report_work(team, index, m->work);
    release_tiles(&m->tiles);
    fr_fp_leave(state);
}

/* ---- the weights' gradients alone ---------------------------------------------------------------------- */

static void list_kept_items(const member *m)
{
    const fr_call *t = m->call;
    for (ptrdiff_t s = 0, slot = 0; s < t->plan.T; s++)
        for (ptrdiff_t b = 0; b < t->plan.B; b++, slot++) {
            item *e = &m->items[slot];
            *e = (item){.x = at(&t->x, s, b), .h_prev = at(&t->y, s, b), .c_prev = at(&t->saved.c, s, b), .gates = at(&t->saved.gates, s, b)};
            e->c = t->saved.c.p ? (REAL *)e->c_prev + t->plan.B * t->H : NULL;
            e->dgates = m->dgates + slot * m->dgates_width;
        }
}

static void accumulate(const void *call, int index, fr_team *team)
{
    const fr_call *t = call;
    const fr_fpstate state = fr_fp_enter();
    const ptrdiff_t n = t->plan.T * t->plan.B;
    ptrdiff_t work = 0;
    backward_member b = backward_member_of(t, 0, NULL, index, team->n, team, t->memory.work, &work);
    member *m = &b.m;
    m->fresh = t->d.fresh;
    m->sums = 1;
    m->sum_first[0] = 0;
    m->sum_first[1] = n;
    list_sum_terms(m);
    if (index == 0)
        list_kept_items(m);
    if (barrier(m))
        run_products(m, &b.products, n);
    fr_report_work(team, index, m->work);
    release_tiles(&m->tiles);
    fr_fp_leave(state);
}

#endif
