/* fastrnn.h - the C interface of the kernels.
 *
 * Total functions over memory that the caller owns: nothing here allocates, fails, prints, keeps state or knows of Python.
 * Sizes and strides are in elements, not bytes. T steps, B rows, I inputs, H hidden units, G gates,
 * P numbers in h: H, or fewer where an LSTM has a projection, h_t = w_hr (o tanh(c_t)) (Sak et al. 2014).
 *
 * Gate blocks of H rows stand in weights and biases as i,f,g,o (LSTM) and r,z,n (GRU), as in PyTorch.
 */
#ifndef FASTRNN_H
#define FASTRNN_H
#include <stddef.h>

#include "team/pool.h"

/* The promises about bits, against a compiler, or a wrapper around one, that puts such flags after ours. */
#if defined __FAST_MATH__ || (defined __FINITE_MATH_ONLY__ && __FINITE_MATH_ONLY__) || defined __ASSOCIATIVE_MATH__ || \
    defined __RECIPROCAL_MATH__ || defined __NO_SIGNED_ZEROS__
#error "fastrnn cannot be compiled with -Ofast, -ffast-math or parts of it: results would depend on the compiler"
#endif
_Static_assert(sizeof 0.1 == sizeof(double), "fastrnn cannot be compiled with -fsingle-precision-constant");

#undef I /* here the number of inputs; complex.h calls the imaginary unit so */

enum fr_cell { FR_RNN_TANH, FR_RNN_RELU, FR_LSTM, FR_LSTM_PEEPHOLE, FR_GRU_AFTER, FR_GRU_BEFORE };

/* In place of a cell's own activations: what cells/activations.h computes for each kind. */
enum fr_activation_kind {
    FR_USUAL, /* the cell's own */
    FR_TANH, FR_SIGMOID, FR_RELU, FR_LEAKY_RELU, FR_THRESHOLDED_RELU, FR_AFFINE, FR_SCALED_TANH, FR_HARD_SIGMOID, FR_ELU, FR_SOFTSIGN,
    FR_SOFTPLUS
};
typedef struct fr_activation {
    int kind;
    double alpha, beta; /* of the kinds that have them */
} fr_activation;

/* Which rows are processed at which step, and where their data stands.
 *
 * Step s (0 <= s < T) holds the items first[s] .. first[s+1]-1; an item is a row b at a time t, with the time of the item that the
 * row's state comes from. `first == NULL` is the dense plan: every row at every step, t = s, or T-1-s where reverse is set.
 */
enum { FR_FROM_INITIAL = -1, FR_FROM_ZERO = -2 };
typedef struct fr_plan {
    ptrdiff_t T, B;
    int reverse;            /* of the dense plan */
    const ptrdiff_t *first; /* (T+1) or NULL */
    const ptrdiff_t *row;   /* (items) b */
    const ptrdiff_t *time;  /* (items) t */
    const ptrdiff_t *prev;  /* (items) time of the item before, or FR_FROM_INITIAL, or FR_FROM_ZERO (the row was reset) */
    const ptrdiff_t *rank;  /* (B) place of each row in the order of length: threads deal the rows out by it */
} fr_plan;

/* An array over time and rows: element (t, b, j) stands at p[t*st + b*sb + j]. p == NULL: absent. */
typedef struct fr_seq {
    void *p;
    ptrdiff_t st, sb;
} fr_seq;

/* The weights of a layer in one direction, or the gradients of them, in C order. Gate blocks as above; G gates of the cell. */
typedef struct fr_weights {
    void *w_ih, *w_hh;   /* (G*H, I), (G*H, P) */
    void *w_hr;          /* (P, H) if P < H */
    void *b_ih, *b_hh;   /* (G*H) or NULL */
    void *peephole;      /* (3, H) rows i, f, o, or NULL */
} fr_weights;

/* What forward leaves for backward. The gates, per row and step, after their activations:
 *   LSTM        i, f, g, o
 *   GRU after   r, z, n, W_hn h + b_hn
 *   GRU before  r, z, n, r*h
 *   RNN         nothing (gates.p == NULL)
 */
typedef struct fr_saved {
    fr_seq c;                 /* LSTM: (T, B, H); inference: (B, H) with st = 0, updated in place, and c0 == c.p */
    fr_seq gates;             /* (T, B, 4*H), training only */
    int recompute;            /* gradient checkpointing: c and gates have the steps from first_step on only, by step in place of time:
                                 gates[s], c[s+1], and first in c the state before; forward recomputes them from y, which is there already */
    ptrdiff_t first_step;
} fr_saved;

/* Backward alone. */
typedef struct fr_gradients {
    fr_seq dy;                /* (T, B, P) or absent */
    fr_seq dcs;               /* (T, B, H): gradient of the sequence c, or absent */
    void *dh, *dc;            /* (B, P), (B, H): in, gradient of the final state; out, of the initial state */
    fr_seq dx;                /* (T, B, I) or absent */
    fr_weights dw;            /* added to; NULL: not wanted */
    int fresh;                /* dw is uninitialised: as if it were all 0 */
    void *dgates;             /* (items, dgates_width): where the gradients of the preactivations of the range's steps go, in descending
                                 order of steps; NULL: workspace, and the products run here */
    int make_dx;              /* with dgates: dx is made here all the same, and the weights' gradients alone are left to the caller */
    ptrdiff_t truncate;       /* no gradient flows from a row's step k, 2k, ... to the one before; 0: all flows */
} fr_gradients;

/* How the call is run. No result depends on it. */
typedef struct fr_schedule {
    int split_units;          /* threads share the hidden units (a barrier after each stage), not the rows */
    int row_blocks;           /* forward, dynamic scheduling: threads take turns at so many blocks of rows, chunk by chunk; 0: static, a
                                 share of the rows each. Ignored where units are shared, and in ragged plans, whose rows have no fixed place */
    int input_first;          /* make the input products of a chunk of steps before its recurrence */
    int direct;               /* no packed copy of the weights: read them as they lie, or, for more than a few rows, pack each panel where
                                 it is about to be used. Pays where a weight is used for a few items, or in one step only */
    ptrdiff_t chunk;          /* items per chunk, >= 1; a step is never cut */
} fr_schedule;

/* The steps of this call: forward ascends through them, backward descends. */
typedef struct fr_range {
    ptrdiff_t s0, s1;
    int first, last;          /* backward in pieces: is this the first call, the last call? */
} fr_range;

/* The caller's memory, 64-byte aligned, of the sizes that forward_sizes and backward_sizes give; pieces of one call share it. */
typedef struct fr_memory {
    int packed_ready;         /* forward: `packed` was filled by an earlier call */
    int back_ready;           /* backward: likewise */
    void *packed, *work;
} fr_memory;

/* One call of one layer in one direction. Inputs are never written; outputs may not overlap inputs, but for c in inference. All arrays
 * live until the call returns. */
typedef struct fr_call {
    int cell;                 /* enum fr_cell */
    fr_activation activation[3]; /* all of kind FR_USUAL; or f, of the gates (of an RNN its only one), g, of the candidate, and of an LSTM h,
                                 of c. backward: leaky ReLU and ELU with alpha >= 0 alone */
    ptrdiff_t I, H, P;
    fr_plan plan;
    fr_weights w;
    fr_seq x;                 /* (T, B, I) */
    const void *h0, *c0;      /* (B, P), (B, H), or NULL for zeros */
    fr_seq y;                 /* (T, B, P) */
    const void *xw;           /* input products made elsewhere, in the order of the items, or NULL: see fr_sizes.xw_width */
    const ptrdiff_t *tokens;  /* (T, B) in C order, or NULL: x is the one-hot rows of these numbers, 0 to I-1, and x.p and d.dx.p are NULL.
                                 Forward: xw is what token_table made. Backward: d.dw.w_ih is (I, G*H), and added to even if d.fresh */
    fr_saved saved;
    fr_gradients d;
    fr_schedule schedule;
    fr_range range;
    fr_memory memory;
} fr_call;

/* What a call needs, from its cell, plan, sizes and schedule. */
typedef struct fr_sizes {
    ptrdiff_t packed_bytes, work_bytes;
    ptrdiff_t xw_width;     /* numbers per item in xw */
    ptrdiff_t dgates_width; /* numbers per item in dgates; the x part starts at dgates_x */
    ptrdiff_t dgates_x;
    ptrdiff_t sum_steps;    /* backward in pieces gives the bits of one call where all but the first end at multiples of it */
} fr_sizes;

/* What a training does between two gradients: a rule for each number of many arrays. A row is the arrays that belong together, all
 * of n numbers and one dtype; two of them are the same or do not overlap. Rows are cut into pieces of FR_PIECE numbers, and threads claim
 * the pieces one by one, so rows that overlap each other are for one thread. No bit depends on threads or on the instruction set.
 *
 *     rule          arrays (those that do not change come last)     numbers
 *     FR_SGD        p, v or NULL, g                                 lr, weight decay, momentum, nesterov (0 or 1)
 *     FR_RMSPROP    p, v, m or NULL, b or NULL, g                   lr, weight decay, alpha, 1 - alpha, eps, momentum
 *     FR_ADAGRAD    p, v, g                                         lr, weight decay, eps
 *     FR_ADAM       p, m, v, g                                      lr, weight decay, beta1, 1 - beta1, beta2, 1 - beta2,
 *                                                                   factor of sqrt(v), eps, factor of p (1, or AdamW's)
 *     FR_AVERAGE    average, p                                      weight of p
 *     FR_EXCHANGE   a, b: change places
 *     FR_SCALE      g                                               factor
 *     FR_SQUARES    g: the sum of the squares of each piece goes to sums, in double
 */
enum fr_rule { FR_SGD, FR_RMSPROP, FR_ADAGRAD, FR_ADAM, FR_AVERAGE, FR_EXCHANGE, FR_SCALE, FR_SQUARES };
enum { FR_PIECE = 4096, FR_MAX_ARRAYS = 5, FR_MAX_NUMBERS = 9 };

typedef struct fr_row {
    ptrdiff_t n;
    ptrdiff_t end; /* pieces up to here, those of this row included */
    void *a[FR_MAX_ARRAYS];
} fr_row;

typedef struct fr_update {
    int rule;
    double numbers[FR_MAX_NUMBERS];
    ptrdiff_t pieces;
    const fr_row *rows;
    double *sums; /* (pieces) or NULL */
} fr_update;

typedef struct fr_kernels {
    const char *isa;
    int lanes;
    int tiles; /* AMX's: only for a process that has been given them */
    void (*forward_sizes)(const fr_call *, int threads, fr_sizes *);
    void (*backward_sizes)(const fr_call *, int threads, fr_sizes *);
    fr_work *forward;  /* (fr_call, member of the team) */
    fr_work *backward;
    /* The weights' gradients alone, of T steps of B rows whose dgates are there, summed in this order; work of backward_sizes. Here
     * y is (T, B, P) the h before each step, and saved.c (T, 2, B, H) the c before and after, where a cell has peepholes. */
    fr_work *accumulate;
    void (*token_table)(const fr_call *, void *table); /* (I + 1, xw_width): the input products of each token; the last row is scratch */
    /* Not where products take bfloat16: */
    void (*input_matrix)(const fr_call *, void *matrix, void *bias); /* w_ih as (I, xw_width), bias (xw_width): xw = x matrix + bias */
    void (*vmath)(int function, ptrdiff_t n, const void *x, void *y); /* exp, tanh, sigmoid, softplus, softsign, expm1 of x <= 0 */
    fr_work *update; /* (fr_update, member of the team) */
} fr_kernels;

/* The tables of an instruction set, by the numbers of the arrays. FR_BF16 is for float32 arrays, too, and rounds the operands of all
 * products to bfloat16 (tile/bf16.h). */
enum { FR_F32, FR_F64, FR_BF16 };

/* The instruction sets that this processor runs, best last; NULL past the end. */
const char *fr_isa_name(int index);
/* The kernels of one of them. Those of "amx" differ from v4's for FR_BF16 alone, and these need the permission. */
const fr_kernels *fr_kernels_of(int index, int table);
/* Linux gives AMX's tiles to a process that asks for them, once and for good: signal frames grow by 8 KiB. 1: they may be used. 0: this
 * process, or this system, has none. */
int fr_ask_for_amx(void);

#endif
