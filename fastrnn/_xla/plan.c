#include "plan.h"

#include <string.h>

typedef struct {
    fr_row_plan *plan;
    const fr_rows *rows;
    ptrdiff_t *first, *rank, *row, *time, *prev, *last, *held;
    ptrdiff_t *count; /* (B) steps of each row */
    ptrdiff_t *more;  /* (T+1) how many rows have more than s steps */
} lists;

static inline ptrdiff_t length(const fr_rows *rows, ptrdiff_t b)
{
    return rows->length ? rows->length[b] : rows->T;
}

static inline int at(const unsigned char *flags, const fr_rows *rows, ptrdiff_t t, ptrdiff_t b)
{
    return flags[t * rows->st + b * rows->sb];
}

static inline int live(const fr_rows *rows, ptrdiff_t t, ptrdiff_t b)
{
    return !rows->mask || at(rows->mask, rows, t, b);
}

/* What is told, without the lengths and the mask that skip nothing. */
static fr_rows told(const fr_rows *rows)
{
    fr_rows less = *rows;
    less.length = NULL;
    for (ptrdiff_t b = 0; b < rows->B; b++)
        if (length(rows, b) < rows->T)
            less.length = rows->length;
    less.mask = NULL;
    for (ptrdiff_t i = 0; rows->mask && i < rows->T * rows->B; i++)
        if (!rows->mask[i])
            less.mask = rows->mask;
    return less;
}

/* The steps of each row, and how many rows are alive at each; rows that have more steps come first. */
static void count_steps(lists *l)
{
    const fr_rows *rows = l->rows;
    memset(l->more, 0, (size_t)(rows->T + 1) * sizeof *l->more);
    for (ptrdiff_t b = 0; b < rows->B; b++) {
        l->count[b] = 0;
        for (ptrdiff_t t = 0; t < length(rows, b); t++)
            l->count[b] += live(rows, t, b);
        l->more[l->count[b]]++;
    }
    for (ptrdiff_t s = 0, left = rows->B; s <= rows->T; s++)
        l->more[s] = left -= l->more[s];
    ptrdiff_t steps = 0;
    for (l->first[0] = 0; l->more[steps] > 0; steps++)
        l->first[steps + 1] = l->first[steps] + l->more[steps];
    l->plan->items.T = steps;
    l->plan->gaps = l->first[steps] < rows->T * rows->B;
    for (ptrdiff_t b = 0; b < rows->B; b++)
        l->rank[b] = l->more[l->count[b]]++;
}

/* One row from its start to its end, `from` being where its state comes from. A reset before t lies between t-1 and t, from
 * whichever side it is met. */
static void walk(lists *l, ptrdiff_t b)
{
    const fr_rows *rows = l->rows;
    const ptrdiff_t n = length(rows, b);
    ptrdiff_t from = FR_FROM_INITIAL, step = 0;
    for (ptrdiff_t k = 0; k < n; k++) {
        const ptrdiff_t t = rows->reverse ? n - 1 - k : k, front = rows->reverse ? t + 1 : t;
        if (rows->reset && front < n && at(rows->reset, rows, front, b))
            from = FR_FROM_ZERO;
        if (live(rows, t, b)) {
            const ptrdiff_t i = l->first[step++] + l->rank[b];
            l->row[i] = b;
            l->time[i] = t;
            l->prev[i] = from;
            from = t;
        } else if (l->held) {
            l->held[t * rows->B + b] = from;
        }
    }
    l->last[b] = from;
}

static ptrdiff_t *numbers(fr_arena *memory, ptrdiff_t n)
{
    return fr_arena_take(memory, n * (ptrdiff_t)sizeof(ptrdiff_t));
}

static void list_items(lists *l, fr_arena *memory)
{
    const ptrdiff_t T = l->rows->T, B = l->rows->B;
    l->first = numbers(memory, T + 1);
    l->more = numbers(memory, T + 1);
    l->count = numbers(memory, 3 * B);
    if (memory->missing)
        return;
    l->rank = l->count + B;
    l->last = l->rank + B;
    count_steps(l);
    const ptrdiff_t items = l->first[l->plan->items.T];
    l->row = numbers(memory, 3 * items);
    if (l->rows->hold && l->rows->mask)
        l->held = numbers(memory, T * B);
    if (memory->missing)
        return;
    l->time = l->row + items;
    l->prev = l->time + items;
    for (ptrdiff_t i = 0; l->held && i < T * B; i++)
        l->held[i] = FR_NOT_HELD;
    for (ptrdiff_t b = 0; b < B; b++)
        walk(l, b);
}

fr_row_plan fr_plan_rows(const fr_rows *all, fr_arena *memory)
{
    const fr_rows rows = told(all);
    const ptrdiff_t steps = rows.B ? rows.T : 0;
    fr_row_plan plan = {
        .items = {.T = steps, .B = rows.B, .reverse = rows.reverse},
        .gaps = steps == 0,
        .last_of_all = steps == 0 ? FR_FROM_INITIAL : rows.reverse ? 0 : steps - 1,
    };
    if (steps == 0 || !(rows.length || rows.reset || rows.mask))
        return plan;
    lists l = {.plan = &plan, .rows = &rows};
    list_items(&l, memory);
    plan.items.first = l.first;
    plan.items.row = l.row;
    plan.items.time = l.time;
    plan.items.prev = l.prev;
    plan.items.rank = l.rank;
    plan.last = l.last;
    plan.held = l.held;
    return plan;
}
