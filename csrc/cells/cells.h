/* cells.h - the table of cells, in the order of enum fr_cell. */
#ifndef FR_CELLS_H
#define FR_CELLS_H
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"

static const cell *const CELLS[] = {
    [FR_RNN_TANH] = &rnn_tanh,
    [FR_RNN_RELU] = &rnn_relu,
    [FR_LSTM] = &lstm,
    [FR_LSTM_PEEPHOLE] = &lstm_peephole,
    [FR_GRU_AFTER] = &gru_after,
    [FR_GRU_BEFORE] = &gru_before,
};

#endif
