/* backward.tmpl.h - a whole sequence backward: the chain of dh through time, and the products of each chunk behind it.
 *
 * Step t, as one fused tile: dh_t = dy_t + dgates_{t+1} W_hh (+ what the cell carries), then the pointwise part on the finished
 * sums, which writes dgates_t. A row that ends at t, or is cut behind it, finds zeros in place of dgates_{t+1}. With a projection
 * the first stage ends with dh_t, and the second is dm_t = dh_t W_hr with the pointwise part.
 */

/* The order in which dgates holds the gates of w_hh: columns r, z, n; a reset-after GRU has n first. */
static const int NAME(order_plain)[4] = {0, 1, 2, 3};
static const int NAME(order_n_first)[3] = {2, 0, 1};
static const int NAME(order_n_only)[1] = {2};

/* Where the sums of a row and a panel start: at what flows into dh_t from outside the recurrence. */
static inline void NAME(start_sums)(const call *m, const stage *g, const item *f, ptrdiff_t p, int nv, REAL *s)
{
    for (int v = 0; v < nv; v++) {
        ptrdiff_t u = (p * 4 + v) * W, lanes = fr_min(W, m->P - u);
        vec start = v_zero();
        if (!g->own && f->dy)
            start = start + v_load_n(f->dy + u, lanes);
        if (!g->own)
            start = start + v_load_n(f->more + u, lanes);
        v_store(s + v * W, start);
    }
}

static void NAME(backward_tile)(const call *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv)
{
    REAL s[MOST_ROWS * 4 * W];
    const REAL *a[MOST_ROWS];
    a[0] = NULL; /* compilers do not see that there are rows */
    int flows = g->own;
    for (int r = 0; r < n; r++) {
        a[r] = (g->own ? e[r]->dg : e[r]->next) + g->a_at;
        flows |= e[r]->next != m->zero;
    }
    for (int i = 0; i < n * np; i++)
        NAME(start_sums)(m, g, e[n > 1 ? i : 0], p + (np > 1 ? i : 0), nv, s + i * 4 * W);
    if (flows)
        NAME(tile)(n, np, nv, a, g->wh + p * 4 * W * g->K, 4 * W * g->K, g->K, s);
    for (int r = 0; r < n && n > 1 && flows && !g->own; r++)
        if (e[r]->next == m->zero) /* as if it were alone: 0 times a weight is not 0 where that is infinite */
            NAME(start_sums)(m, g, e[r], p, nv, s + r * 4 * W);
    g->point(m, s, e, n, p, np);
}

/* The pointwise part behind the first step: dh is the gradient of the initial state. */
static NOINLINE void NAME(initial_state_back)(const call *m, REAL *s, item *const *e, int n, ptrdiff_t p, int np)
{
    for (int r = 0; r < n; r++, s += 4 * W)
        for (ptrdiff_t b = p * 4; b < fr_min((p + np) * 4, fr_ceil_div(m->P, W)); b++) {
#define FR_POINT(u, lanes) v_store_n(e[r]->dh + (u), v_load(s + (b - p * 4) * W), lanes)
            FR_LANES_OF(m->P, b, FR_POINT);
#undef FR_POINT
        }
}

static int NAME(backward_stages)(const fr_task *t, stage *g, char *base, ptrdiff_t *used)
{
    const ptrdiff_t H = t->H, blocks = fr_ceil_div(t->P, W), row = blocks * W * (ptrdiff_t)sizeof(REAL);
    const int gates = NAME(gates_of)(t->cell), before = t->cell == FR_GRU_BEFORE;
    g[0] = (stage){.panels = fr_ceil_div(blocks, 4), .blocks = blocks, .nv = 4, .tile = NAME(backward_tile)};
    g[0].K = (before ? 2 : gates) * H;
    g[0].terms = 4 * g[0].K;
    g[1] = g[0];
    g[0].wh = NAME(take)(base, used, g[0].K * row);
    g[0].wx = NAME(take)(base, used, gates * H * fr_ceil_div(t->I, W) * W * (ptrdiff_t)sizeof(REAL)); /* for dx */
    switch (t->cell) {
    case FR_RNN_TANH:
        g[0].point = NAME(rnn_tanh_back);
        break;
    case FR_RNN_RELU:
        g[0].point = NAME(rnn_relu_back);
        break;
    case FR_LSTM:
        g[0].point = NAME(lstm_back);
        break;
    case FR_LSTM_PEEPHOLE:
        g[0].point = NAME(lstm_peephole_back);
        break;
    case FR_GRU_AFTER:
        g[0].point = NAME(gru_back);
        break;
    default:
        g[0].point = NAME(gru_before_back_zn);
        g[1].point = NAME(gru_before_back_r);
        g[1].K = H;
        g[1].terms = 4 * H;
        g[1].a_at = 2 * H;
        g[1].own = 1;
        g[1].wh = NAME(take)(base, used, H * row);
    }
    if (!NAME(projects)(t))
        return before ? 2 : 1;
    g[1] = (stage){.blocks = fr_ceil_div(H, W), .nv = 4, .K = t->P, .a_at = 4 * H, .own = 1, .tile = NAME(backward_tile)};
    g[1].panels = fr_ceil_div(g[1].blocks, 4);
    g[1].terms = 4 * t->P;
    g[1].wh = NAME(take)(base, used, t->P * g[1].blocks * W * (ptrdiff_t)sizeof(REAL));
    g[1].point = g[0].point;
    g[0].point = NAME(project_back);
    return 2;
}

static void NAME(pack_backward)(const call *m, const stage *g)
{
    const fr_task *t = m->t;
    const int gates = NAME(gates_of)(t->cell), before = t->cell == FR_GRU_BEFORE;
    const int *order = t->cell == FR_GRU_AFTER ? NAME(order_n_first) : NAME(order_plain);
    ptrdiff_t end = fr_share(g->panels, m->member + 1, m->members);
    for (ptrdiff_t p = fr_share(g->panels, m->member, m->members); p < end; p++) {
        NAME(pack_columns)((REAL *)g[0].wh, t->w_hh, m->H, m->P, before ? 2 : gates, order, p);
        if (before)
            NAME(pack_columns)((REAL *)g[1].wh, t->w_hh, m->H, m->H, 1, NAME(order_n_only), p);
    }
    if (NAME(projects)(t)) {
        end = fr_share(g[1].panels, m->member + 1, m->members);
        for (ptrdiff_t p = fr_share(g[1].panels, m->member, m->members); p < end; p++)
            NAME(pack_columns)((REAL *)g[1].wh, t->w_hr, m->P, m->H, 1, NAME(order_plain), p);
    }
    if (!t->dx.p)
        return;
    ptrdiff_t panels = fr_ceil_div(m->I, 4 * W);
    end = fr_share(panels, m->member + 1, m->members);
    for (ptrdiff_t p = fr_share(panels, m->member, m->members); p < end; p++)
        NAME(pack_columns)((REAL *)g[0].wx, t->w_ih, m->H, m->I, gates, NAME(order_plain), p);
}

typedef struct {
    products c;
    REAL *edge; /* (B, dg_width): the dgates of each row's next step, while the chunk that made them is overwritten */
} NAME(backward_memory);

static call NAME(backward_call)(const fr_task *t, const stage *g, int member, int members, fr_team *team, char *base,
                                ptrdiff_t *used, NAME(backward_memory) *memory)
{
    const ptrdiff_t real = sizeof(REAL);
    ptrdiff_t width = NAME(dgates_of)(t->cell) * t->H + (NAME(projects)(t) ? t->P + t->H : 0);
    if (width * real % 1024 == 0) /* rows 4 KiB apart would share their place in the cache */
        width += 64 / real;
    /* What lasts from one piece of a backward to the next comes first: teams of other sizes lay out the rest elsewhere. */
    const REAL *zero = NAME(take)(base, used, width * real);
    const REAL **next = NAME(take)(base, used, t->plan.B * (ptrdiff_t)sizeof(REAL *));
    memory->edge = NAME(take)(base, used, t->plan.B * width * real);
    call m = NAME(call_of)(t, member, members, team, base, used);
    m.dg_width = width;
    m.zero = zero;
    m.next = next;
    m.dh = t->dh;
    m.dc = t->dc;
    m.dg = t->dgates;
    if (!t->dgates)
        m.dg = NAME(take)(base, used, NAME(chunk_capacity)(t) * width * real);
    memory->c = NAME(lay_out_products)(t, width, g[0].wx, base, used);
    return m;
}

static void NAME(backward_sizes)(const fr_task *t, int threads, fr_sizes *sizes)
{
    stage g[2];
    NAME(backward_memory) memory;
    *sizes = (fr_sizes){0};
    NAME(backward_stages)(t, g, NULL, &sizes->packed_bytes);
    call m = NAME(backward_call)(t, g, 0, threads, NULL, NULL, &sizes->work_bytes, &memory);
    sizes->dgates_width = m.dg_width;
    sizes->dgates_x = t->cell == FR_GRU_AFTER ? t->H : 0;
}

/* Rows that this member looks after. */
static int NAME(looks_after)(const call *m, ptrdiff_t b)
{
    if (m->t->plan.first)
        return NAME(owns)(m, b);
    return b >= m->row0 && b < m->row1;
}

/* The chunk's dgates are about to be overwritten: keep those that flow on. */
static void NAME(keep_edges)(const call *m, const NAME(backward_memory) *memory)
{
    for (ptrdiff_t b = 0; b < m->t->plan.B; b++) {
        REAL *mine = memory->edge + b * m->dg_width;
        if (!NAME(looks_after)(m, b))
            continue;
        if (m->next[b] && m->next[b] != m->zero && m->next[b] != mine) {
            memcpy(mine, m->next[b], NAME(dgates_of)(m->t->cell) * m->H * sizeof(REAL));
            m->next[b] = mine;
        }
    }
}

/* dh of the initial state, as one more step without a pointwise part. */
static void NAME(finish)(call *m, const stage *g)
{
    const ptrdiff_t B = m->t->plan.B;
    stage last = g[0];
    last.point = NAME(initial_state_back);
    const int shared = m->t->split_units;
    for (ptrdiff_t b = 0; b < B; b++) {
        item *e = &m->items[b];
        if (!NAME(looks_after)(m, b))
            continue;
        e->dy = NULL;
        e->dh = (REAL *)m->t->dh + b * m->P;
        e->next = m->next[b] ? m->next[b] : m->zero;
        e->more = NAME(is_gru)(m->t->cell) || !m->next[b] ? e->dh : m->zero;
    }
    if (!NAME(meet)(m))
        return;
    ptrdiff_t n = 0;
    for (ptrdiff_t b = 0; b < B; b++)
        if (shared || NAME(looks_after)(m, b))
            m->mine[n++] = &m->items[b];
    ptrdiff_t p0 = shared ? fr_share(last.panels, m->member, m->members) : 0;
    ptrdiff_t p1 = shared ? fr_share(last.panels, m->member + 1, m->members) : last.panels;
    if (n > 0)
        NAME(run_stage)(m, &last, m->mine, n, p0, p1, 1, 0);
}

/* All steps downwards, as one member of a team. The meeting at the start of a chunk is also that after the products of the one before:
 * what they read is not overwritten before it. */
static void NAME(backward_steps)(call *m, const stage *g, int stages, const NAME(backward_memory) *memory)
{
    const fr_task *t = m->t;
    for (ptrdiff_t s = t->s1 - 1, steps; t->plan.B > 0 && s >= t->s0; s -= steps) {
        NAME(keep_edges)(m, memory);
        if (!NAME(meet)(m))
            return;
        steps = NAME(chunk_steps)(t, s, -1);
        const ptrdiff_t n = NAME(gather)(m, s, steps, -1);
        if (t->split_units && !NAME(meet)(m)) /* after it, members work on items that others have filled in */
            return;
        for (ptrdiff_t q = 0; q < steps; q++)
            if (!NAME(run_step)(m, g, stages, 3, m->mine + m->mine_first[q], m->mine_first[q + 1] - m->mine_first[q], q & 1))
                return;
        if (!NAME(meet)(m))
            return;
        if (t->dgates)
            NAME(sum_biases)(m);
        else if (!NAME(run_products)(m, &memory->c, n))
            return;
    }
    if (t->last && t->plan.B > 0)
        NAME(finish)(m, g);
}

static void NAME(backward)(const void *task, int member, fr_team *team)
{
    const fr_task *t = task;
    fr_fpstate state = fr_fp_enter();
    stage g[2];
    NAME(backward_memory) memory;
    ptrdiff_t packed = 0, work = 0;
    const int stages = NAME(backward_stages)(t, g, t->packed, &packed);
    call m = NAME(backward_call)(t, g, member, team->n, team, t->work, &work, &memory);
    if (t->first) {
        if (member == 0) {
            memset((REAL *)m.zero, 0, m.dg_width * sizeof(REAL));
            memset((void *)m.next, 0, t->plan.B * sizeof(REAL *));
        }
        NAME(pack_backward)(&m, g);
    }
    if (NAME(meet)(&m))
        NAME(backward_steps)(&m, g, stages, &memory);
    fr_report_work(team, member, m.work);
    fr_fp_leave(state);
}
