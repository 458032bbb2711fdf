/* What surgery asks at every step on a CPU, each in one pass over its numbers; kernels.py puts REAL in front and
 * compiles it. Sums are taken in an order that is written here, products are not fused with sums: the same bits on
 * every machine, whatever its vectors.
 */
#include <stdint.h>
#include <string.h>
#include <tgmath.h> /* fabs and sqrt of REAL */

#define LANES 16 /* sums of a row side by side, which compilers turn into vectors */

static REAL row_sum(const REAL *x, int64_t count) {
    REAL lanes[LANES] = {0}, total = 0;
    int64_t whole = count - count % LANES;
    for (int64_t k = 0; k < whole; k += LANES)
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += fabs(x[k + lane]);
    for (int64_t k = whole; k < count; k++) lanes[k - whole] += fabs(x[k]);
    for (int lane = 0; lane < LANES; lane++) total += lanes[lane];
    return total;
}

typedef struct { /* out[u] = sum of |x[o, u, i]| over o and i; x is [outer, units, inner] */
    const REAL *x;
    int64_t outer, units, inner;
    REAL *out;
    int64_t more; /* add to what stands there */
} Sum;

void absolute_sums(const Sum *sums, int64_t count) {
    for (; count--; sums++) {
        const int64_t units = sums->units, inner = sums->inner;
        const REAL *restrict x = sums->x;
        REAL *restrict out = sums->out;
        if (!sums->more)
            for (int64_t u = 0; u < units; u++) out[u] = 0;
        for (int64_t o = 0; o < sums->outer; o++, x += units * inner)
            if (inner == 1)
                for (int64_t u = 0; u < units; u++) out[u] += fabs(x[u]);
            else
                for (int64_t u = 0; u < units; u++) out[u] += row_sum(x + u * inner, inner);
    }
}

/* out[c] = sum of x[r, c] over r; x is [rows, columns]. */
void sum_of_rows(const REAL *restrict x, int64_t rows, int64_t columns, REAL *restrict out) {
    for (int64_t c = 0; c < columns; c++) out[c] = rows ? x[c] : 0;
    for (int64_t r = 1; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) out[c] += x[r * columns + c];
}

typedef struct {
    REAL *state; /* running averages of scores and means [values], then of ones [ones] */
    REAL *fresh; /* what this step tells: room for scores [units], then means; for `samples` > 0 sums of so many */
    const REAL *activity, *out, *incoming; /* [units]; a score is their product, `incoming` dividing; NULL: not asked */
    int64_t units, values, ones, samples;
    double pace;
} Averages;

/* As torch.lerp: exact at both ends. */
static REAL between(REAL from, REAL to, REAL pace) {
    return pace < (REAL)0.5 ? from + pace * (to - from) : to - (to - from) * (1 - pace);
}

/* A step of every running average, after the sums that it looks at. Scores and means that are no numbers count as 0. */
void follow(const Sum *sums, int64_t count, const Averages *averages) {
    const Averages a = *averages;
    const REAL pace = a.pace;
    absolute_sums(sums, count);
    if (a.samples)
        for (int64_t i = a.units; i < a.values; i++) a.fresh[i] /= a.samples;
    for (int64_t u = 0; u < a.units; u++) {
        const REAL score = (a.activity ? a.activity[u] : 1) * (a.out ? a.out[u] : 1);
        a.fresh[u] = a.incoming ? score / a.incoming[u] : score;
    }
    for (int64_t i = 0; i < a.values; i++) {
        const REAL fresh = isfinite(a.fresh[i]) ? a.fresh[i] : 0;
        a.state[i] = between(a.state[i], fresh, pace);
    }
    for (int64_t i = a.values; i < a.values + a.ones; i++) a.state[i] = between(a.state[i], 1, pace);
}

/* judged = averages over what they are to be divided by, 0 where that is no number; a unit's score, which comes first,
 * is infinite if it was born at step `latest` or later.
 */
void judge(const REAL *state, int64_t values, const int64_t *births, int64_t units, int64_t latest, REAL *judged) {
    for (int64_t i = 0; i < values; i++) {
        const REAL corrected = state[i] / state[values + i];
        judged[i] = isfinite(corrected) ? corrected : 0;
    }
    for (int64_t u = 0; u < units; u++)
        if (births[u] >= latest) judged[u] = INFINITY;
}

/* Units index[k] are born at `step`: nothing is known of them. Their column of `table`, 4 rows `pitch` apart, is 0. */
void restart(REAL *table, int64_t pitch, int64_t *births, int64_t step, const int64_t *index, int64_t count) {
    for (int64_t k = 0; k < count; k++) {
        births[index[k]] = step;
        for (int row = 0; row < 4; row++) table[row * pitch + index[k]] = 0;
    }
}

typedef struct { /* x is [outer, size, inner], of items of so many bytes */
    char *x;
    int64_t outer, size, inner, bytes;
} Zeros;

/* x[o, index[k], i] = 0 for all o, k, i, in each of them. */
void fill_zeros(const Zeros *zeros, int64_t count, const int64_t *index, int64_t units) {
    for (; count--; zeros++) {
        const Zeros z = *zeros;
        const int64_t row = z.inner * z.bytes;
        for (int64_t k = 0; k < units; k++)
            for (int64_t o = 0; o < z.outer; o++) memset(z.x + (o * z.size + index[k]) * row, 0, row);
    }
}

/* bias[r] += sum of weight[r, index[k]] * mean[index[k]] over k; weight is [rows, columns]. */
void hand_over(const REAL *weight, int64_t rows, int64_t columns, const int64_t *index, int64_t count, const REAL *mean,
               REAL *restrict bias) {
    for (int64_t k = 0; k < count; k++) {
        const REAL *column = weight + index[k], share = mean[index[k]];
        for (int64_t r = 0; r < rows; r++) bias[r] += share * column[r * columns];
    }
}

typedef struct { /* a parameter [rows, columns, inner] */
    REAL *parameter;
    const REAL *gradient;
    REAL *first, *second;                   /* moments */
    const int64_t *row_ages, *column_ages;  /* NULL: that side has none */
    const float *step;                      /* the age of everything where neither side has any */
    int64_t rows, columns, inner;
} Part;

typedef struct {
    const REAL *ones, *roots; /* 1 - beta1^age and sqrt(1 - beta2^age), up to age `last`, from where on they are 1 */
    int64_t last;
    double rate, beta1, beta2, eps, decay;
    int64_t decoupled, maximize;
} Settings;

static int64_t capped(int64_t age, int64_t last) { return age < last ? age : last; }

/* parameter -= rate * (first / one) / (sqrt(second) / root + eps), where an entry's corrections are those of the
 * younger of its row and column; `one` and `root` grow with age, so the younger has the smaller ones. Multiplied out,
 * an entry takes one division and one root. `scratch`: 2 * columns * inner. This call does one of several shares of the
 * rows.
 */
void adam(const Part *parts, int64_t count, const Settings *settings, REAL *restrict scratch, int64_t share,
          int64_t shares) {
    const Settings s = *settings;
    const REAL rate = s.rate, grow = 1 - s.beta1, keep = s.beta2, add = 1 - s.beta2, eps = s.eps;
    const REAL sign = s.maximize ? -1 : 1, shrink = s.decoupled ? 1 - s.rate * s.decay : 1;
    const REAL decay = s.decoupled ? 0 : s.decay;
    for (; count--; parts++) {
        const Part p = *parts;
        const int64_t width = p.columns * p.inner;
        REAL *restrict column_ones = scratch, *restrict column_roots = scratch + width;
        for (int64_t c = 0; c < p.columns; c++) {
            const int64_t age = p.column_ages ? capped(p.column_ages[c], s.last) : s.last;
            for (int64_t i = 0; i < p.inner; i++) {
                column_ones[c * p.inner + i] = s.ones[age];
                column_roots[c * p.inner + i] = s.roots[age];
            }
        }
        for (int64_t r = p.rows * share / shares; r < p.rows * (share + 1) / shares; r++) {
            const int64_t age = p.row_ages ? p.row_ages[r] : p.column_ages ? s.last : (int64_t)*p.step;
            const REAL row_one = s.ones[capped(age, s.last)], row_root = s.roots[capped(age, s.last)];
            REAL *restrict weight = p.parameter + r * width;
            REAL *restrict first = p.first + r * width, *restrict second = p.second + r * width;
            const REAL *restrict gradient = p.gradient + r * width;
            for (int64_t k = 0; k < width; k++) {
                const REAL one = row_one < column_ones[k] ? row_one : column_ones[k];
                const REAL root = row_root < column_roots[k] ? row_root : column_roots[k];
                const REAL g = sign * gradient[k] + decay * weight[k];
                first[k] = between(first[k], g, grow);
                second[k] = keep * second[k] + add * g * g;
                const REAL change = rate * root * first[k] / (one * (sqrt(second[k]) + eps * root));
                weight[k] = shrink * weight[k] - change;
            }
        }
    }
}
