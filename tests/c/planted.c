/* Faults on purpose, one for each thing a sanitizer must see; tests/test_sanitizers.py calls them.
 *
 * Linked into fastrnn._core only when FASTRNN_SANITIZE is set: the module, the flags and the run-time library are the
 * kernels' own, so a fault that is reported here would be reported there. */
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT float planted_read(const float *x, ptrdiff_t i) { return x[i]; }

EXPORT void planted_write(float *x, ptrdiff_t i) { x[i] = 0; }

EXPORT int32_t planted_add(int32_t a, int32_t b) { return a + b; }

EXPORT double planted_load(const char *x, ptrdiff_t offset) { return *(const double *)(x + offset); }
