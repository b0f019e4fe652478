/* chunk.h - the steps of a call in chunks, the items of a chunk, and where they and all else stand in the workspace. */
#ifndef FR_CHUNK_H
#define FR_CHUNK_H
#include "cells/cell.h"

/* ---- steps, chunks and sums ---------------------------------------------------------------------------- */

static inline ptrdiff_t step_items(const fr_plan *plan, ptrdiff_t s)
{
    return plan->first ? plan->first[s + 1] - plan->first[s] : plan->B;
}

static inline ptrdiff_t items_between(const fr_plan *plan, ptrdiff_t s0, ptrdiff_t s)
{
    return plan->first ? plan->first[s] - plan->first[s0] : (s - s0) * plan->B;
}

/* The weights' gradients are sums over steps s*n .. s*n+n-1 for one s after the other, n such that they have SUM_TERMS items or a
 * few more: a rule that knows nothing of chunks, so chunks do not show in the bits. */
static inline ptrdiff_t sum_steps(const fr_plan *plan)
{
    return fr_ceil_div(SUM_TERMS, fr_max(1, plan->B));
}

/* The most items that a chunk holds. */
static ptrdiff_t chunk_capacity(const fr_call *t)
{
    const fr_plan *plan = &t->plan;
    ptrdiff_t total = plan->first ? plan->first[plan->T] : plan->T * plan->B;
    ptrdiff_t least = sum_steps(plan) * plan->B;
    return fr_max(1, fr_max(plan->B, fr_min(fr_max(t->schedule.chunk, least), total)));
}

/* How many steps from s on (upwards or downwards) fit into one chunk. Downwards, a chunk ends where a sum does. */
static ptrdiff_t chunk_steps(const fr_call *t, ptrdiff_t s, int direction)
{
    const ptrdiff_t capacity = chunk_capacity(t), left = direction > 0 ? t->range.s1 - s : s + 1 - t->range.s0;
    const ptrdiff_t most = fr_min(left, t->plan.first ? capacity : capacity / fr_max(1, t->plan.B));
    ptrdiff_t steps = t->plan.first ? 0 : most;
    for (ptrdiff_t room = capacity; steps < most; steps++) {
        room -= step_items(&t->plan, s + direction * steps);
        if (room < 0)
            break;
    }
    s += direction * steps;
    if (direction > 0 || s < t->range.s0)
        return steps;
    const ptrdiff_t whole = sum_steps(&t->plan), over = (s + 1) % whole;
    return over ? steps - (whole - over) : steps;
}

/* ---- items --------------------------------------------------------------------------------------------- */

static inline REAL *at(const fr_seq *a, ptrdiff_t time, ptrdiff_t row)
{
    return a->p ? (REAL *)a->p + time * a->st + row * a->sb : NULL;
}

/* A step has a further stage, h = w_hr m. Its backward keeps after the dgates of an item also dh (P) and m (H). */
static inline int projects(const fr_call *t)
{
    return t->P < t->H;
}

/* What backward needs of it. */
static void fill_item_back(const member *m, item *e, ptrdiff_t slot, ptrdiff_t s, ptrdiff_t row, ptrdiff_t time, ptrdiff_t prev)
{
    const fr_gradients *d = &m->call->d;
    e->dy = at(&d->dy, time, row);
    e->dcs = at(&d->dcs, time, row);
    e->dx = at(&d->dx, time, row);
    e->dgates = m->dgates + slot * m->dgates_width;
    e->m = projects(m->call) ? e->dgates + 4 * m->H + m->P : NULL;
    e->dh = m->dh + row * m->P;
    e->dc = m->dc ? m->dc + row * m->H : NULL;
    e->next_dgates = m->next_dgates[row] ? m->next_dgates[row] : m->zero;
    e->dh_carry = m->cell->direct_dh || !m->next_dgates[row] ? e->dh : m->zero;
    e->cut = prev == FR_FROM_ZERO || (d->truncate && s > 0 && s % d->truncate == 0);
    m->next_dgates[row] = e->cut ? m->zero : e->dgates;
}

/* Row `row` at step s, which is at `time`; `slot`: its place in the chunk. */
static void fill_item(const member *m, item *e, ptrdiff_t slot, ptrdiff_t s, ptrdiff_t row, ptrdiff_t time, ptrdiff_t prev)
{
    const fr_call *t = m->call;
    const fr_saved *saved = &t->saved;
    const REAL *h0 = t->h0 ? (const REAL *)t->h0 + row * m->P : m->zero;
    const REAL *c0 = t->c0 ? (const REAL *)t->c0 + row * m->H : m->zero;
    /* where gates stand, and c after and before */
    const ptrdiff_t kept = saved->recompute ? s - saved->first_step : time;
    const ptrdiff_t after = saved->recompute ? kept + 1 : time, before = saved->recompute ? kept : prev;
    e->x = at(&t->x, time, row);
    e->h_prev = prev >= 0 ? at(&t->y, prev, row) : prev == FR_FROM_INITIAL ? h0 : m->zero;
    e->c_prev = prev >= 0 ? at(&saved->c, before, row) : prev == FR_FROM_INITIAL ? c0 : m->zero;
    e->y = at(&t->y, time, row);
    e->c = at(&saved->c, after, row);
    if (m->c) { /* inference */
        e->c = m->c + row * m->H;
        e->c_prev = prev == FR_FROM_ZERO ? m->zero : e->c;
    }
    e->gates = m->scratch_gates ? m->scratch_gates + row * 4 * m->H : at(&saved->gates, kept, row);
    e->m = m->scratch_m ? m->scratch_m + row * m->H : e->y;
    e->token = t->tokens ? t->tokens[time * t->plan.B + row] : 0;
    e->xw = m->xw ? m->xw + (t->tokens ? e->token : slot) * m->xw_width : NULL;
    if (m->dgates)
        fill_item_back(m, e, slot, s, row, time, prev);
    else if (saved->recompute)
        e->y = e->m;
}

/* Where the terms of each sum begin. */
static void list_sum_terms(member *m)
{
    for (ptrdiff_t i = 0; FR_BF16_PRODUCTS && i < m->sums; i++)
        m->sum_terms[i + 1] = m->sum_terms[i] + terms_of(m->sum_first[i + 1] - m->sum_first[i]);
}

/* List the items of `steps` steps from s on. Returns how many they are in the whole team. Where units are shared, every
 * member works on items that others filled in: a barrier has to follow. */
static ptrdiff_t gather(member *m, ptrdiff_t s, ptrdiff_t steps, int direction)
{
    const fr_plan *plan = &m->call->plan;
    const ptrdiff_t group = sum_steps(plan);
    ptrdiff_t slot = 0, listed = 0;
    m->sums = 0;
    for (ptrdiff_t q = 0; q < steps; q++, s += direction) {
        const ptrdiff_t n = step_items(plan, s);
        m->mine_first[q] = listed;
        if (q == 0 || (direction < 0 && (s + 1) % group == 0))
            m->sum_first[m->sums++] = slot;
        if (!plan->first) {
            ptrdiff_t time = plan->reverse ? plan->T - 1 - s : s;
            ptrdiff_t prev = s == 0 ? FR_FROM_INITIAL : plan->reverse ? time + 1 : time - 1;
            for (ptrdiff_t b = m->row0; b < m->row1; b++)
                fill_item(m, &m->items[slot + b], slot + b, s, b, time, prev);
            for (ptrdiff_t b = m->units ? 0 : m->row0; b < (m->units ? n : m->row1); b++)
                m->mine[listed++] = &m->items[slot + b];
        } else {
            for (ptrdiff_t j = 0; j < n; j++) {
                ptrdiff_t i = plan->first[s] + j;
                int own = owns(m, plan->row[i]);
                if (own)
                    fill_item(m, &m->items[slot + j], slot + j, s, plan->row[i], plan->time[i], plan->prev[i]);
                if (own || m->units)
                    m->mine[listed++] = &m->items[slot + j];
            }
        }
        slot += n;
    }
    m->mine_first[steps] = listed;
    m->sum_first[m->sums] = slot;
    list_sum_terms(m);
    return slot;
}

/* ---- workspace ----------------------------------------------------------------------------------------- */

/* Cut `bytes` off the caller's memory; the address is NULL while sizes are being counted. */
static void *take(char *base, ptrdiff_t *used, ptrdiff_t bytes)
{
    void *p = base ? base + *used : NULL;
    *used += fr_lines(bytes);
    return p;
}

/* Lay out what forward and backward both need; base == NULL counts bytes. */
static member member_of(const fr_call *t, const cell *c, int index, int members, fr_team *team, char *base, ptrdiff_t *used)
{
    const ptrdiff_t capacity = chunk_capacity(t);
    member m = {.call = t, .cell = c, .team = team, .index = index, .members = members, .units = t->schedule.split_units && members > 1};
    m.I = t->I, m.H = t->H, m.P = t->P, m.peephole = t->w.peephole;
    m.row0 = fr_share(t->plan.B, index, members), m.row1 = fr_share(t->plan.B, index + 1, members);
    m.items = take(base, used, capacity * (ptrdiff_t)sizeof(item));
    for (int i = 0; i < members; i++) {
        item **mine = take(base, used, capacity * (ptrdiff_t)sizeof(item *));
        ptrdiff_t *first = take(base, used, (capacity + 1) * (ptrdiff_t)sizeof(ptrdiff_t));
        ptrdiff_t *sums = take(base, used, (capacity + 1) * (ptrdiff_t)sizeof(ptrdiff_t));
        ptrdiff_t *terms = FR_BF16_PRODUCTS ? take(base, used, (capacity + 1) * (ptrdiff_t)sizeof(ptrdiff_t)) : sums;
        if (i == index) {
            m.mine = mine;
            m.mine_first = first;
            m.sum_first = sums;
            m.sum_terms = terms;
        }
    }
    if (FR_BF16_PRODUCTS && base)
        m.sum_terms[0] = 0;
    return m;
}

/* Memory for so many bytes of panels, widened, which all members share. */
static widened take_wide(const void *panels, ptrdiff_t bytes, char *base, ptrdiff_t *used)
{
    return (widened){panels, take(base, used, 2 * bytes)};
}

/* So many rows of K terms for each member; this one's. */
static term_rows take_rows(const member *m, ptrdiff_t rows, ptrdiff_t K, char *base, ptrdiff_t *used)
{
    term_rows mine = {NULL, distance_of_rows(K)};
    for (int i = 0; FR_BF16_PRODUCTS && i < m->members; i++) {
        term *first = take(base, used, rows * mine.apart * (ptrdiff_t)sizeof(term));
        mine.first = i == m->index ? first : mine.first;
    }
    return mine;
}

#endif
