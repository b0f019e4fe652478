/* frame.h - a call of XLA's as the handlers see it: arrays by their places, the options, and the first error. */
#ifndef FR_XLA_FRAME_H
#define FR_XLA_FRAME_H
#include "interface.h"

/* The arguments of forward, and after them those that backward has more. An array without elements is an argument that is not given;
 * a call without a batch has one row. */
enum {
    FR_X, FR_W_IH, FR_W_HH, FR_B_IH, FR_B_HH, FR_H0, FR_C0, FR_PEEPHOLE, FR_W_HR, FR_LENGTHS, FR_RESET, FR_MASK, FR_FORWARD_ARGUMENTS,
    FR_Y = FR_FORWARD_ARGUMENTS, FR_C, FR_GATES, FR_DY, FR_DH_N, FR_DC_N, FR_BACKWARD_ARGUMENTS
};
/* The results of forward. Those of backward are the gradients of the arguments up to FR_W_HR, in their order. */
enum { FR_OUT_Y, FR_OUT_H_N, FR_OUT_C_N, FR_OUT_C, FR_OUT_GATES, FR_FORWARD_RESULTS, FR_BACKWARD_RESULTS = FR_LENGTHS };

/* fastrnn.schedule.Schedule */
typedef struct {
    int64_t threads, split_units, input_first, chunk, patience_ns, row_blocks, direct;
} fr_how;

/* The attribute "options": fastrnn/jax.py fills it in. */
typedef struct {
    int64_t cell, reverse, batch_first, hold;
    int64_t checkpoint;    /* 0, or how many steps apart a recorded LSTM or GRU keeps its state */
    int64_t fewer_threads; /* does a lower number of threads of the process hold, too? */
    int64_t bf16;          /* products of bfloat16 operands */
    fr_how how, recompute; /* recompute: that of recomputing gates */
} fr_options;

typedef struct {
    const xla_frame *frame;
    const fr_options *options;
    int error; /* its kind, or 0 */
    char message[160];
} fr_frame;

/* XLA may only ask for the version: then this answers, and the result is true. */
int fr_frame_metadata(const xla_frame *frame);
/* A frame with so many arrays of one type of numbers, or an error. */
fr_frame fr_frame_open(const xla_frame *frame, int arguments, int results);
/* The error, or NULL. */
xla_error *fr_frame_close(const fr_frame *frame);

static inline const xla_buffer *fr_buffer(const xla_buffers *buffers, int place)
{
    return buffers->buffers[place];
}

/* The data of an argument or result, or NULL if it has no elements. */
void *fr_argument(const fr_frame *frame, int place);
void *fr_result(const fr_frame *frame, int place);

static inline ptrdiff_t fr_dim(const fr_frame *frame, int place, int axis)
{
    return (ptrdiff_t)fr_buffer(&frame->frame->arguments, place)->dims[axis];
}

#endif
