/* stage.h - a step is one stage, or two where something needs others finished (GRU reset-before, an LSTM's projection).
 *
 * A stage is a product of the step's items with packed panels, and the epilogue of the cell on the finished tile. Forward panels hold
 * all gates of one vector of units (or, for a single gate, four vectors), so the epilogue finds everything it needs in one tile.
 */
#ifndef FR_STAGE_H
#define FR_STAGE_H
#include "cells/cell.h"
#include "sequence/chunk.h"
#include "tile/direct.h"

typedef struct stage {
    ptrdiff_t panels;
    ptrdiff_t vectors;     /* of the outputs, where four of them are a panel */
    int nv;                /* vectors of a full panel */
    int narrow;            /* the last panel may have fewer: a panel is four vectors of one gate */
    ptrdiff_t terms;       /* of all sums of a tile together: multiply-adds per row and vector */
    ptrdiff_t K;           /* backward: length of the sum */
    ptrdiff_t outputs;     /* backward: of it */
    int h_at;              /* forward: the vector of the tile at which the recurrent sums begin */
    operand operand;       /* forward: of w_hh */
    ptrdiff_t dgates_at;   /* backward: where in dgates the operand begins */
    int own;               /* backward: it is of the item's own dgates, not of the row's next step */
    ptrdiff_t xw_at;       /* forward: where in xw this stage begins (in panels) */
    const REAL *bias, *wx, *wh; /* packed; wx and wh NULL where the weights are read as they lie */
    const forward_stage *forward;   /* how they lie then */
    row_blocks_of lying;
    int one_panel;         /* wx and wh have place for one panel, which is packed before its items are multiplied */
    epilogue_fn *epilogue;
    void (*pack)(const member *m, const struct stage *g, item *const *e, ptrdiff_t n, ptrdiff_t p); /* that panel */
    void (*round)(const member *m, const struct stage *g, const item *e, ptrdiff_t i); /* the operands of item i of a list */
    void (*tile)(member *m, const struct stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv);
} stage;

/* Packed panels for a direct call of more than a few rows, or whose weights are rounded: one at a time. */
static inline int packs_one_panel(const fr_call *t)
{
    return t->schedule.direct && (FR_BF16_PRODUCTS || t->plan.B > DIRECT_ROWS);
}

/* Are its weights read as they lie? */
static inline int lies(const stage *g)
{
    return !FR_BF16_PRODUCTS && !g->wh;
}

/* Memory for the panels of one operand, of K terms each: all of them, for each member its own one, or none where they are read as they
 * lie; base == NULL counts bytes. */
static REAL *take_panels(const fr_call *t, ptrdiff_t panels, int nv, ptrdiff_t K, int index, int members, char *base, ptrdiff_t *used)
{
    const ptrdiff_t bytes = nv * W * panel_rows(K) * (ptrdiff_t)sizeof(REAL);
    if (!t->schedule.direct)
        return take(base, used, panels * bytes);
    REAL *mine = NULL;
    for (int i = 0; i < members && packs_one_panel(t); i++) {
        REAL *one = take(base, used, bytes);
        mine = i == index ? one : mine;
    }
    return mine;
}

/* Are packed panels widened once in a call, for all of its steps? If a step is of more rows than take pairs from memory. */
static inline int widens_panels(const fr_call *t)
{
    return WIDENS && !t->schedule.direct && !are_few(t->plan.B, 4);
}

/* Where panel p is. */
static inline ptrdiff_t place_of(const stage *g, ptrdiff_t p)
{
    return g->one_panel ? 0 : p;
}

/* Rows by panels from p on, of K terms each. */
static inline void multiply_packed(member *m, const stage *g, const REAL *panels, ptrdiff_t K, int n, int np, int nv, const term *const *a,
                                   ptrdiff_t p, REAL *s)
{
    tile(&m->tiles, n, np, nv, a, panel_at(panels, place_of(g, p), g->nv, K), panel_rows(K) * g->nv * W, K, s);
}

/* The vectors of panel p of a stage. */
static inline int stage_vectors(const stage *g, ptrdiff_t p)
{
    return g->narrow ? panel_vectors(g->vectors, p) : g->nv;
}

/* One item by some panels, several at a time: sums enough to hide the latency of the additions. Even strips: 5 panels are 3 + 2, never
 * 4 + 1. */
static void run_single_item(member *m, const stage *g, item *const *e, range panels, int backwards)
{
    const int most = strip_panels(g->nv), last = (int)(panels.to - 1), narrow = panels.to > panels.from && stage_vectors(g, last) < g->nv;
    const ptrdiff_t n = panels.to - panels.from - narrow; /* a narrow last panel goes alone */
    const ptrdiff_t strips = n <= most ? n > 0 : fr_ceil_div(n, most), size = strips > 1 ? n / strips : n, longer = strips > 1 ? n % strips : 0;
    if (narrow && backwards)
        g->tile(m, g, e, 1, last, 1, stage_vectors(g, last));
    for (ptrdiff_t i = 0; i < strips; i++) {
        const ptrdiff_t at = backwards ? strips - 1 - i : i;
        g->tile(m, g, e, 1, panels.from + at * size + fr_min(at, longer), (int)(size + (at < longer)), g->nv);
    }
    if (narrow && !backwards)
        g->tile(m, g, e, 1, last, 1, stage_vectors(g, last));
}

/* All items of one step by some panels, or by the same backwards: a step that begins where the one before has ended finds there the
 * panels that are still in cache. Panel outside, items inside: a panel stays in cache while the items go by. */
static void run_stage(member *m, const stage *g, item *const *e, ptrdiff_t n, range panels, int backwards)
{
    m->work += (long long)n * (panels.to - panels.from) * g->terms;
    m->rounded_of = e;
    for (ptrdiff_t i = 0; FR_BF16_PRODUCTS && i < n; i++)
        g->round(m, g, e[i], i);
    if (n == 1 && !lies(g) && !g->one_panel) {
        run_single_item(m, g, e, panels, backwards);
        return;
    }
    const ptrdiff_t rows = lies(g) ? DIRECT_ROWS : MAX_ROWS;
    for (ptrdiff_t i = panels.from; n > 0 && i < panels.to; i++) {
        ptrdiff_t p = backwards ? panels.to - 1 - (i - panels.from) : i;
        if (g->one_panel)
            g->pack(m, g, e, n, p);
        for (ptrdiff_t r = 0; r < n; r += rows)
            g->tile(m, g, e + r, (int)fr_min(rows, n - r), p, 1, stage_vectors(g, p));
    }
}

/* The items of a step, shared out: by rows (the caller has listed this member's), or by units with a barrier after each stage. 0: the
 * team has ended. */
static int run_step(member *m, const stage *g, int stages, item *const *e, ptrdiff_t n, int backwards)
{
    for (int i = 0; i < stages; i++) {
        run_stage(m, &g[i], e, n, panels_of(m, g[i].panels), backwards);
        if (m->units && !barrier(m))
            return 0;
    }
    return 1;
}

#endif
