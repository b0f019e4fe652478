/* kernels.tmpl.h - the kernels for one dtype, in the order in which each builds on those before. */
#include "simd.tmpl.h"
#include "vmath.tmpl.h"
/* registers */
#include "tile.tmpl.h"
/* memory */
#include "pack.tmpl.h"
#include "call.tmpl.h"
/* cells: what happens to the numbers of one tile */
#include "rnn.tmpl.h"
#include "lstm.tmpl.h"
#include "gru.tmpl.h"
/* sequences */
#include "stage.tmpl.h"
#include "forward.tmpl.h"
#include "products.tmpl.h"
#include "backward.tmpl.h"
#include "elementwise.tmpl.h"
#include "optim.tmpl.h"
