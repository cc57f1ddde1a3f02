/* The INT8 multiply-accumulates per second of one core, from registers only: no load limits it.
 *
 * 12 independent chains hide the latency of the instruction. Without VNNI, x86 needs three instructions
 * for one group of four products (VPMADDUBSW, VPMADDWD, VPADDD).
 */
#define _POSIX_C_SOURCE 199309L
#include <stdint.h>
#include <time.h>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
typedef __m512i vec;
#define NAME "avx512_vnni vpdpbusd, 512 bit"
#define SET(x) _mm512_set1_epi8(x)
#define STEP(s, a, b) _mm512_dpbusd_epi32(s, a, b)
#elif defined(__AVXVNNI__)
#include <immintrin.h>
typedef __m256i vec;
#define NAME "avx_vnni vpdpbusd, 256 bit"
#define SET(x) _mm256_set1_epi8(x)
#define STEP(s, a, b) _mm256_dpbusd_avx_epi32(s, a, b)
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256i vec;
#define NAME "avx2 vpmaddubsw + vpmaddwd + vpaddd, 256 bit"
#define SET(x) _mm256_set1_epi8(x)
#define STEP(s, a, b) _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
typedef int32x4_t vec;
#define NAME "asimddp sdot, 128 bit"
#define SET(x) vreinterpretq_s32_s8(vdupq_n_s8(x))
#define STEP(s, a, b) vdotq_s32(s, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))
#else
#error "no INT8 dot product that this file knows"
#endif

/* The compiler must keep this value in a register, and know nothing about it: it can neither drop nor copy the chain. */
#if defined(__AVX512VNNI__)
#define KEEP(x) __asm__ volatile("" : "+v"(x))
#elif defined(__x86_64__)
#define KEEP(x) __asm__ volatile("" : "+x"(x))
#else
#define KEEP(x) __asm__ volatile("" : "+w"(x))
#endif

const char *instruction(void) { return NAME; }

/* Named variables, not an array: gcc would keep an array in memory. */
#define ALL(X) X(s0) X(s1) X(s2) X(s3) X(s4) X(s5) X(s6) X(s7) X(s8) X(s9) X(s10) X(s11)
#define CHAINS 12
#define DECLARE(s) vec s = SET(0);
#define MULTIPLY(s) s = STEP(s, a, b); KEEP(s);
#define USE(s) KEEP(s);

/* Return the multiply-accumulates per second of the calling thread's CPU time. */
double macs_per_second(int64_t rounds) {
    vec a = SET(3), b = SET(5);
    ALL(DECLARE)
    struct timespec start, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    for (int64_t r = 0; r < rounds; r++) {
        ALL(MULTIPLY)
        KEEP(a);
        KEEP(b);
    }
    ALL(USE)
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec);
    return (double)rounds * CHAINS * sizeof(vec) / seconds;
}
