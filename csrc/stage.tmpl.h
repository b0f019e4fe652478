/* stage.tmpl.h - a step is one stage, or two where something needs others finished (GRU reset-before, an LSTM's projection).
 *
 * A stage is a product of the step's items with packed panels, and a pointwise function on the finished tile. Forward panels hold
 * all gates of one block of units (or, for a single gate, four blocks), so the pointwise part finds everything it needs in one tile.
 */

typedef void NAME(point)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np);

typedef struct NAME(stage) {
    ptrdiff_t panels;
    ptrdiff_t blocks;      /* vectors of the outputs, where four of them are a panel */
    int nv;                /* vectors of a full panel */
    int h_at;              /* forward: where in the tile the recurrent sums begin (in vectors) */
    ptrdiff_t terms;       /* of all sums of a tile together: multiply-adds per row and vector */
    ptrdiff_t K;           /* backward: length of the sum, */
    ptrdiff_t a_at;        /* and where in dgates it begins */
    int own;               /* backward: sums over the item's own dgates, not over those of the next step */
    int reset_h;           /* forward: the recurrent operand is r*h, not h */
    ptrdiff_t pre_at;      /* forward: where in `pre` this stage begins (in panels) */
    const REAL *bias, *wx, *wh; /* packed */
    NAME(point) *point;
    void (*tile)(const call *m, const struct NAME(stage) *g, item *const *e, int n, ptrdiff_t p, int np, int nv);
} NAME(stage);
#undef stage
#define stage NAME(stage)

enum { NAME(single) = 4 }; /* blocks of units in a panel of a single gate */

/* The vectors of panel p: fewer than nv in the last panel of a single gate. */
static inline int NAME(panel_vectors)(ptrdiff_t blocks, ptrdiff_t p)
{
    return (int)fr_min(4, blocks - p * 4);
}

/* All items of one step by the panels p0..p1-1, or by the same backwards: a step that begins where the one before has ended finds there
 * the panels that are still in cache. Panel outside, items inside: a panel stays in cache while the items go by. */
static void NAME(run_stage)(call *m, const stage *g, item *const *e, ptrdiff_t n, ptrdiff_t p0, ptrdiff_t p1, int single,
                            int backwards)
{
    m->work += (long long)n * (p1 - p0) * g->terms;
    if (n == 1) {
        const int most = NAME(strip_panels)(g->nv);
        const ptrdiff_t strips = most == 2 ? fr_ceil_div(p1 - p0, 2) : most == 3 ? fr_ceil_div(p1 - p0, 3) : p1 - p0; /* not by a division */
        for (ptrdiff_t i = 0; i < strips; i++) {
            ptrdiff_t p = p0 + (backwards ? strips - 1 - i : i) * most;
            int np = (int)fr_min(most, p1 - p), nv = single ? NAME(panel_vectors)(g->blocks, p + np - 1) : g->nv;
            if (nv < g->nv && np > 1) { /* the narrow last panel goes alone */
                g->tile(m, g, e, 1, p + --np, 1, nv);
                nv = g->nv;
            }
            g->tile(m, g, e, 1, p, np, nv);
        }
        return;
    }
    for (ptrdiff_t i = p0; i < p1; i++) {
        ptrdiff_t p = backwards ? p1 - 1 - (i - p0) : i;
        int nv = single ? NAME(panel_vectors)(g->blocks, p) : g->nv;
        for (ptrdiff_t r = 0; r < n; r += MOST_ROWS)
            g->tile(m, g, e + r, (int)fr_min(MOST_ROWS, n - r), p, 1, nv);
    }
}

/* The items of a step, shared out: by rows (the caller has listed this member's), or by units with a meeting after each stage. 0: the
 * team has ended. */
static int NAME(run_step)(call *m, const stage *g, int stages, int single_of_stage, item *const *e, ptrdiff_t n, int backwards)
{
    for (int i = 0; i < stages; i++) {
        ptrdiff_t p0 = 0, p1 = g[i].panels;
        if (m->t->split_units) {
            p0 = fr_share(g[i].panels, m->member, m->members);
            p1 = fr_share(g[i].panels, m->member + 1, m->members);
        }
        if (n > 0)
            NAME(run_stage)(m, &g[i], e, n, p0, p1, single_of_stage >> i & 1, backwards);
        if (m->t->split_units && !NAME(meet)(m))
            return 0;
    }
    return 1;
}
