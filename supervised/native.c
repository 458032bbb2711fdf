/* Many steps of many small networks, one example a step: forward, backward, update and surgery's running means.
 *
 * native.py puts the shape and the method in front of this text as macros and compiles it:
 *
 *   REAL            float or double
 *   LANES           runs side by side in one vector (narrow networks), or 1 (wide ones: vectors run along the outputs)
 *   DEPTH           linear layers
 *   LAYERS(F)       F(number, inputs, outputs, pitch) for each, first to last; a row of weights has `pitch` entries
 *   LAYERS_BACK(F)  the same, last to first
 *   WIDEST          largest width of all, inputs included
 *   INPUTS, OUTPUTS of the whole network
 *   CROSS_ENTROPY   1, or 0 for squared error
 *   ACT(z), DACT(d, z, h)     activation and its derivative: dL/dz from dL/dh
 *   SILENT          1 if h = 0 makes DACT 0 (ReLU): such rows are neither read back nor written
 *   DECAYS, MOMENTUM, ADAM, PER_UNIT    0 or 1 each, as in optimizers.py
 *   FOLLOWS         0: nothing, 1: utility of continual backprop, 2: ReDo's sum of |h|
 *   SCORE           the utility, of: activity, deviation, sensitivity, out, incoming
 *   NEEDS_SUMS      1 if SCORE reads out or incoming
 *
 * Every lane does the same arithmetic in the same order, so a run's numbers do not depend on its neighbours. A step
 * reads a row of weights once forward and once backward, where the update and the sums of |w| are done as well.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define L LANES
#define SIMD _Pragma("GCC ivdep")
/* the statement for entry j = [o, l] of `count` rows of lanes; one loop over j where there is one lane */
#define EACH(count, ...)                                                                                      \
    if (L == 1) {                                                                                             \
        SIMD                                                                                                  \
        for (int j = 0; j < (count); j++) {                                                                   \
            const int l = 0;                                                                                  \
            (void)l;                                                                                          \
            __VA_ARGS__                                                                                       \
        }                                                                                                     \
    } else                                                                                                    \
        for (int o = 0; o < (count); o++) {                                                                   \
            SIMD                                                                                              \
            for (int l = 0; l < L; l++) {                                                                     \
                const int j = o * L + l;                                                                      \
                __VA_ARGS__                                                                                   \
            }                                                                                                 \
        }
/* sums may be taken in another order, here and nowhere else */
#define SUM(s) _Pragma("omp simd reduction(+:s)")
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int64_t steps, runs, first, last;  /* of the stack; this call does runs first to last - 1 */
    const REAL *x, *targets;           /* [steps, runs, INPUTS], [steps, runs, OUTPUTS] */
    REAL *outputs;                     /* [steps, runs, OUTPUTS] */
    REAL *weights[DEPTH], *first_moments[DEPTH], *second_moments[DEPTH];
    int64_t strides[DEPTH][3];         /* of weights and moments alike, entries: run, input, output */
    REAL *rows[DEPTH][2], *columns[DEPTH][2];  /* Adam's corrections, [runs, inputs + 1] and [runs, pitch] */
    REAL *worth[DEPTH], *mean[DEPTH], *seen[DEPTH];  /* of hidden layers, [runs, width]; ReDo: worth is the sum */
    const REAL *descent, *shrink, *weight_decay, *momentum;  /* [runs] */
    REAL decay, beta1, beta2, eps;
} Job;

/* ---- functions that vectorise; libm's do not */

INLINE double exp_of_double(double z) { return exp(z); }
INLINE float exp_of_float(float z) {
    z = z > 88.0f ? 88.0f : z < -87.0f ? -87.0f : z;
    float n = (z * 1.44269504f + 12582912.0f) - 12582912.0f;  /* rounded to a whole number */
    float r = (z - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t bits; float value; } power = {((int32_t)n + 127) << 23};
    return p * power.value;
}
INLINE REAL exp_(REAL z) { return sizeof(REAL) == 4 ? (REAL)exp_of_float((float)z) : (REAL)exp_of_double((double)z); }
INLINE REAL abs_(REAL z) { return z < 0 ? -z : z; }
INLINE REAL sqrt_(REAL z) { return sizeof(REAL) == 4 ? (REAL)sqrtf((float)z) : (REAL)sqrt((double)z); }
INLINE REAL tanh_(REAL z) {
    if (sizeof(REAL) == 8) return (REAL)tanh((double)z);
    REAL a = abs_(z), e = exp_(-2 * a), q = z * z;
    REAL large = (1 - e) / (1 + e);
    REAL p = (REAL)-5.70498872745e-3;  /* 1 - e cancels near 0 */
    p = p * q + (REAL)2.06390887954e-2;
    p = p * q - (REAL)5.37397155531e-2;
    p = p * q + (REAL)1.33314422036e-1;
    p = p * q - (REAL)3.33332819422e-1;
    return a < (REAL)0.625 ? p * q * z + z : z < 0 ? -large : large;
}
INLINE REAL sigmoid_(REAL z) { return 1 / (1 + exp_(-z)); }
INLINE REAL expm1_(REAL z) { /* z <= 0 */
    REAL half = tanh_(z / 2);
    return 2 * half / (1 - half);
}

/* ---- what one block of LANES runs keeps while it takes its steps */

typedef struct {
    REAL z[WIDEST * L], h[WIDEST * L], delta[(WIDEST + 8) * L];
    REAL sensitivity[WIDEST * L], out[WIDEST * L], incoming[(WIDEST + 8) * L];
    double total[WIDEST + 8];  /* sum of |w_in| where rows are skipped: only changes are added */
    REAL *w, *m, *v, *row[2], *column[2], *worth, *mean, *seen;
} Layer;

typedef struct {
    Layer layer[DEPTH];
    REAL x[INPUTS * L], delta[(WIDEST + 8) * L], step[(WIDEST + 8) * L], change[WIDEST + 8];
    REAL descent[L], shrink[L], weight_decay[L], momentum[L], decay, beta1, beta2, eps;
} Block;

#define DENSE (DECAYS || MOMENTUM || ADAM || L > 1 || !SILENT)

INLINE void forward(Block *b, Layer *at, const REAL *h, const int I, const int P) {
    REAL *z = at->z;
    memcpy(z, at->w + (size_t)I * P * L, sizeof(REAL) * P * L);
    for (int i = 0; i < I; i++) {
        const REAL *w = at->w + (size_t)i * P * L, *hi = h + i * L;
        if (L == 1 && hi[0] == 0) continue;
        EACH(P, z[j] += hi[l] * w[j];)
    }
}

/* one row of weights: h is what it was read with, [L]; gradients of its outputs are b->delta, [P, L] */
INLINE void update(Block *b, Layer *at, const REAL *h, const int i, const int P) {
    REAL *w = at->w + (size_t)i * P * L;
    const REAL *delta = b->delta, *step = b->step;
    if (ADAM) {
        REAL *m = at->m + (size_t)i * P * L, *v = at->v + (size_t)i * P * L;
        const REAL *r1 = at->row[0] + (PER_UNIT ? i : 0) * L, *r2 = at->row[1] + (PER_UNIT ? i : 0) * L;
        const REAL *k1 = at->column[0], *k2 = at->column[1], gain1 = 1 - b->beta1, gain2 = 1 - b->beta2;
        EACH(P, {
            REAL g = h[l] * delta[j];
            if (DECAYS) g += b->weight_decay[l] * w[j];
            const REAL c1 = PER_UNIT && k1[j] < r1[l] ? k1[j] : r1[l], c2 = PER_UNIT && k2[j] < r2[l] ? k2[j] : r2[l];
            m[j] += gain1 * (g - m[j]);
            v[j] = b->beta2 * v[j] + gain2 * g * g;
            w[j] += m[j] * (b->descent[l] / c1) / (sqrt_(v[j] / c2) + b->eps);
        })
    } else if (MOMENTUM) {
        REAL *m = at->m + (size_t)i * P * L;
        EACH(P, {
            REAL g = b->momentum[l] * m[j] + h[l] * delta[j];
            if (DECAYS) g += b->weight_decay[l] * w[j];
            m[j] = g;
            w[j] += b->descent[l] * g;
        })
    } else {
        EACH(P, w[j] = (DECAYS ? w[j] * b->shrink[l] : w[j]) + h[l] * step[j];)
    }
}

/* |w| of row i, added up by the unit that is read (out, of the layer before) and by the units that are made */
INLINE void sums(const Layer *at, REAL *out, REAL *incoming, const int i, const int P) {
    const REAL *w = at->w + (size_t)i * P * L;
    if (L == 1) {
        REAL s = 0;
        SUM(s)
        for (int j = 0; j < P; j++) s += abs_(w[j]);
        if (out) out[i] = s;
        if (incoming) {
            SIMD
            for (int j = 0; j < P; j++) incoming[j] += abs_(w[j]);
        }
        return;
    }
    for (int l = 0; out && l < L; l++) out[i * L + l] = 0;
    for (int o = 0; o < P; o++) {
        SIMD
        for (int l = 0; l < L; l++) {
            REAL a = abs_(w[o * L + l]);
            if (out) out[i * L + l] += a;
            if (incoming) incoming[o * L + l] += a;
        }
    }
}

INLINE void sparse_row(Block *b, Layer *at, REAL h, REAL *out, const int made, const int i, const int P) {
    REAL *w = at->w + (size_t)i * P, s = 0;
    if (!(FOLLOWS == 1 && NEEDS_SUMS)) {
        SIMD
        for (int j = 0; j < P; j++) w[j] += h * b->step[j];
        return;
    }
    SUM(s)
    for (int j = 0; j < P; j++) {
        REAL old = w[j], new = old + h * b->step[j];
        w[j] = new;
        s += abs_(new);
        if (made) b->change[j] += abs_(new) - abs_(old);
    }
    if (out) out[i] = s;
}

/* dL/d input of one row, [L] */
INLINE void read_back(Block *b, const Layer *at, REAL *d, const int i, const int P) {
    const REAL *w = at->w + (size_t)i * P * L, *delta = b->delta;
    if (L == 1) {
        REAL s = 0;
        SUM(s)
        for (int j = 0; j < P; j++) s += w[j] * delta[j];
        d[0] = s;
        return;
    }
    REAL s[L];
    for (int l = 0; l < L; l++) s[l] = 0;
    for (int o = 0; o < P; o++) {
        SIMD
        for (int l = 0; l < L; l++) s[l] += w[o * L + l] * delta[o * L + l];
    }
    for (int l = 0; l < L; l++) d[l] = s[l];
}

INLINE void correct(Block *b, Layer *at, const int I, const int P) {
    for (int which = 0; which < 2; which++) {
        const REAL gain = 1 - (which ? b->beta2 : b->beta1);
        REAL *row = at->row[which], *column = at->column[which];
        SIMD
        for (int j = 0; j < (I + 1) * L; j++) row[j] += (1 - row[j]) * gain;
        SIMD
        for (int j = 0; j < P * L; j++) column[j] += (1 - column[j]) * gain;
    }
}

/* gradients of this layer's outputs are in at->delta; leaves those of the layer before there */
INLINE void backward(Block *b, Layer *at, Layer *before, const REAL *h, const int I, const int O, const int P,
                     const int made) {
    static const REAL one[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const int summed = FOLLOWS == 1 && NEEDS_SUMS;
    REAL *out = before ? before->out : 0, *incoming = made ? at->incoming : 0;
    memcpy(b->delta, at->delta, sizeof(REAL) * P * L);
    EACH(P, b->step[j] = b->delta[j] * b->descent[l];)
    if (ADAM) correct(b, at, I, P);
    if (summed && incoming && DENSE) memset(incoming, 0, sizeof(REAL) * P * L);
    if (summed && made && !DENSE) memset(b->change, 0, sizeof(REAL) * P);
    for (int i = 0; i < I; i++) {
        REAL d[L];
        if (!DENSE) {
            if (h[i] == 0) {
                if (before) before->delta[i] = 0;
                continue;
            }
            if (before) read_back(b, at, d, i, P);
            sparse_row(b, at, h[i], out, made, i, P);
        } else {
            if (before) read_back(b, at, d, i, P);
            update(b, at, h + i * L, i, P);
            if (summed && (out || incoming)) sums(at, out, incoming, i, P);
        }
        if (!before) continue;
        SIMD
        for (int l = 0; l < L; l++) {
            before->sensitivity[i * L + l] = d[l];
            before->delta[i * L + l] = DACT(d[l], before->z[i * L + l], before->h[i * L + l]);
        }
    }
    update(b, at, one, I, P);
    if (summed && made && !DENSE) {
        for (int j = 0; j < O; j++) {
            at->total[j] += b->change[j];
            incoming[j] = (REAL)at->total[j];
        }
    }
}

INLINE void follow(Block *b, Layer *at, const int width) {
    const REAL *h_ = at->h;
    if (FOLLOWS == 2) {
        SIMD
        for (int j = 0; j < width * L; j++) at->worth[j] += abs_(h_[j]);
        return;
    }
    const REAL gain = 1 - b->decay;
    SIMD
    for (int j = 0; j < width * L; j++) {
        const REAL h = h_[j];
        at->mean[j] += gain * (h - at->mean[j]);
        at->seen[j] = at->seen[j] * b->decay + gain;
        const REAL activity = abs_(h), deviation = abs_(h - at->mean[j] / at->seen[j]);
        const REAL sensitivity = abs_(h * at->sensitivity[j]), out = at->out[j], incoming = at->incoming[j];
        (void)activity, (void)deviation, (void)sensitivity, (void)out, (void)incoming;
        REAL score = SCORE;
        score = score - score == 0 ? score : 0;  /* broken scores count as 0 */
        at->worth[j] += gain * (score - at->worth[j]);
    }
}

INLINE void loss_gradient(const REAL *z, const REAL *target, REAL *delta, const int P) {
    memset(delta, 0, sizeof(REAL) * P * L);
    if (!CROSS_ENTROPY) {
        SIMD
        for (int j = 0; j < OUTPUTS * L; j++) delta[j] = (z[j] - target[j]) * (REAL)(2.0 / OUTPUTS);
        return;
    }
    REAL most[L], total[L];
    for (int l = 0; l < L; l++) most[l] = z[l], total[l] = 0;
    for (int o = 1; o < OUTPUTS; o++)
        for (int l = 0; l < L; l++) most[l] = z[o * L + l] > most[l] ? z[o * L + l] : most[l];
    EACH(OUTPUTS, delta[j] = exp_(z[j] - most[l]);)
    for (int o = 0; o < OUTPUTS; o++)
        for (int l = 0; l < L; l++) total[l] += delta[o * L + l];
    EACH(OUTPUTS, delta[j] = delta[j] / total[l] - target[j];)
}

/* ---- between the caller's tensors [runs, ...] and a block [..., L] */

INLINE void lay(REAL *local, REAL *tensor, const int64_t *stride, int64_t run, int lanes, int I, int P, int back) {
    for (int l = 0; l < lanes; l++)
        for (int i = 0; i < I; i++) {
            REAL *there = tensor + (run + l) * stride[0] + i * stride[1];
            REAL *here = local + (size_t)i * P * L + l;
            if (back)
                for (int o = 0; o < P; o++) there[o * stride[2]] = here[o * L];
            else
                for (int o = 0; o < P; o++) here[o * L] = there[o * stride[2]];
        }
}

/* Where the block works on a tensor: in place (L = 1, rows as they lie), or on a copy. */
static REAL *borrow(REAL *tensor, const int64_t *stride, int64_t run, int lanes, int I, int P) {
    if (!tensor) return 0;
    if (L == 1) return tensor + run * stride[0];
    REAL *local = aligned_alloc(64, (sizeof(REAL) * I * P * L + 63) / 64 * 64);
    memset(local, 0, sizeof(REAL) * I * P * L);
    lay(local, tensor, stride, run, lanes, I, P, 0);
    return local;
}
static void give_back(REAL *local, REAL *tensor, const int64_t *stride, int64_t run, int lanes, int I, int P) {
    if (!tensor || L == 1) return;
    lay(local, tensor, stride, run, lanes, I, P, 1);
    free(local);
}

/* F(what, tensor, stride, inputs, pitch) for everything a layer keeps */
#define KEPT(F, k, I, O, P)                                                                                   \
    F(b->layer[k].w, job->weights[k], job->strides[k], (I) + 1, P)                                            \
    F(b->layer[k].m, job->first_moments[k], job->strides[k], (I) + 1, P)                                      \
    F(b->layer[k].v, job->second_moments[k], job->strides[k], (I) + 1, P)                                     \
    F(b->layer[k].row[0], job->rows[k][0], ((int64_t[]){(I) + 1, 1, 1}), (I) + 1, 1)                          \
    F(b->layer[k].row[1], job->rows[k][1], ((int64_t[]){(I) + 1, 1, 1}), (I) + 1, 1)                          \
    F(b->layer[k].column[0], job->columns[k][0], ((int64_t[]){P, 1, 1}), P, 1)                                \
    F(b->layer[k].column[1], job->columns[k][1], ((int64_t[]){P, 1, 1}), P, 1)                                \
    F(b->layer[k].worth, job->worth[k], ((int64_t[]){O, 1, 1}), O, 1)                                         \
    F(b->layer[k].mean, job->mean[k], ((int64_t[]){O, 1, 1}), O, 1)                                           \
    F(b->layer[k].seen, job->seen[k], ((int64_t[]){O, 1, 1}), O, 1)

static void run_block(const Job *job, Block *b, int64_t run, int lanes) {
#define BORROW(what, tensor, stride, I, P) what = borrow(tensor, stride, run, lanes, I, P);
#define BORROW_LAYER(k, I, O, P) KEPT(BORROW, k, I, O, P)
    LAYERS(BORROW_LAYER)
    for (int l = 0; l < L; l++) {
        const int64_t r = run + (l < lanes ? l : 0);
        b->descent[l] = job->descent[r], b->shrink[l] = job->shrink[r];
        b->weight_decay[l] = job->weight_decay[r], b->momentum[l] = job->momentum ? job->momentum[r] : 0;
    }
    b->decay = job->decay, b->beta1 = job->beta1, b->beta2 = job->beta2, b->eps = job->eps;
    if (FOLLOWS == 1 && NEEDS_SUMS && !DENSE) {
        /* rows that no step touches keep these sums; they are taken anew in every call */
#define FRESH_SUMS(k, I, O, P)                                                                                \
    memset(b->layer[k].incoming, 0, sizeof(REAL) * P);                                                        \
    for (int i = 0; i < I; i++) sums(&b->layer[k], k ? b->layer[k ? k - 1 : 0].out : 0, b->layer[k].incoming, i, P); \
    for (int j = 0; j < P; j++) b->layer[k].total[j] = b->layer[k].incoming[j];
        LAYERS(FRESH_SUMS)
    }
    memset(b->x, 0, sizeof b->x);
    REAL target[OUTPUTS * L];
    memset(target, 0, sizeof target);
    for (int64_t s = 0; s < job->steps; s++) {
        const int64_t place = s * job->runs + run;
        const REAL *x = job->x + place * INPUTS, *y = job->targets + place * OUTPUTS;
        if (L > 1) {
            for (int l = 0; l < lanes; l++)
                for (int i = 0; i < INPUTS; i++) b->x[i * L + l] = x[l * INPUTS + i];
            for (int l = 0; l < lanes; l++)
                for (int o = 0; o < OUTPUTS; o++) target[o * L + l] = y[l * OUTPUTS + o];
            x = b->x, y = target;
        }
        const REAL *h = x;
#define FORWARD(k, I, O, P)                                                                                   \
    forward(b, &b->layer[k], h, I, P);                                                                        \
    if (k < DEPTH - 1) {                                                                                      \
        SIMD                                                                                                  \
        for (int j = 0; j < O * L; j++) b->layer[k].h[j] = ACT(b->layer[k].z[j]);                             \
    }                                                                                                         \
    h = b->layer[k].h;
        LAYERS(FORWARD)
        const REAL *z = b->layer[DEPTH - 1].z;
        REAL *output = job->outputs + place * OUTPUTS;
        for (int l = 0; l < lanes; l++)
            for (int o = 0; o < OUTPUTS; o++) output[l * OUTPUTS + o] = z[o * L + l];
        loss_gradient(z, y, b->layer[DEPTH - 1].delta, LAST_PITCH);
#define BACKWARD(k, I, O, P)                                                                                  \
    backward(b, &b->layer[k], k ? &b->layer[k ? k - 1 : 0] : 0, k ? b->layer[k ? k - 1 : 0].h : x, I, O, P,   \
             k < DEPTH - 1);
        LAYERS_BACK(BACKWARD)
#define FOLLOW(k, I, O, P)                                                                                    \
    if (FOLLOWS && k < DEPTH - 1) follow(b, &b->layer[k], O);
        LAYERS(FOLLOW)
    }
#define GIVE_BACK(what, tensor, stride, I, P) give_back(what, tensor, stride, run, lanes, I, P);
#define GIVE_BACK_LAYER(k, I, O, P) KEPT(GIVE_BACK, k, I, O, P)
    LAYERS(GIVE_BACK_LAYER)
}

/* 0, or 1 if there was no memory */
int learn(const Job *job) {
    Block *block = aligned_alloc(64, (sizeof(Block) + 63) / 64 * 64);
    if (!block) return 1;
    memset(block, 0, sizeof *block);  /* the padding of every row stays 0 */
    for (int64_t run = job->first; run < job->last; run += L)
        run_block(job, block, run, job->last - run < L ? (int)(job->last - run) : L);
    free(block);
    return 0;
}
