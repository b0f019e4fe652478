/* calls.h - forward and backward of one layer in one direction as targets of XLA's custom calls: what fastrnn/_engine/run.py does, without
 * Python, so that nothing waits for anything but the kernels. */
#ifndef FR_XLA_CALLS_H
#define FR_XLA_CALLS_H
#include "fastrnn.h"
#include "interface.h"

/* Before the first call: the pool of the process; and who tells the kernels in use of a table, and how many threads a call may have that
 * is not told a number of its own. */
void fr_xla_start(fr_pool *pool, const fr_kernels *(*kernels)(int table), int (*threads)(void));

xla_error *fr_xla_forward(xla_frame *frame);
xla_error *fr_xla_backward(xla_frame *frame);

#endif
