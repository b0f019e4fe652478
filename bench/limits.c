// What this machine can do at all: multiply-adds that touch nothing but registers, and reading a buffer again and again.
// REAL is float or double.

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

typedef REAL vec __attribute__((vector_size(BYTES)));

// Twelve chains hide the latency of an addition (4 cycles, 2 a cycle: 8 in flight) and leave registers for the operands.
#define TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define START(i) vec s##i = zero + (REAL)i; // all different, or the compiler would compute one of them
#define MULTIPLY_ADD(i) s##i = s##i * m + a;
#define READ(i) s##i += p[i];
#define SUM(i) total += s##i;

// Floating-point operations in one turn of multiply_add; bytes of which read_all takes a multiple.
long operations(void) { return 12 * 2 * (BYTES / sizeof(REAL)); }
long block(void) { return 12 * BYTES; }

double multiply_add(long turns, double factor, double term) {
    const vec zero = {0}, m = zero + (REAL)factor, a = zero + (REAL)term;
    TWELVE(START)
    for (long turn = 0; turn < turns; turn++) {
        TWELVE(MULTIPLY_ADD)
    }
    vec total = zero;
    TWELVE(SUM)
    return total[0];
}

double read_all(const vec *buffer, long bytes, long turns) {
    const vec zero = {0};
    TWELVE(START)
    for (long turn = 0; turn < turns; turn++) {
        for (const vec *p = buffer; p < buffer + bytes / BYTES; p += 12) {
            TWELVE(READ)
        }
        __asm__ volatile("" ::: "memory"); // read it again
    }
    vec total = zero;
    TWELVE(SUM)
    return total[0];
}
