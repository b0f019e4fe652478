/* member.h - one call as one member of the team sees it: which part of the work is its own, and the items of a chunk of steps.
 *
 * An item is one row at one step. Kernels see items as a list of pointers, so dense batches, ragged ones, resets, reversed
 * sequences and batch-first arrays are all the same to them.
 *
 * What a product takes of an item is a row of terms: the item's own numbers, or, where operands are bfloat16, a copy that is rounded once
 * a step, for all panels.
 */
#ifndef FR_MEMBER_H
#define FR_MEMBER_H
#include "fastrnn.h"
#include "simd/fpstate.h"
#include "simd/vmath.h"
#include "tile/tile.h"

typedef struct {
    const REAL *x, *h_prev, *c_prev; /* x_t, h_{t-1}, c_{t-1} */
    REAL *y, *c, *gates;       /* h_t, c_t, the gates that are saved (or NULL) */
    REAL *m;                   /* an LSTM's o tanh(c_t): y, or what is projected to it */
    const REAL *xw;            /* the input product, or NULL */
    ptrdiff_t token;           /* the place of the 1 in x_t, where tokens stand for x */
    const REAL *dy, *dcs;      /* backward: gradients of y_t and of c_t that come from outside, or NULL */
    const REAL *next_dgates;   /* of the row's next step (zeros past its end) */
    const REAL *dh_carry;      /* what else flows into dh_t: the final state's gradient, a GRU's direct path; or zeros */
    REAL *dgates, *dx;         /* of this item; gradient of x_t */
    REAL *dh, *dc;             /* what is carried from step to step of this row */
    int cut;                   /* nothing flows to the step before */
} item;

/* What a product takes of an item, and which c a peephole looked at. */
typedef enum { OPERAND_X, OPERAND_H, OPERAND_RH, OPERAND_M } operand;
typedef enum { C_PREVIOUS, C_CURRENT } cell_state;

typedef struct cell cell; /* cells/cell.h */

/* Rows of terms, one below the other. */
typedef struct {
    term *first;
    ptrdiff_t apart;
} term_rows;

static inline term *row_at(term_rows rows, ptrdiff_t i)
{
    return rows.first + i * rows.apart;
}

typedef struct {
    const fr_call *call;
    const cell *cell;
    fr_team *team, alone;      /* alone: the team of one in which member 0 goes on */
    int index, members;        /* this member, of how many */
    int units;                 /* the members share the units of a step, not its rows */
    ptrdiff_t row0, row1;      /* dense plans: the rows that this member looks after */
    long long work;            /* multiply-adds that this member has done */
    ptrdiff_t I, H, P;
    const REAL *peephole;
    REAL *c, *dh, *dc;         /* (B, H), (B, P), (B, H): what is updated in place from step to step; c: in inference, else NULL */
    fr_row_block *row_blocks;  /* shared by the team, or NULL */
    const REAL *zero;          /* a row of zeros, as long as any row */
    item *items;               /* the items of the chunk, in order; shared by the team */
    item **mine;               /* those that this member works on */
    ptrdiff_t *mine_first;     /* (steps of the chunk + 1) offsets into mine */
    ptrdiff_t *sum_first;      /* (sums + 1) the items at which a new sum of the weights' gradients begins */
    ptrdiff_t *sum_terms;      /* (sums + 1) and the terms: the same, unless sums take them in blocks */
    ptrdiff_t sums;
    int fresh;                 /* backward: the weights' gradients hold nothing yet */
    const REAL **next_dgates;  /* (B) backward: dgates of the step last seen, NULL before any */
    REAL *scratch_gates;       /* (B, 4*H) where a step needs gates that are not saved */
    REAL *scratch_m;           /* (B, H) for a projection, and for h_t that is there already */
    REAL *xw;                  /* (items of the chunk, xw_width), of tokens (I, xw_width), or NULL */
    REAL *dgates;              /* (items of the chunk, dgates_width) */
    term_rows rounded_x, rounded; /* x, and the other operand, of the items listed from rounded_of on; unless they are plain */
    item *const *rounded_of;
    tiles tiles;
    ptrdiff_t xw_width, dgates_width;
} member;

/* The row of an item of a list, whose own numbers are these. */
static inline const term *x_of(const member *m, item *const *e)
{
#if FR_BF16_PRODUCTS
    return row_at(m->rounded_x, e - m->rounded_of);
#else
    (void)m;
    return (*e)->x;
#endif
}
static inline const term *operand_row(const member *m, item *const *e, const REAL *own)
{
#if FR_BF16_PRODUCTS
    (void)own;
    return row_at(m->rounded, e - m->rounded_of);
#else
    (void)m, (void)e;
    return own;
#endif
}

/* ---- who does what ------------------------------------------------------------------------------------- */

typedef struct {
    ptrdiff_t from, to;
} range;

/* This member's share of n things that every member can do. */
static inline range share_of(const member *m, ptrdiff_t n)
{
    return (range){fr_share(n, m->index, m->members), fr_share(n, m->index + 1, m->members)};
}

/* The panels of a step that this member computes, for all of the items in its list. */
static inline range panels_of(const member *m, ptrdiff_t panels)
{
    return m->units ? share_of(m, panels) : (range){0, panels};
}

/* Does this member fill in the items of this row, and, where rows are shared out, work on them? */
static inline int owns(const member *m, ptrdiff_t row)
{
    return m->call->plan.first ? m->call->plan.rank[row] % m->members == m->index : row >= m->row0 && row < m->row1;
}

/* Wait for the others. 0: leave, the team has ended. Member 0 then goes on alone, with all rows and all units. */
static int barrier(member *m)
{
    if (fr_barrier(m->team, m->index))
        return 1;
    if (m->index != 0)
        return 0;
    m->alone = (fr_team){.n = 1};
    m->team = &m->alone;
    m->members = 1;
    m->units = 0;
    m->row0 = 0;
    m->row1 = m->call->plan.B;
    return 1;
}

#endif
