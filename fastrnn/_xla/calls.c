#include "calls.h"

#include <fenv.h>
#include <stdio.h>
#include <string.h>

#include "frame.h"
#include "memory.h"
#include "plan.h"

#define REAL float
#define NAME(name) name##_f32
#include "sums.tmpl.h"
#undef REAL
#undef NAME
#define REAL double
#define NAME(name) name##_f64
#include "sums.tmpl.h"

static struct {
    fr_pool *pool;
    const fr_kernels *(*kernels)(int table);
    int (*threads)(void);
} process;

void fr_xla_start(fr_pool *pool, const fr_kernels *(*kernels)(int table), int (*threads)(void))
{
    process.pool = pool;
    process.kernels = kernels;
    process.threads = threads;
}

typedef struct {
    fr_frame frame;
    fr_arena memory;
    const fr_kernels *kernels;
    ptrdiff_t T, B, size; /* size: bytes of a number */
    fr_row_plan plan;
    fr_call task;
} call;

static int is_lstm(const call *c)
{
    return c->task.cell == FR_LSTM || c->task.cell == FR_LSTM_PEEPHOLE;
}

/* An array over time and rows of the user's layout; x, y and their gradients. One without elements still is there. */
static fr_seq user_sequence(const call *c, void *p, ptrdiff_t n)
{
    static double nothing;
    fr_seq seq = {p ? p : &nothing, c->B * n, n};
    if (c->frame.options->batch_first) {
        seq.st = n;
        seq.sb = c->T * n;
    }
    return seq;
}

static fr_seq kept_sequence(const call *c, void *p, ptrdiff_t n)
{
    return (fr_seq){p, p ? c->B * n : 0, p ? n : 0};
}

/* (B) integers from 0 to T, or NULL where there are none or one is wrong. */
static const ptrdiff_t *read_lengths(call *c)
{
    const void *given = fr_argument(&c->frame, FR_LENGTHS);
    ptrdiff_t *lengths = given ? fr_arena_take(&c->memory, c->B * (ptrdiff_t)sizeof *lengths) : NULL;
    if (!lengths)
        return NULL;
    const int wide = fr_buffer(&c->frame.frame->arguments, FR_LENGTHS)->type == XLA_S64;
    for (ptrdiff_t b = 0; b < c->B; b++) {
        const long long length = wide ? ((const int64_t *)given)[b] : ((const int32_t *)given)[b];
        if (length < 0 || length > c->T) {
            c->frame.error = XLA_INVALID_ARGUMENT;
            snprintf(c->frame.message, sizeof c->frame.message, "lengths: expected integers from 0 to T = %td, got %lld at row %td", c->T,
                length, b);
            return NULL;
        }
        lengths[b] = (ptrdiff_t)length;
    }
    return lengths;
}

static void make_plan(call *c)
{
    const fr_options *options = c->frame.options;
    fr_rows rows = {.T = c->T, .B = c->B, .st = c->B, .sb = 1, .reverse = options->reverse != 0, .hold = options->hold != 0};
    rows.length = read_lengths(c);
    rows.reset = fr_argument(&c->frame, FR_RESET);
    rows.mask = fr_argument(&c->frame, FR_MASK);
    if (!c->frame.error)
        c->plan = fr_plan_rows(&rows, &c->memory);
    c->task.plan = c->plan.items;
}

/* What comes in, as _core.Task has it; and the plan. */
static call open_call(const xla_frame *frame, int arguments, int results)
{
    call c = {.frame = fr_frame_open(frame, arguments, results)};
    if (c.frame.error)
        return c;
    const fr_frame *f = &c.frame;
    const int time = f->options->batch_first != 0, is_double = fr_buffer(&frame->arguments, FR_X)->type == XLA_F64;
    fr_call *t = &c.task;
    c.kernels = process.kernels(is_double ? FR_F64 : f->options->bf16 ? FR_BF16 : FR_F32);
    c.size = is_double ? sizeof(double) : sizeof(float);
    c.T = fr_dim(f, FR_X, time);
    c.B = fr_dim(f, FR_X, 1 - time);
    t->cell = (int)f->options->cell;
    t->I = fr_dim(f, FR_W_IH, 1);
    t->P = fr_dim(f, FR_W_HH, 1);
    t->w.w_hr = fr_argument(f, FR_W_HR);
    t->H = t->w.w_hr ? fr_dim(f, FR_W_HR, 1) : t->P;
    t->x = user_sequence(&c, fr_argument(f, FR_X), t->I);
    t->w.w_ih = fr_argument(f, FR_W_IH);
    t->w.w_hh = fr_argument(f, FR_W_HH);
    t->w.b_ih = fr_argument(f, FR_B_IH);
    t->w.b_hh = fr_argument(f, FR_B_HH);
    t->w.peephole = fr_argument(f, FR_PEEPHOLE);
    t->h0 = fr_argument(f, FR_H0);
    t->c0 = fr_argument(f, FR_C0);
    make_plan(&c);
    return c;
}

static xla_error *close_call(call *c)
{
    if (!c->frame.error && c->memory.missing) {
        c->frame.error = XLA_RESOURCE_EXHAUSTED;
        snprintf(c->frame.message, sizeof c->frame.message, "x: cannot allocate %td bytes of work space", c->memory.missing);
    }
    fr_arena_free(&c->memory);
    return fr_frame_close(&c->frame);
}

static int failed(const call *c)
{
    return c->frame.error || c->memory.missing;
}

static int threads(const call *c, const fr_how *how)
{
    const int most = process.threads();
    return c->frame.options->fewer_threads && how->threads > most ? most : (int)how->threads;
}

/* The schedule of the task, and memory of the sizes that it needs. */
static void prepare(call *c, fr_call *t, const fr_how *how, int backward)
{
    t->schedule.split_units = (int)how->split_units;
    t->schedule.input_first = (int)how->input_first;
    t->schedule.chunk = (ptrdiff_t)how->chunk;
    t->schedule.row_blocks = (int)how->row_blocks;
    t->schedule.direct = (int)how->direct;
    fr_sizes sizes;
    (backward ? c->kernels->backward_sizes : c->kernels->forward_sizes)(t, threads(c, how), &sizes);
    t->memory.packed_ready = 0;
    t->memory.packed = fr_arena_take(&c->memory, sizes.packed_bytes);
    t->memory.work = fr_arena_take(&c->memory, sizes.work_bytes);
}

static void run(const call *c, fr_call *t, const fr_how *how, fr_work *kernel, ptrdiff_t s0, ptrdiff_t s1)
{
    const int kind = 2 * t->schedule.split_units + (kernel == c->kernels->backward); /* as Task.forward and Task.backward have it */
    t->range.s0 = s0;
    t->range.s1 = s1;
    fr_pool_run(process.pool, threads(c, how), kind, how->patience_ns, kernel, t);
    t->memory.packed_ready = 1;
}

/* --- states.py ------------------------------------------------------------------------------------------------------------- */

static void copy_or_zeros(void *to, const void *from, ptrdiff_t bytes)
{
    if (!to)
        return;
    if (from)
        memcpy(to, from, (size_t)bytes);
    else
        memset(to, 0, (size_t)bytes);
}

static char *place(const call *c, const fr_seq *seq, ptrdiff_t t, ptrdiff_t b)
{
    return (char *)seq->p + (t * seq->st + b * seq->sb) * c->size;
}

/* One row's state (n) from a time of a sequence, or FR_FROM_INITIAL (first is (B, n)), or FR_FROM_ZERO. */
static void gather(const call *c, void *to, const fr_seq *seq, const void *first, ptrdiff_t from, ptrdiff_t b, ptrdiff_t n)
{
    const ptrdiff_t bytes = n * c->size;
    const void *initial = first ? (const char *)first + b * bytes : NULL;
    copy_or_zeros(to, from >= 0 ? place(c, seq, from, b) : from == FR_FROM_INITIAL ? initial : NULL, bytes);
}

static void final(const call *c, char *to, const fr_seq *seq, const void *first, ptrdiff_t n)
{
    for (ptrdiff_t b = 0; b < c->B; b++)
        gather(c, to + b * n * c->size, seq, first, fr_last(&c->plan, b), b, n);
}

static void hold(const call *c)
{
    const fr_call *t = &c->task;
    for (ptrdiff_t time = 0; c->plan.held && time < c->T; time++)
        for (ptrdiff_t b = 0; b < c->B; b++)
            if (c->plan.held[time * c->B + b] != FR_NOT_HELD)
                gather(c, place(c, &t->y, time, b), &t->y, t->h0, c->plan.held[time * c->B + b], b, t->P);
}

/* Zeros in the rows of a state (B, n) that are cut after their last step. */
static void cut_after(const call *c, char *state, ptrdiff_t n)
{
    for (ptrdiff_t b = 0; state && b < c->B; b++)
        if (fr_last(&c->plan, b) == FR_FROM_ZERO)
            memset(state + b * n * c->size, 0, (size_t)(n * c->size));
}

/* --- forward --------------------------------------------------------------------------------------------------------------- */

/* Where the results go. Without gates, an LSTM's c (B, H) goes from step to step in place of its final state. */
static void set_results(call *c)
{
    fr_call *t = &c->task;
    const fr_frame *f = &c->frame;
    t->y = user_sequence(c, fr_result(f, FR_OUT_Y), t->P);
    t->saved.gates = kept_sequence(c, fr_result(f, FR_OUT_GATES), 4 * t->H);
    if (t->saved.gates.p && is_lstm(c)) {
        t->saved.c = kept_sequence(c, fr_result(f, FR_OUT_C), t->H);
    } else if (is_lstm(c)) {
        void *c_n = fr_result(f, FR_OUT_C_N);
        copy_or_zeros(c_n, t->c0, c->B * t->H * c->size);
        t->saved.c = (fr_seq){c_n, 0, t->H};
        t->c0 = c_n;
    }
    if (c->plan.gaps) { /* places that no step writes */
        copy_or_zeros(fr_result(f, FR_OUT_Y), NULL, c->T * c->B * t->P * c->size);
        copy_or_zeros(t->saved.gates.p, NULL, c->T * c->B * 4 * t->H * c->size);
        copy_or_zeros(t->saved.gates.p ? t->saved.c.p : NULL, NULL, c->T * c->B * t->H * c->size);
    }
}

/* How many steps go together: all, or, with checkpoints, so many that no sum of the weights' gradients is cut. */
static ptrdiff_t steps_together(const call *c)
{
    const ptrdiff_t steps = c->plan.items.T, every = (ptrdiff_t)c->frame.options->checkpoint;
    if (!every)
        return steps;
    fr_sizes sizes;
    c->kernels->forward_sizes(&c->task, 1, &sizes);
    const ptrdiff_t least = every < steps ? every : steps, sum = sizes.sum_steps;
    return (least + sum - 1) / sum * sum;
}

static void forward_steps(call *c)
{
    fr_call *t = &c->task;
    const fr_how *how = &c->frame.options->how;
    char *checkpoints = t->saved.gates.p ? NULL : fr_result(&c->frame, FR_OUT_C);
    prepare(c, t, how, 0);
    const ptrdiff_t steps = t->plan.T, most = steps_together(c), bytes = c->B * t->H * c->size;
    for (ptrdiff_t s = 0; !failed(c) && s < steps; s += most, checkpoints += checkpoints ? bytes : 0) {
        if (checkpoints)
            memcpy(checkpoints, t->saved.c.p, (size_t)bytes);
        run(c, t, how, c->kernels->forward, s, s + most < steps ? s + most : steps);
    }
}

static void forward(call *c)
{
    const void *c0 = c->task.c0;
    fr_call *t = &c->task;
    char *h_n = fr_result(&c->frame, FR_OUT_H_N), *c_n = fr_result(&c->frame, FR_OUT_C_N);
    set_results(c);
    if (t->plan.T)
        forward_steps(c);
    if (failed(c))
        return;
    hold(c);
    final(c, h_n, &t->y, t->h0, t->P);
    if (t->saved.gates.p && is_lstm(c))
        final(c, c_n, &t->saved.c, c0, t->H);
    else
        cut_after(c, c_n, t->H);
}

/* --- backward -------------------------------------------------------------------------------------------------------------- */

/* Where the gradients go; those of the final state come in where those of the initial state go out. */
static void set_gradients(call *c)
{
    fr_call *t = &c->task;
    const fr_frame *f = &c->frame;
    void **weights[] = {&t->d.dw.w_ih, &t->d.dw.w_hh, &t->d.dw.b_ih, &t->d.dw.b_hh, NULL, NULL, &t->d.dw.peephole, &t->d.dw.w_hr};
    for (int k = FR_W_IH; k <= FR_W_HR; k++)
        if (weights[k - FR_W_IH]) {
            const xla_buffer *buffer = fr_buffer(&f->frame->results, k);
            ptrdiff_t bytes = c->size;
            for (int64_t axis = 0; axis < buffer->rank; axis++)
                bytes *= (ptrdiff_t)buffer->dims[axis];
            *weights[k - FR_W_IH] = fr_result(f, k);
            copy_or_zeros(fr_result(f, k), NULL, bytes);
        }
    t->d.dx = user_sequence(c, fr_result(f, FR_X), t->I);
    t->d.dh = fr_result(f, FR_H0);
    t->d.dc = is_lstm(c) ? fr_result(f, FR_C0) : NULL;
    if (c->plan.gaps)
        copy_or_zeros(fr_result(f, FR_X), NULL, c->T * c->B * t->I * c->size);
    copy_or_zeros(t->d.dh, fr_argument(f, FR_DH_N), c->B * t->P * c->size);
    copy_or_zeros(t->d.dc, fr_argument(f, FR_DC_N), c->B * t->H * c->size);
    cut_after(c, t->d.dh, t->P);
    cut_after(c, t->d.dc, t->H);
}

/* The gradient of y, that of held outputs added to those of the steps that they came from; and what so came from the initial state
 * (B, P), or NULL. */
static void *hold_backward(call *c)
{
    fr_call *t = &c->task;
    const ptrdiff_t bytes = c->T * c->B * t->P * c->size, of_state = c->B * t->P * c->size;
    t->d.dy = user_sequence(c, fr_argument(&c->frame, FR_DY), t->P);
    if (!c->plan.held)
        return NULL;
    void *dy = fr_arena_take(&c->memory, bytes), *more = fr_arena_take(&c->memory, of_state);
    if (failed(c))
        return NULL;
    copy_or_zeros(dy, fr_argument(&c->frame, FR_DY), bytes);
    copy_or_zeros(more, NULL, of_state);
    t->d.dy.p = dy;
    (c->size == sizeof(double) ? add_held_f64 : add_held_f32)(&c->plan, &t->d.dy, c->T, t->P, more);
    return more;
}

/* A task that recomputes gates and c of a segment, in memory for its steps. */
static fr_call prepare_recompute(call *c, ptrdiff_t most)
{
    fr_call recompute = c->task;
    const ptrdiff_t row = c->B * recompute.H * c->size;
    recompute.saved.recompute = 1;
    recompute.saved.gates = kept_sequence(c, fr_arena_take(&c->memory, most * 4 * row), 4 * recompute.H);
    recompute.saved.c = kept_sequence(c, is_lstm(c) ? fr_arena_take(&c->memory, (most + 1) * row) : NULL, recompute.H);
    prepare(c, &recompute, &c->frame.options->recompute, 0);
    return recompute;
}

static void backward_segments(call *c, ptrdiff_t most)
{
    fr_call *t = &c->task, recompute = prepare_recompute(c, most);
    const ptrdiff_t steps = t->plan.T, bytes = c->B * t->H * c->size;
    const char *checkpoints = fr_argument(&c->frame, FR_C);
    t->saved.recompute = 1;
    t->saved.c = recompute.saved.c;
    t->saved.gates = recompute.saved.gates;
    for (ptrdiff_t k = (steps - 1) / most; !failed(c) && k >= 0; k--) {
        const ptrdiff_t s0 = k * most, s1 = s0 + most < steps ? s0 + most : steps;
        if (recompute.saved.c.p)
            memcpy(recompute.saved.c.p, checkpoints + k * bytes, (size_t)bytes);
        t->saved.first_step = recompute.saved.first_step = s0;
        run(c, &recompute, &c->frame.options->recompute, c->kernels->forward, s0, s1);
        t->range.first = s1 == steps;
        t->range.last = s0 == 0;
        run(c, t, &c->frame.options->how, c->kernels->backward, s0, s1);
    }
}

static void backward_steps(call *c)
{
    fr_call *t = &c->task;
    const fr_options *options = c->frame.options;
    if (options->checkpoint) {
        const ptrdiff_t most = steps_together(c);
        prepare(c, t, &options->how, 1);
        backward_segments(c, most);
        return;
    }
    t->saved.gates = kept_sequence(c, fr_argument(&c->frame, FR_GATES), 4 * t->H);
    t->saved.c = kept_sequence(c, fr_argument(&c->frame, FR_C), t->H);
    t->range.first = t->range.last = 1;
    prepare(c, t, &options->how, 1);
    if (!failed(c))
        run(c, t, &options->how, c->kernels->backward, 0, t->plan.T);
}

/* In the usual state of the floating-point unit: on XLA's threads denormals are zero, and those of `more` count. */
static void backward(call *c)
{
    fr_call *t = &c->task;
    fenv_t of_thread;
    fegetenv(&of_thread);
    fesetenv(FE_DFL_ENV);
    t->y = user_sequence(c, fr_argument(&c->frame, FR_Y), t->P);
    set_gradients(c);
    const void *more = hold_backward(c);
    if (t->plan.T && !failed(c))
        backward_steps(c);
    if (more)
        (c->size == sizeof(double) ? add_f64 : add_f32)(t->d.dh, more, c->B * t->P);
    fesetenv(&of_thread);
}

/* --- the targets ----------------------------------------------------------------------------------------------------------- */

xla_error *fr_xla_forward(xla_frame *frame)
{
    if (fr_frame_metadata(frame))
        return NULL;
    call c = open_call(frame, FR_FORWARD_ARGUMENTS, FR_FORWARD_RESULTS);
    if (!failed(&c))
        forward(&c);
    return close_call(&c);
}

xla_error *fr_xla_backward(xla_frame *frame)
{
    if (fr_frame_metadata(frame))
        return NULL;
    call c = open_call(frame, FR_BACKWARD_ARGUMENTS, FR_BACKWARD_RESULTS);
    if (!failed(&c))
        backward(&c);
    return close_call(&c);
}
