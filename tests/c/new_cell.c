/* new_cell.c - the light GRU of docs/architecture.md, forward against a plain loop, backward against central differences of that loop.
 * Built by tests/test_pages.py, with KERNELS the table of one instruction set in float64. Prints the largest errors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "fastrnn.h"

enum { T = 6, B = 3, INPUTS = 4, H = 7, G = 2, MEMORY = 1 << 20 };

extern const fr_kernels KERNELS;
static double x[T * B * INPUTS], w_ih[G * H * INPUTS], w_hh[G * H * H], b_ih[G * H], b_hh[G * H], h0[B * H], dy[T * B * H];
static double dx[T * B * INPUTS], dw_ih[G * H * INPUTS], dw_hh[G * H * H], db_ih[G * H], db_hh[G * H], dh[B * H];
static double y[T * B * H], wanted[T * B * H], gates[T * B * 4 * H];
static _Alignas(64) char packed[MEMORY], work[MEMORY];

static double preactivation(const double *inputs, const double *h, int row)
{
    double a = b_ih[row] + b_hh[row];
    for (int k = 0; k < INPUTS; k++)
        a += w_ih[row * INPUTS + k] * inputs[k];
    for (int k = 0; k < H; k++)
        a += w_hh[row * H + k] * h[k];
    return a;
}

/* Fills `wanted`; returns the loss, the sum of wanted * dy. */
static double plain_loop(void)
{
    double loss = 0;
    for (int t = 0; t < T; t++)
        for (int b = 0; b < B; b++) {
            const double *h = t ? wanted + ((t - 1) * B + b) * H : h0 + b * H;
            for (int u = 0, i = (t * B + b) * H; u < H; u++, i++) {
                const double *inputs = x + (t * B + b) * INPUTS;
                const double z = 1 / (1 + exp(-preactivation(inputs, h, u))), n = fmax(0, preactivation(inputs, h, H + u));
                wanted[i] = (1 - z) * n + z * h[u];
                loss += wanted[i] * dy[i];
            }
        }
    return loss;
}

static double gradient_error(double *p, const double *dp, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++) {
        const double value = p[i], step = 1e-6;
        p[i] = value + step;
        const double above = plain_loop();
        p[i] = value - step;
        const double below = plain_loop();
        p[i] = value;
        worst = fmax(worst, fabs((above - below) / (2 * step) - dp[i]));
    }
    return worst;
}

#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))
#define DRAW(a) draw(a, LENGTH(a))
#define PRINT(p, dp) printf("d%s %.3e\n", #p, gradient_error(p, dp, LENGTH(p)))

static void draw(double *a, int n)
{
    for (int i = 0; i < n; i++)
        a[i] = 2.0 * rand() / RAND_MAX - 1;
}

int main(void)
{
    DRAW(x), DRAW(w_ih), DRAW(w_hh), DRAW(b_ih), DRAW(b_hh), DRAW(h0), DRAW(dy);
    fr_call call = {
        .cell = FR_LIGRU, .I = INPUTS, .H = H, .P = H, .plan = {.T = T, .B = B}, .w = {.w_ih = w_ih, .w_hh = w_hh, .b_ih = b_ih, .b_hh = b_hh},
        .x = {x, B * INPUTS, INPUTS}, .h0 = h0, .y = {y, B * H, H}, .saved = {.gates = {gates, B * 4 * H, 4 * H}},
        .d = {.dy = {dy, B * H, H}, .dh = dh, .dx = {dx, B * INPUTS, INPUTS},
              .dw = {.w_ih = dw_ih, .w_hh = dw_hh, .b_ih = db_ih, .b_hh = db_hh}},
        .schedule = {.chunk = 8}, .range = {0, T, 1, 1}, .memory = {.packed = packed, .work = work}};
    fr_sizes forward, backward;
    fr_team team = {.n = 1};
    KERNELS.forward_sizes(&call, 1, &forward);
    KERNELS.backward_sizes(&call, 1, &backward);
    if (fmax(forward.packed_bytes, backward.packed_bytes) > MEMORY || fmax(forward.work_bytes, backward.work_bytes) > MEMORY)
        return 1;
    KERNELS.forward(&call, 0, &team);
    double worst = 0;
    plain_loop();
    for (int i = 0; i < LENGTH(y); i++)
        worst = fmax(worst, fabs(y[i] - wanted[i]));
    printf("y %.3e\n", worst);
    KERNELS.backward(&call, 0, &team);
    PRINT(x, dx), PRINT(w_ih, dw_ih), PRINT(w_hh, dw_hh), PRINT(b_ih, db_ih), PRINT(b_hh, db_hh), PRINT(h0, dh);
}
