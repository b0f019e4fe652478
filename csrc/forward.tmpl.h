/* forward.tmpl.h - a whole sequence forward, for inference and for training alike; and what a training forward has not kept, made
 * again: where every h is known, the steps of a chunk do not wait for each other, and one product takes all of them.
 *
 * Every sum starts at the bias (plus zero, so that it never starts at -0); x_t W_ih is added, then h_{t-1} W_hh. Where the input part
 * is made first for a chunk of steps, the sum pauses in `pre` and goes on from the same number.
 */

/* Which gates of w_ih and w_hh stand in the panels of a stage, and which of b_ih and b_hh each vector of a tile starts from. */
typedef struct {
    int nx, nh, h_at, tile;     /* vectors of an input panel and of a recurrent one; tile: vectors of both together */
    int x[4], h[4];
    int bi[4], bh[4];           /* -1: none */
} NAME(gate_order);

static const NAME(gate_order) NAME(order_rnn) = {1, 1, 0, 1, {0}, {0}, {0}, {0}};
static const NAME(gate_order) NAME(order_lstm) = {4, 4, 0, 4, {0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}};
static const NAME(gate_order) NAME(order_gru) = {3, 3, 1, 4, {2, 0, 1}, {0, 1, 2}, {2, 0, 1, -1}, {-1, 0, 1, 2}};
static const NAME(gate_order) NAME(order_gru_rz) = {2, 2, 0, 2, {0, 1}, {0, 1}, {0, 1}, {0, 1}};
static const NAME(gate_order) NAME(order_gru_n) = {1, 1, 0, 1, {2}, {2}, {2}, {2}};

/* The stages of a cell's forward step. */
static int NAME(forward_orders)(int cell, const NAME(gate_order) **order)
{
    switch (cell) {
    case FR_LSTM:
    case FR_LSTM_PEEPHOLE:
        order[0] = &NAME(order_lstm);
        return 1;
    case FR_GRU_AFTER:
        order[0] = &NAME(order_gru);
        return 1;
    case FR_GRU_BEFORE:
        order[0] = &NAME(order_gru_rz);
        order[1] = &NAME(order_gru_n);
        return 2;
    default:
        order[0] = &NAME(order_rnn);
        return 1;
    }
}

static NAME(point) *NAME(forward_point)(int cell, int i)
{
    switch (cell) {
    case FR_RNN_TANH:
        return NAME(rnn_tanh_point);
    case FR_RNN_RELU:
        return NAME(rnn_relu_point);
    case FR_LSTM:
        return NAME(lstm_point);
    case FR_LSTM_PEEPHOLE:
        return NAME(lstm_peephole_point);
    case FR_GRU_AFTER:
        return NAME(gru_point);
    default:
        return i ? NAME(gru_before_n) : NAME(gru_before_rz);
    }
}

static ptrdiff_t NAME(panels_of)(const NAME(gate_order) *o, ptrdiff_t blocks)
{
    return o->nx == 1 ? fr_ceil_div(blocks, 4) : blocks;
}

static void NAME(forward_tile)(const call *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv)
{
    REAL s[MOST_ROWS * 4 * W];
    const REAL *a[MOST_ROWS];
    a[0] = NULL; /* compilers do not see that there are rows */
    const int count = n > np ? n : np;
    const int parked = e[0]->pre != NULL;
    for (int i = 0; i < count; i++) {
        const REAL *from = parked ? e[n > 1 ? i : 0]->pre + g->pre_at * 4 * W : g->bias;
        from += (p + (np > 1 ? i : 0)) * 4 * W;
        for (int v = 0; v < 4; v++)
            v_store(s + (i * 4 + v) * W, v_load(from + v * W));
    }
    if (!parked) {
        for (int i = 0; i < n; i++)
            a[i] = e[i]->x;
        NAME(tile)(n, np, nv, a, g->wx + p * m->I * g->nv * W, m->I * g->nv * W, m->I, s);
    }
    for (int i = 0; i < n; i++)
        a[i] = g->reset_h ? e[i]->gates + 3 * m->H : e[i]->h;
    NAME(tile)(n, np, nv, a, g->wh + p * m->P * g->nv * W, m->P * g->nv * W, m->P, s + g->h_at * W);
    g->point(m, s, e, n, p, np);
}

/* A tile of a projection: its only operand is m. */
static void NAME(project_tile)(const call *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv)
{
    REAL s[MOST_ROWS * 4 * W];
    const REAL *a[MOST_ROWS];
    a[0] = NULL; /* compilers do not see that there are rows */
    memset(s, 0, (n > np ? n : np) * 4 * W * sizeof(REAL));
    for (int i = 0; i < n; i++)
        a[i] = e[i]->m;
    NAME(tile)(n, np, nv, a, g->wh + p * m->H * g->nv * W, m->H * g->nv * W, m->H, s);
    g->point(m, s, e, n, p, np);
}

/* The input part of a tile alone, parked: the scratch of the tile is `pre` itself. */
static void NAME(input_tile)(const call *m, const stage *g, item *const *e, int n, ptrdiff_t p, int np, int nv)
{
    REAL s[MOST_ROWS * 4 * W];
    const REAL *a[MOST_ROWS];
    a[0] = NULL; /* compilers do not see that there are rows */
    const int count = n > np ? n : np;
    for (int i = 0; i < count; i++)
        for (int v = 0; v < 4; v++)
            v_store(s + (i * 4 + v) * W, v_load(g->bias + ((p + (np > 1 ? i : 0)) * 4 + v) * W));
    for (int i = 0; i < n; i++)
        a[i] = e[i]->x;
    NAME(tile)(n, np, nv, a, g->wx + p * m->I * g->nv * W, m->I * g->nv * W, m->I, s);
    for (int i = 0; i < count; i++)
        memcpy((REAL *)e[n > 1 ? i : 0]->pre + (g->pre_at + p + (np > 1 ? i : 0)) * 4 * W, s + i * 4 * W, 4 * W * sizeof(REAL));
}

/* Set up the stages over the memory for packed weights; base == NULL counts bytes. */
static int NAME(forward_stages)(const fr_task *t, stage *g, char *base, ptrdiff_t *used)
{
    const NAME(gate_order) *order[2];
    const int stages = NAME(forward_orders)(t->cell, order);
    const ptrdiff_t blocks = fr_ceil_div(t->H, W);
    ptrdiff_t pre_at = 0;
    for (int i = 0; i < stages; i++) {
        const NAME(gate_order) *o = order[i];
        const int nv = o->nx == 1 ? 4 : o->nx;
        ptrdiff_t panels = NAME(panels_of)(o, blocks);
        g[i] = (stage){.panels = panels, .blocks = blocks, .nv = nv, .h_at = o->h_at, .reset_h = i, .pre_at = pre_at};
        g[i].bias = NAME(take)(base, used, panels * 4 * W * (ptrdiff_t)sizeof(REAL));
        g[i].wx = NAME(take)(base, used, panels * nv * W * t->I * (ptrdiff_t)sizeof(REAL));
        g[i].wh = NAME(take)(base, used, panels * nv * W * t->P * (ptrdiff_t)sizeof(REAL));
        g[i].point = NAME(forward_point)(t->cell, i);
        g[i].tile = NAME(forward_tile);
        g[i].terms = nv * ((t->input_first ? 0 : t->I) + t->P);
        pre_at += panels;
    }
    if (!NAME(projects)(t))
        return stages;
    stage *last = &g[stages];
    *last = (stage){.blocks = fr_ceil_div(t->P, W), .nv = 4, .point = NAME(project_point), .tile = NAME(project_tile)};
    last->panels = fr_ceil_div(last->blocks, 4);
    last->terms = 4 * t->H;
    last->wh = NAME(take)(base, used, last->panels * 4 * W * t->H * (ptrdiff_t)sizeof(REAL));
    return stages + 1;
}

/* w (G*H, K) into panels [p][k][nv] of vectors; gate[j] is the row block of vector j (one block of units), or, for a single gate,
 * vector j is block 4p + j of it. */
static void NAME(pack_gates)(REAL *to, const REAL *w, ptrdiff_t H, ptrdiff_t K, ptrdiff_t p, int n, const int *gate)
{
    const ptrdiff_t blocks = fr_ceil_div(H, W);
    const int nv = n == 1 ? NAME(panel_vectors)(blocks, p) : n;
    to += p * (n == 1 ? 4 : n) * W * K;
    for (int j = 0; j < nv; j++) {
        ptrdiff_t b = n == 1 ? 4 * p + j : p, lanes = fr_min(W, H - b * W);
        const REAL *from = w + (gate[n == 1 ? 0 : j] * H + b * W) * K;
        NAME(transpose)(to + j * W, nv * W, from, K, lanes, K);
        NAME(clear_lanes)(to + j * W, nv * W, K, lanes);
    }
}

/* The start of every sum of panel p: b_ih + b_hh as the gate has them. */
static void NAME(pack_bias)(REAL *to, const fr_task *t, ptrdiff_t p, const NAME(gate_order) *o)
{
    const REAL *bi = t->b_ih, *bh = t->b_hh;
    for (int j = 0; j < 4; j++) {
        int v = o->tile == 1 ? 0 : j;
        ptrdiff_t b = o->tile == 1 ? 4 * p + j : p;
        for (ptrdiff_t l = 0; l < W; l++) {
            ptrdiff_t u = b * W + l;
            REAL sum = 0;
            if (u < t->H && v < o->tile) {
                if (bi && o->bi[v] >= 0)
                    sum += bi[o->bi[v] * t->H + u];
                if (bh && o->bh[v] >= 0)
                    sum += bh[o->bh[v] * t->H + u];
            }
            to[(p * 4 + j) * W + l] = sum;
        }
    }
}

static void NAME(pack_forward)(const call *m, const stage *g)
{
    const NAME(gate_order) *order[2];
    const int stages = NAME(forward_orders)(m->t->cell, order);
    for (int i = 0; i < stages; i++) {
        const NAME(gate_order) *o = order[i];
        ptrdiff_t end = fr_share(g[i].panels, m->member + 1, m->members);
        for (ptrdiff_t p = fr_share(g[i].panels, m->member, m->members); p < end; p++) {
            NAME(pack_bias)((REAL *)g[i].bias, m->t, p, o);
            if (!m->t->pre)
                NAME(pack_gates)((REAL *)g[i].wx, m->t->w_ih, m->H, m->I, p, o->nx, o->x);
            NAME(pack_gates)((REAL *)g[i].wh, m->t->w_hh, m->H, m->P, p, o->nh, o->h);
        }
    }
    if (!NAME(projects)(m->t))
        return;
    const stage *last = &g[stages];
    ptrdiff_t end = fr_share(last->panels, m->member + 1, m->members);
    for (ptrdiff_t p = fr_share(last->panels, m->member, m->members); p < end; p++)
        NAME(pack_gates)((REAL *)last->wh, m->t->w_hr, m->P, m->H, p, 1, NAME(order_rnn).h);
}

/* A bit for each stage of a single gate. */
static int NAME(single_stages)(const fr_task *t)
{
    return t->cell <= FR_RNN_RELU ? 1 : t->cell == FR_GRU_BEFORE || NAME(projects)(t) ? 2 : 0;
}

static ptrdiff_t NAME(pre_width)(const fr_task *t)
{
    const NAME(gate_order) *order[2];
    ptrdiff_t panels = 0;
    for (int i = 0, n = NAME(forward_orders)(t->cell, order); i < n; i++)
        panels += NAME(panels_of)(order[i], fr_ceil_div(t->H, W));
    return panels * 4 * W;
}

/* Lay out what forward and backward both need; base == NULL counts bytes. */
static call NAME(call_of)(const fr_task *t, int member, int members, fr_team *team, char *base, ptrdiff_t *used)
{
    const ptrdiff_t capacity = NAME(chunk_capacity)(t);
    call m = {.t = t, .member = member, .members = members, .team = team, .blocks = fr_ceil_div(t->H, W)};
    m.I = t->I, m.H = t->H, m.P = t->P;
    m.row0 = fr_share(t->plan.B, member, members), m.row1 = fr_share(t->plan.B, member + 1, members);
    m.items = NAME(take)(base, used, capacity * (ptrdiff_t)sizeof(item));
    for (int i = 0; i < members; i++) {
        item **mine = NAME(take)(base, used, capacity * (ptrdiff_t)sizeof(item *));
        ptrdiff_t *first = NAME(take)(base, used, (capacity + 1) * (ptrdiff_t)sizeof(ptrdiff_t));
        ptrdiff_t *sums = NAME(take)(base, used, (capacity + 1) * (ptrdiff_t)sizeof(ptrdiff_t));
        if (i == member) {
            m.mine = mine;
            m.mine_first = first;
            m.sum_first = sums;
        }
    }
    return m;
}

static call NAME(forward_call)(const fr_task *t, int member, int members, fr_team *team, char *base, ptrdiff_t *used)
{
    const ptrdiff_t real = sizeof(REAL);
    call m = NAME(call_of)(t, member, members, team, base, used);
    m.pre_width = NAME(pre_width)(t);
    m.zero = NAME(take)(base, used, t->H * real);
    if (members > 1 && t->lots && !t->split_units && !t->plan.first)
        m.lots = NAME(take)(base, used, t->lots * (ptrdiff_t)sizeof(fr_lot));
    if (t->c.p && !t->gates.p)
        m.c = t->c.p;
    if (t->cell == FR_GRU_BEFORE && !t->gates.p)
        m.scratch_gates = NAME(take)(base, used, t->plan.B * 4 * t->H * real);
    if (NAME(projects)(t) || t->segment)
        m.scratch_m = NAME(take)(base, used, t->plan.B * t->H * real);
    if (t->input_first && !t->pre)
        m.pre = NAME(take)(base, used, NAME(chunk_capacity)(t) * m.pre_width * real);
    return m;
}

static void NAME(forward_sizes)(const fr_task *t, int threads, fr_sizes *sizes)
{
    stage g[2];
    *sizes = (fr_sizes){0};
    NAME(forward_stages)(t, g, NULL, &sizes->packed_bytes);
    NAME(forward_call)(t, 0, threads, NULL, NULL, &sizes->work_bytes);
    sizes->pre_width = NAME(pre_width)(t);
    sizes->sum_steps = NAME(sum_steps)(&t->plan);
}

/* The input products of a chunk: all of this member's items, or all items by this member's panels. */
static void NAME(make_inputs)(call *m, const stage *g, int stages, ptrdiff_t n)
{
    for (int i = 0; i < stages && n > 0 && g[i].wx; i++) {
        stage input = g[i];
        input.tile = NAME(input_tile);
        input.terms = input.nv * m->I;
        int units = m->t->split_units;
        NAME(run_stage)
        (m, &input, m->mine, n, units ? fr_share(input.panels, m->member, m->members) : 0,
         units ? fr_share(input.panels, m->member + 1, m->members) : input.panels, NAME(single_stages)(m->t) >> i & 1, 0);
    }
}

/* One chunk from step s on: the rows of this member, or all rows where units are shared. 0: the team has ended. */
static int NAME(forward_chunk)(call *m, const stage *g, int stages, ptrdiff_t s, ptrdiff_t steps)
{
    const fr_task *t = m->t;
    const int single = NAME(single_stages)(t);
    if (t->pre)
        m->pre = (REAL *)t->pre + NAME(items_between)(&t->plan, t->s0, s) * m->pre_width;
    NAME(gather)(m, s, steps, 1);
    if (t->split_units && !NAME(meet)(m))
        return 0;
    if (m->pre && !t->pre)
        NAME(make_inputs)(m, g, stages, m->mine_first[steps]);
    for (ptrdiff_t q = 0, next; q < steps; q = next) { /* c of an item is that of one in front of it in the list */
        next = t->segment ? steps : q + 1;
        if (!NAME(run_step)(m, g, stages, single, m->mine + m->mine_first[q], m->mine_first[next] - m->mine_first[q], q & 1))
            return 0;
    }
    return 1;
}

/* All steps, in turns at the lots: nobody waits for a member that was descheduled, or has a slow core. */
static void NAME(forward_lots)(call *m, const stage *g, int stages)
{
    const fr_task *t = m->t;
    const ptrdiff_t most = NAME(chunk_steps)(t, t->s0, 1), chunks = fr_ceil_div(t->s1 - t->s0, fr_max(1, most));
    for (int i; (i = fr_lot_take(m->lots, t->lots, (int)chunks)) >= 0; fr_lot_done(&m->lots[i])) {
        ptrdiff_t s = t->s0 + m->lots[i].chunks * most;
        m->row0 = fr_share(t->plan.B, i, t->lots), m->row1 = fr_share(t->plan.B, i + 1, t->lots);
        NAME(forward_chunk)(m, g, stages, s, fr_min(most, t->s1 - s));
    }
}

/* All steps, as one member of a team. */
static void NAME(forward_steps)(call *m, const stage *g, int stages)
{
    const fr_task *t = m->t;
    if (t->segment && NAME(projects)(t))
        stages--;
    if (m->member == 0) {
        memset((REAL *)m->zero, 0, t->H * sizeof(REAL));
        if (m->lots)
            memset(m->lots, 0, t->lots * sizeof(fr_lot));
    }
    if (!t->packed_ready)
        NAME(pack_forward)(m, g);
    if (!NAME(meet)(m))
        return;
    if (m->lots) {
        NAME(forward_lots)(m, g, stages);
        return;
    }
    for (ptrdiff_t s = t->s0, steps; t->plan.B > 0 && s < t->s1; s += steps) {
        if (t->plan.first && !NAME(meet)(m)) /* an item's place in the table is another row's in the next chunk */
            return;
        steps = NAME(chunk_steps)(t, s, 1);
        if (!NAME(forward_chunk)(m, g, stages, s, steps))
            return;
    }
}

static void NAME(forward)(const void *task, int member, fr_team *team)
{
    const fr_task *t = task;
    fr_fpstate state = fr_fp_enter();
    stage g[2];
    ptrdiff_t packed = 0, work = 0;
    const int stages = NAME(forward_stages)(t, g, t->packed, &packed);
    call m = NAME(forward_call)(t, member, team->n, team, t->work, &work);
    NAME(forward_steps)(&m, g, stages);
    fr_report_work(team, member, m.work);
    fr_fp_leave(state);
}

/* w_ih as a matrix (I, pre_width) with the columns in the order of `pre`, and the bias in the same order: for a BLAS. */
static void NAME(input_matrix)(const fr_task *t, void *matrix, void *bias)
{
    const NAME(gate_order) *order[2];
    const int stages = NAME(forward_orders)(t->cell, order);
    const ptrdiff_t width = NAME(pre_width)(t), blocks = fr_ceil_div(t->H, W);
    REAL *to = matrix, *b = bias;
    memset(to, 0, t->I * width * sizeof(REAL));
    for (int i = 0; i < stages; i++) {
        const NAME(gate_order) *o = order[i];
        for (ptrdiff_t p = 0; p < NAME(panels_of)(o, blocks); p++, to += 4 * W, b += 4 * W) {
            NAME(pack_bias)(b - p * 4 * W, t, p, o);
            for (int j = 0; j < (o->nx == 1 ? 4 : o->nx); j++) {
                ptrdiff_t block = o->nx == 1 ? 4 * p + j : p;
                ptrdiff_t lanes = fr_min(W, t->H - block * W);
                if (lanes > 0)
                    NAME(transpose)
                    (to + j * W, width, (const REAL *)t->w_ih + (o->x[o->nx == 1 ? 0 : j] * t->H + block * W) * t->I, t->I, lanes, t->I);
            }
        }
    }
}
