/* call.tmpl.h - one call as one member of the team sees it: the task with types, and the items of a chunk of steps.
 *
 * An item is one row at one step. Kernels see items as a list of pointers, so dense batches, ragged ones, resets, reversed
 * sequences and batch-first arrays are all the same to them.
 */

typedef struct {
    const REAL *x, *h, *c; /* x_t, h_{t-1}, c_{t-1} */
    REAL *y, *cn, *gates;  /* h_t, c_t, the gates kept (or NULL) */
    REAL *m;               /* an LSTM's o tanh(c_t): y, or what is projected to it */
    const REAL *pre;       /* the input product, or NULL */
    const REAL *dy, *dcs;  /* backward: gradients of y_t and of c_t that come from outside, or NULL */
    const REAL *next;      /* dgates of the row's next step (zeros past its end) */
    const REAL *more;      /* what else flows into dh_t: the final state's gradient, a GRU's direct path; or zeros */
    REAL *dg, *dx;         /* dgates of this item, gradient of x_t */
    REAL *dh, *dc;         /* what is carried from step to step of this row */
    int cut;               /* nothing flows to the step before */
} NAME(item);
#undef item
#define item NAME(item)

typedef struct {
    const fr_task *t;
    int member, members;
    fr_team *team, alone;   /* alone: the team of one in which member 0 goes on */
    long long work;         /* multiply-adds that this member has done */
    REAL *c, *dh, *dc;      /* (B, H), (B, P), (B, H): what is updated in place from step to step; c: in inference, else NULL */
    ptrdiff_t I, H, P, blocks; /* blocks: vectors of hidden units */
    ptrdiff_t row0, row1;   /* dense plans: the rows that this member looks after */
    fr_lot *lots;           /* shared by the team */
    const REAL *zero;       /* a row of zeros, as long as any row */
    item *items;            /* the items of the chunk, in order; shared by the team */
    item **mine;            /* those that this member works on */
    ptrdiff_t *mine_first;  /* (steps of the chunk + 1) offsets into mine */
    ptrdiff_t *sum_first;   /* (sums + 1) the items at which a new sum of the weights' gradients begins */
    ptrdiff_t sums;
    const REAL **next;      /* (B) backward: dgates of the step last seen, NULL before any */
    REAL *scratch_gates;    /* (B, 4*H) for a GRU reset-before in inference */
    REAL *scratch_m;        /* (B, H) for a projection, and for h_t that is there already */
    REAL *pre;              /* (items of the chunk, pre_width), or NULL */
    REAL *dg;               /* (items of the chunk, dg_width) */
    ptrdiff_t pre_width, dg_width;
} NAME(call);
#undef call
#define call NAME(call)

/* What differs between the cells outside their arithmetic. */
static inline int NAME(gates_of)(int cell)
{
    return cell <= FR_RNN_RELU ? 1 : cell <= FR_LSTM_PEEPHOLE ? 4 : 3;
}
/* Numbers of dgates per hidden unit: a reset-after GRU has two for n, that of W_hn h (first) and that of W_in x (last). */
static inline int NAME(dgates_of)(int cell)
{
    return cell == FR_GRU_AFTER ? 4 : NAME(gates_of)(cell);
}
static inline int NAME(is_gru)(int cell)
{
    return cell >= FR_GRU_AFTER;
}
/* A step has a second stage, h = w_hr m. Its backward keeps behind the dgates of an item also dh (P) and m (H). */
static inline int NAME(projects)(const fr_task *t)
{
    return t->P < t->H;
}

static inline ptrdiff_t NAME(step_items)(const fr_plan *plan, ptrdiff_t s)
{
    return plan->first ? plan->first[s + 1] - plan->first[s] : plan->B;
}

static inline ptrdiff_t NAME(items_between)(const fr_plan *plan, ptrdiff_t s0, ptrdiff_t s)
{
    return plan->first ? plan->first[s] - plan->first[s0] : (s - s0) * plan->B;
}

/* The weights' gradients are sums over steps s*n .. s*n+n-1 for one s after the other, n such that they have sum_terms items or a
 * few more: a rule that knows nothing of chunks, so chunks do not show in the bits. */
static inline ptrdiff_t NAME(sum_steps)(const fr_plan *plan)
{
    return fr_ceil_div(NAME(sum_terms), fr_max(1, plan->B));
}

/* The most items that a chunk holds. */
static ptrdiff_t NAME(chunk_capacity)(const fr_task *t)
{
    const fr_plan *plan = &t->plan;
    ptrdiff_t total = plan->first ? plan->first[plan->T] : plan->T * plan->B;
    ptrdiff_t least = NAME(sum_steps)(plan) * plan->B;
    return fr_max(1, fr_max(plan->B, fr_min(fr_max(t->chunk, least), total)));
}

/* How many steps from s on (upwards or downwards) fit into one chunk. Downwards, a chunk ends where a sum does. */
static ptrdiff_t NAME(chunk_steps)(const fr_task *t, ptrdiff_t s, int direction)
{
    const ptrdiff_t capacity = NAME(chunk_capacity)(t), left = direction > 0 ? t->s1 - s : s + 1 - t->s0;
    const ptrdiff_t most = fr_min(left, t->plan.first ? capacity : capacity / fr_max(1, t->plan.B));
    ptrdiff_t steps = t->plan.first ? 0 : most;
    for (ptrdiff_t room = capacity; steps < most; steps++) {
        room -= NAME(step_items)(&t->plan, s + direction * steps);
        if (room < 0)
            break;
    }
    s += direction * steps;
    if (direction > 0 || s < t->s0)
        return steps;
    const ptrdiff_t whole = NAME(sum_steps)(&t->plan), over = (s + 1) % whole;
    return over ? steps - (whole - over) : steps;
}

static inline REAL *NAME(at)(const fr_seq *a, ptrdiff_t time, ptrdiff_t row)
{
    return a->p ? (REAL *)a->p + time * a->st + row * a->sb : NULL;
}

/* Does this member fill in the items of this row, and, where rows are shared out, work on them? */
static inline int NAME(owns)(const call *m, ptrdiff_t row)
{
    return m->t->plan.rank[row] % m->members == m->member;
}

/* Wait for the others. 0: leave, the team has ended. Member 0 then goes on alone, with all rows and all units. */
static int NAME(meet)(call *m)
{
    if (fr_meet(m->team, m->member))
        return 1;
    if (m->member != 0)
        return 0;
    m->alone = (fr_team){.n = 1};
    m->team = &m->alone;
    m->members = 1;
    m->row0 = 0;
    m->row1 = m->t->plan.B;
    return 1;
}

/* Row `row` at step s, which is at `time`; `slot`: its place in the chunk. */
static void NAME(fill_item)(const call *m, item *e, ptrdiff_t slot, ptrdiff_t s, ptrdiff_t row, ptrdiff_t time, ptrdiff_t prev)
{
    const fr_task *t = m->t;
    const REAL *h0 = t->h0 ? (const REAL *)t->h0 + row * m->P : m->zero;
    const REAL *c0 = t->c0 ? (const REAL *)t->c0 + row * m->H : m->zero;
    e->x = NAME(at)(&t->x, time, row);
    const ptrdiff_t kept = t->segment ? s - t->segment_from : time; /* where gates stand, and c behind and before */
    const ptrdiff_t behind = t->segment ? kept + 1 : time, before = t->segment ? kept : prev;
    e->h = prev >= 0 ? NAME(at)(&t->y, prev, row) : prev == FR_FROM_INITIAL ? h0 : m->zero;
    e->c = prev >= 0 ? NAME(at)(&t->c, before, row) : prev == FR_FROM_INITIAL ? c0 : m->zero;
    e->y = NAME(at)(&t->y, time, row);
    e->cn = NAME(at)(&t->c, behind, row);
    if (m->c) { /* inference */
        e->cn = m->c + row * m->H;
        e->c = prev == FR_FROM_ZERO ? m->zero : e->cn;
    }
    e->gates = NAME(at)(&t->gates, kept, row);
    if (m->scratch_gates)
        e->gates = m->scratch_gates + row * 4 * m->H;
    e->m = m->scratch_m ? m->scratch_m + row * m->H : e->y;
    e->pre = m->pre ? m->pre + slot * m->pre_width : NULL;
    if (!m->dg) {
        if (t->segment)
            e->y = e->m;
        return;
    }
    e->dy = NAME(at)(&t->dy, time, row);
    e->dcs = NAME(at)(&t->dcs, time, row);
    e->dx = NAME(at)(&t->dx, time, row);
    e->dg = m->dg + slot * m->dg_width;
    e->m = NAME(projects)(t) ? e->dg + 4 * m->H + m->P : NULL;
    e->dh = m->dh + row * m->P;
    e->dc = m->dc ? m->dc + row * m->H : NULL;
    e->next = m->next[row] ? m->next[row] : m->zero;
    e->more = NAME(is_gru)(t->cell) || !m->next[row] ? e->dh : m->zero;
    e->cut = prev == FR_FROM_ZERO || (t->truncate && s > 0 && s % t->truncate == 0);
    m->next[row] = e->cut ? m->zero : e->dg;
}

/* List the items of `steps` steps from s on. Returns how many they are in the whole team. Where units are shared, every
 * member works on items that others filled in: a barrier has to follow. */
static ptrdiff_t NAME(gather)(call *m, ptrdiff_t s, ptrdiff_t steps, int direction)
{
    const fr_plan *plan = &m->t->plan;
    const int all = m->t->split_units;
    const ptrdiff_t sum_steps = NAME(sum_steps)(plan);
    ptrdiff_t slot = 0, listed = 0;
    m->sums = 0;
    for (ptrdiff_t q = 0; q < steps; q++, s += direction) {
        ptrdiff_t n = NAME(step_items)(plan, s);
        m->mine_first[q] = listed;
        if (q == 0 || (direction < 0 && (s + 1) % sum_steps == 0))
            m->sum_first[m->sums++] = slot;
        if (!plan->first) {
            ptrdiff_t time = plan->reverse ? plan->T - 1 - s : s;
            ptrdiff_t prev = s == 0 ? FR_FROM_INITIAL : plan->reverse ? time + 1 : time - 1;
            for (ptrdiff_t b = m->row0; b < m->row1; b++)
                NAME(fill_item)(m, &m->items[slot + b], slot + b, s, b, time, prev);
            for (ptrdiff_t b = all ? 0 : m->row0; b < (all ? n : m->row1); b++)
                m->mine[listed++] = &m->items[slot + b];
        } else {
            for (ptrdiff_t j = 0; j < n; j++) {
                ptrdiff_t i = plan->first[s] + j;
                int own = NAME(owns)(m, plan->row[i]);
                if (own)
                    NAME(fill_item)(m, &m->items[slot + j], slot + j, s, plan->row[i], plan->time[i], plan->prev[i]);
                if (own || all)
                    m->mine[listed++] = &m->items[slot + j];
            }
        }
        slot += n;
    }
    m->mine_first[steps] = listed;
    m->sum_first[m->sums] = slot;
    return slot;
}

/* Cut `bytes` off the caller's memory; the address is NULL while sizes are being counted. */
static void *NAME(take)(char *base, ptrdiff_t *used, ptrdiff_t bytes)
{
    void *p = base ? base + *used : NULL;
    *used += fr_lines(bytes);
    return p;
}
