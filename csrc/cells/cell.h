/* cell.h - what the kernels have to know of a cell: its gates, its stages forward and backward with their epilogues, and which blocks
 * of dgates feed which weights. forward, backward and the weights' gradients ask this descriptor and name no cell.
 *
 * Blocks are of H rows of a weight, or H numbers of a row of dgates or of the saved gates.
 */
#ifndef FR_CELL_H
#define FR_CELL_H
#include "cells/activations.h"
#include "sequence/member.h"

/* What happens to a finished tile: s holds the sums of n rows by np panels from panel p on, one of n and np being 1. */
typedef void epilogue_fn(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np);

/* A product of a forward step: x W_ih + operand W_hh. A panel holds all of its gates for one vector of units, so the epilogue finds in
 * one tile everything that a unit needs; for a single gate, it holds four vectors of units. */
typedef struct {
    int nx, nh;           /* gates in a panel of w_ih, and of w_hh */
    int h_at;             /* the vector of a tile at which the recurrent sums begin */
    int tile;             /* vectors of a tile: of both sums together */
    int x[4], h[4];       /* blocks of w_ih, of w_hh */
    int b_ih[4], b_hh[4]; /* blocks of the biases that each vector of a tile starts from; -1: none */
    operand operand;      /* of w_hh */
    epilogue_fn *epilogue;
    epilogue_fn *activated; /* the epilogue of calls that have activations of their own */
} forward_stage;

/* A product of a backward step, with w_hh not transposed: dh_t = dy_t + dgates_{t+1} W_hh, or of the item's own dgates. */
typedef struct {
    int gates, order[4];  /* blocks of w_hh in the order in which dgates holds them */
    int dgates_at;        /* the first of these blocks of dgates */
    int own;              /* the operand is the item's own dgates, not those of the row's next step */
    epilogue_fn *epilogue, *activated;
} backward_stage;

/* Some blocks of the gradient of w_hh, and of b_hh: sums over all items of dgates times the operand. */
typedef struct {
    int dgates_at, blocks, row; /* the first block of dgates, how many, and the first block of w_hh */
    operand operand;
} hidden_gradient;

/* A row of the gradient of the peepholes: the sum over all items of a block of dgates times c_{t-1} or c_t. */
typedef struct {
    int dgates_at, row;
    cell_state c;
} peephole_gradient;

enum { MAX_STAGES = 2 };

struct cell {
    int gates;        /* G: blocks of w_ih and w_hh */
    int dgates;       /* blocks of dgates */
    int dgates_x;     /* the first of the G blocks that belong to W_ih x, in the order of the weights */
    int direct_dh;    /* a part of dh_t flows to dh_{t-1} past the product: the epilogue leaves it in dh */
    int gates_needed; /* a step needs memory for its saved gates, in inference too */
    int stages;       /* forward, and as many backward */
    forward_stage forward[MAX_STAGES];
    backward_stage backward[MAX_STAGES];
    int hidden_gradients;
    hidden_gradient hidden[2];
    int peephole_gradients;
    peephole_gradient peephole[3];
    /* h_t = w_hr m_t, a stage of its own after the others; backward, before them. NULL: the cell has no projection. */
    epilogue_fn *project, *project_back;
};

/* The arithmetic of one vector of units, `lanes` of them from u on; s: the sums of these units. */
typedef void unit_fn(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t lanes);

/* f with `lanes` a constant where the vector is full, so that masks cost nothing there. */
static ALWAYS_INLINE void unit(const member *m, REAL *s, const item *e, ptrdiff_t u, ptrdiff_t units, unit_fn *f)
{
    if (units - u >= W)
        f(m, s, e, u, W);
    else
        f(m, s, e, u, units - u);
}

/* f on each vector of units of a tile whose panels hold several gates of one vector of units: one slot of s for each gate. */
static ALWAYS_INLINE void each_gated_unit(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np, unit_fn *f)
{
    for (int r = 0; r < n; r++)
        for (ptrdiff_t b = p; b < p + np; b++, s += 4 * W)
            unit(m, s, e[r], b * W, m->H, f);
}

/* f on each vector of units of a tile whose panels hold a single gate of four vectors of units; `units` in all. */
static ALWAYS_INLINE void each_unit(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np, ptrdiff_t units, unit_fn *f)
{
    const ptrdiff_t end = fr_min((p + np) * 4, fr_ceil_div(units, W));
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < end; b++)
            unit(m, s + (b - p * 4) * W, e[r], b * W, units, f);
}

/* ---- activations in place of the cell's own ------------------------------------------------------------ */

/* Of a tile whose panels hold several gates of one vector of units: some slots of all units. */
static inline void activate_slots(const fr_activation *f, REAL *s, int n, int np, int slots)
{
    activate(f, s, s, n * np, slots);
}

/* Of a tile whose panels hold a single gate of four vectors of units: all of them, `units` in all. */
static inline void activate_units(const fr_activation *f, REAL *s, int n, ptrdiff_t p, int np, ptrdiff_t units)
{
    activate(f, s, s, n, (int)(fr_min((p + np) * 4, fr_ceil_div(units, W)) - p * 4)); /* one of n and np is 1 */
}

/* What backward needs of some units, up to four vectors: rows of values, and of the slopes there. */
enum { MOST_VALUES = 5 };
typedef struct {
    REAL value[MOST_VALUES * 4 * W], slope[MOST_VALUES * 4 * W];
} values;

/* Row `row` of the values: numbers of an item, of `vectors` vectors of units from u on. */
static inline void load_values(values *v, int row, const REAL *from, ptrdiff_t u, int vectors, ptrdiff_t units)
{
    for (int k = 0; k < vectors; k++)
        v_store(v->value + (row * 4 + k) * W, v_load_n(from + u + k * W, fr_min(W, units - u - k * W)));
}

/* The slopes at some rows of the values. */
static inline void find_slopes(const fr_activation *f, values *v, int row, int rows, int vectors)
{
    slopes(f, v->value + row * 4 * W, v->slope + row * 4 * W, rows, vectors);
}

/* The arithmetic of up to four vectors of units, from u on. */
typedef void panel_fn(const member *m, REAL *s, const item *e, ptrdiff_t u, int vectors);

/* f on each panel of a tile whose panels hold a single gate of four vectors of units. */
static ALWAYS_INLINE void each_panel(const member *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np, panel_fn *f)
{
    for (int r = 0; r < n; r++)
        for (ptrdiff_t b = p; b < p + np; b++, s += 4 * W)
            f(m, s, e[r], b * 4 * W, panel_vectors(fr_ceil_div(m->H, W), b));
}

#endif
