/* plan.h - fastrnn/_engine/plan.py in C: lengths, resets and masks that are known only when the compiled program runs. */
#ifndef FR_XLA_PLAN_H
#define FR_XLA_PLAN_H
#include "fastrnn.h"
#include "memory.h"

/* What the rows are told. reset and mask: one byte for each step of each row, (t, b) at [t*st + b*sb]; or NULL. */
typedef struct {
    ptrdiff_t T, B, st, sb;
    int reverse, hold;
    const ptrdiff_t *length; /* (B) from 0 to T, or NULL */
    const unsigned char *reset, *mask;
} fr_rows;

enum { FR_NOT_HELD = -3 };

typedef struct {
    fr_plan items;          /* its T: the steps that there are */
    int gaps;               /* are there places of y that no step writes? */
    const ptrdiff_t *last;  /* (B) where each row's final state comes from; NULL: all from last_of_all */
    ptrdiff_t last_of_all;
    const ptrdiff_t *held;  /* (T, B) where the output of a skipped step comes from, or FR_NOT_HELD; NULL: nowhere */
} fr_row_plan;

/* The lists are of `memory`, which says whether it was enough. */
fr_row_plan fr_plan_rows(const fr_rows *rows, fr_arena *memory);

/* Where row b's final state comes from: a time, FR_FROM_INITIAL or FR_FROM_ZERO. */
static inline ptrdiff_t fr_last(const fr_row_plan *plan, ptrdiff_t b)
{
    return plan->last ? plan->last[b] : plan->last_of_all;
}

#endif
