/* Many steps of many networks, one example a step: forward, backward, update and surgery's running means.
 *
 * native.py puts the shape and the method in front of this text as macros and compiles it:
 *
 *   REAL            float or double
 *   VECTOR          bytes of the machine's vectors: compilers take larger ones apart, badly where they compare
 *   LANES           runs side by side in one vector (narrow networks), or 1 (wide ones: vectors run along the outputs)
 *   DEPTH           linear layers
 *   LAYERS(F)       F(number, inputs, outputs, pitch) for each, first to last; a row of weights has `pitch` entries
 *   LAYERS_BACK(F)  the same, last to first
 *   WIDEST, INPUTS, OUTPUTS                  largest width of all, and widths of the ends
 *   CROSS_ENTROPY   1, or 0 for squared error
 *   ACT(z), DACT(d, z, h)     activation and its derivative: dL/dz from dL/dh
 *   SILENT          1 if h = 0 makes DACT 0 (ReLU): rows that were read with 0 are neither read back nor written
 *   DECAYS, MOMENTUM, ADAM, PER_UNIT         0 or 1 each, as in optimizers.py
 *   FOLLOWS         0: nothing, 1: utility of continual backprop, 2: ReDo's sums of |h| and h
 *   SCORE           the utility, of: activity, deviation, sensitivity, out, incoming
 *   SUMS            1 if SCORE reads out or incoming
 *
 * All arithmetic is on vectors: the same unit of many runs, or many units of one run. It is the same for every lane, so a run's numbers do not depend on its neighbours. A step reads a row of weights once forward and once
 * backward, where it is updated and its |w| are summed as well.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define L LANES
#define ENTRIES ((int)(VECTOR / sizeof(REAL))) /* of a vector; LANES is this or 1 */
#define VECTORS(n) (L == 1 ? ((n) + ENTRIES - 1) / ENTRIES : (n))
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

typedef REAL V __attribute__((vector_size(VECTOR), aligned(8), may_alias));
typedef int32_t I32 __attribute__((vector_size(VECTOR), aligned(4), may_alias));
typedef int64_t I64 __attribute__((vector_size(VECTOR), aligned(8), may_alias));

typedef struct {
    int64_t steps, runs, first, last;  /* of the stack; this call does runs first to last - 1 */
    const REAL *x, *targets;           /* [steps, runs, INPUTS], [steps, runs, OUTPUTS] */
    REAL *outputs;                     /* [steps, runs, OUTPUTS] */
    REAL *weights[DEPTH], *first_moments[DEPTH], *second_moments[DEPTH];
    int64_t strides[DEPTH][3];         /* of weights and moments alike, entries: run, input, output */
    int64_t padded[DEPTH];             /* outputs of a run's columns, which may be more than `pitch` */
    REAL *rows[DEPTH][2], *columns[DEPTH][2];        /* Adam's corrections, [runs, inputs + 1] and [runs, padded] */
    REAL *worth[DEPTH], *mean[DEPTH], *seen[DEPTH];  /* of hidden layers, [runs, width]; ReDo: sums */
    const REAL *descent, *shrink, *weight_decay, *momentum;  /* [runs] */
    REAL decay, beta1, beta2, eps;
} Job;

/* ---- functions of vectors */

INLINE V all(REAL z) { return z - (V){0}; }
INLINE V choose(I64 mask, V a, V b) { return (V)(((I64)a & mask) | ((I64)b & ~mask)); }
/* where the condition holds a, else b; vectors or numbers */
#define PICK(condition, a, b) choose((I64)(condition), (a) - (V){0}, (b) - (V){0})
INLINE V abs_(V z) { return choose((I64)(z < 0), -z, z); }
INLINE V sqrt_(V z) {
    for (int e = 0; e < ENTRIES; e++) z[e] = sizeof(REAL) == 4 ? sqrtf(z[e]) : sqrt(z[e]);
    return z;
}
INLINE REAL total_of(V z) {
    REAL part[ENTRIES];
    memcpy(part, &z, sizeof part);
    for (int half = ENTRIES / 2; half; half /= 2)
        for (int e = 0; e < half; e++) part[e] += part[e + half];
    return part[0];
}
INLINE V exp_(V z) {
    if (sizeof(REAL) == 8) {
        for (int e = 0; e < ENTRIES; e++) z[e] = exp(z[e]);
        return z;
    }
    z = PICK(z > 88, 88, z);
    z = PICK(z < -87, -87, z);
    V n = (z * (REAL)1.44269504 + (REAL)12582912.0) - (REAL)12582912.0; /* rounded to a whole number */
    V r = (z - n * (REAL)0.693359375) + n * (REAL)2.12194440e-4;
    V p = all((REAL)1.9875691500e-4);
    p = p * r + (REAL)1.3981999507e-3;
    p = p * r + (REAL)8.3334519073e-3;
    p = p * r + (REAL)4.1665795894e-2;
    p = p * r + (REAL)1.6666665459e-1;
    p = p * r + (REAL)5.0000001201e-1;
    p = p * r * r + r + 1;
    I32 power;
    for (int e = 0; e < ENTRIES; e++) power[e] = ((int32_t)n[e] + 127) << 23;
    return p * (V)power;
}
INLINE V tanh_(V z) {
    if (sizeof(REAL) == 8) {
        for (int e = 0; e < ENTRIES; e++) z[e] = tanh(z[e]);
        return z;
    }
    V a = abs_(z), e = exp_(-2 * a), q = z * z, large = (1 - e) / (1 + e);
    V p = all((REAL)-5.70498872745e-3); /* 1 - e cancels near 0 */
    p = p * q + (REAL)2.06390887954e-2;
    p = p * q - (REAL)5.37397155531e-2;
    p = p * q + (REAL)1.33314422036e-1;
    p = p * q - (REAL)3.33332819422e-1;
    return PICK(a < (REAL)0.625, p * q * z + z, PICK(z < 0, -large, large));
}
INLINE V sigmoid_(V z) { return 1 / (1 + exp_(-z)); }
INLINE V expm1_(V z) { /* of z <= 0; others give 0 */
    V half = tanh_(PICK(z > 0, 0, z) / 2);
    return 2 * half / (1 - half);
}

/* ---- what one block of LANES runs keeps while it takes its steps; widths in vectors */

#define WIDTH VECTORS(WIDEST)

typedef struct {
    V z[WIDTH], h[WIDTH], delta[WIDTH], sensitivity[WIDTH];
    V out[WIDTH], incoming[WIDTH];  /* sums of |w| by which the units are read and made */
    V row[2][VECTORS(WIDEST + 1)], column[2][WIDTH], worth[WIDTH], mean[WIDTH], seen[WIDTH];
    double made[WIDTH * ENTRIES];       /* `incoming` where rows are passed over: only changes are added */
    int32_t which[WIDEST + 1], awake;   /* inputs that are not 0 */
    REAL *w, *m, *v;
} Layer;

typedef struct {
    Layer layer[DEPTH];
    V x[VECTORS(INPUTS)], target[VECTORS(OUTPUTS)], delta[WIDTH], step[WIDTH], change[WIDTH];
    V descent, shrink, weight_decay, momentum;
    REAL decay, beta1, beta2, eps;
} Block;

#define DENSE (DECAYS || MOMENTUM || ADAM || L > 1 || !SILENT)
#define ROW(base, i, P) ((V *)((base) + (size_t)(i) * (P) * L))
/* a unit's entry for every lane */
#define UNIT(values, i) (L == 1 ? all(((const REAL *)(values))[i]) : ((const V *)(values))[i])

/* Inputs that are not 0, without a branch: one on random zeros costs more than it spares. */
INLINE int awake(const REAL *h, int32_t *which, const int I) {
    int n = 0;
    for (int i = 0; i < I; i++) {
        which[n] = i;
        n += h[i] != 0;
    }
    return n;
}

INLINE void forward(Layer *at, const void *h, const int I, const int P) {
    const int width = VECTORS(P), n = L == 1 ? (at->awake = awake(h, at->which, I)) : I;
    /* A local array the compiler may keep in registers; longer rows do not fit beside the four that are read. */
    V kept[width <= 10 ? width : 1], *z = width <= 10 ? kept : at->z;
    memcpy(z, ROW(at->w, I, P), sizeof(V) * width);
    int k = 0;
#define INPUT(k) (L == 1 ? at->which[k] : (k))
    /* Four inputs at once: z is read and written once for all of them, and their products do not wait for each other. */
    for (; k + 4 <= n; k += 4) {
        const V *w0 = ROW(at->w, INPUT(k), P), *w1 = ROW(at->w, INPUT(k + 1), P);
        const V *w2 = ROW(at->w, INPUT(k + 2), P), *w3 = ROW(at->w, INPUT(k + 3), P);
        const V h0 = UNIT(h, INPUT(k)), h1 = UNIT(h, INPUT(k + 1));
        const V h2 = UNIT(h, INPUT(k + 2)), h3 = UNIT(h, INPUT(k + 3));
        UNROLL
        for (int j = 0; j < width; j++) z[j] += (h0 * w0[j] + h1 * w1[j]) + (h2 * w2[j] + h3 * w3[j]);
    }
    for (; k < n; k++) {
        const V *w = ROW(at->w, INPUT(k), P), here = UNIT(h, INPUT(k));
        UNROLL
        for (int j = 0; j < width; j++) z[j] += here * w[j];
    }
    if (width <= 10) memcpy(at->z, z, sizeof(V) * width);
}

/* One row of weights, read with h: how the loss depends on h, the update, and the sums of |w| if asked for. */
INLINE V row(Block *b, Layer *at, const V h, const int i, const int P, const int back, V *out, V *made) {
    V *w = ROW(at->w, i, P), *m = ADAM || MOMENTUM ? ROW(at->m, i, P) : 0, *v = ADAM ? ROW(at->v, i, P) : 0;
    const V r1 = UNIT(at->row[0], PER_UNIT ? i : 0), r2 = UNIT(at->row[1], PER_UNIT ? i : 0);
    V back_sum = all(0), out_sum = all(0);
    UNROLL
    for (int j = 0; j < VECTORS(P); j++) {
        const V old = w[j];
        V new = old;
        if (back) back_sum += old * b->delta[j];
        if (ADAM) {
            V g = h * b->delta[j];
            if (DECAYS) g += b->weight_decay * old;
            V c1 = r1, c2 = r2;
            if (PER_UNIT) { /* an entry is as young as its row or its column */
                const V k1 = at->column[0][j], k2 = at->column[1][j];
                c1 = PICK(k1 < r1, k1, r1), c2 = PICK(k2 < r2, k2, r2);
            }
            m[j] += (1 - b->beta1) * (g - m[j]);
            v[j] = b->beta2 * v[j] + (1 - b->beta2) * g * g;
            new += m[j] * (b->descent / c1) / (sqrt_(v[j] / c2) + b->eps);
        } else if (MOMENTUM) {
            m[j] = b->momentum * m[j] + h * b->delta[j];
            if (DECAYS) m[j] += b->weight_decay * old;
            new += b->descent * m[j];
        } else {
            if (DECAYS) new *= b->shrink;
            new += h * b->step[j];
        }
        w[j] = new;
        if (out) out_sum += abs_(new);
        if (made) made[j] += DENSE ? abs_(new) : (V)(abs_(new) - abs_(old));
    }
    if (out && L == 1) ((REAL *)out)[i] = total_of(out_sum);
    if (out && L > 1) out[i] = out_sum;
    return back_sum;
}

INLINE void correct(Block *b, Layer *at, const int I, const int P) {
    const REAL gain[2] = {1 - b->beta1, 1 - b->beta2};
    for (int which = 0; which < 2; which++) {
        for (int j = 0; j < VECTORS(I + 1); j++) at->row[which][j] += (1 - at->row[which][j]) * gain[which];
        for (int j = 0; j < VECTORS(P); j++) at->column[which][j] += (1 - at->column[which][j]) * gain[which];
    }
}

/* Gradients of this layer's outputs are in at->delta; leaves those of the layer before in before->delta. */
INLINE void backward(Block *b, Layer *at, Layer *before, const void *h, const int I, const int P, const int hidden) {
    const int sums = FOLLOWS == 1 && SUMS, width = VECTORS(P), n = DENSE ? I : at->awake;
    V *out = sums && before ? before->out : 0, *made = sums && hidden ? (DENSE ? at->incoming : b->change) : 0;
    for (int j = 0; j < width; j++) {
        b->delta[j] = at->delta[j], b->step[j] = at->delta[j] * b->descent;
        if (made) made[j] = all(0);
    }
    if (ADAM) correct(b, at, I, P);
    if (before) memset(before->delta, 0, sizeof(V) * VECTORS(I));
    for (int k = 0; k < n; k++) {
        const int i = DENSE ? k : at->which[k];
        const V d = row(b, at, UNIT(h, i), i, P, before != 0, out, made);
        if (before && L == 1) ((REAL *)before->delta)[i] = total_of(d);
        if (before && L > 1) before->delta[i] = d;
    }
    row(b, at, all(1), I, P, 0, 0, 0); /* biases */
    if (before)
        for (int j = 0; j < VECTORS(I); j++) {
            const V d = before->delta[j];
            before->sensitivity[j] = d;
            before->delta[j] = DACT(d, before->z[j], before->h[j]);
        }
    if (made && !DENSE)
        for (int e = 0; e < width * ENTRIES; e++) {
            at->made[e] += ((const REAL *)b->change)[e];
            ((REAL *)at->incoming)[e] = (REAL)at->made[e];
        }
}

INLINE void follow(Block *b, Layer *at, const int O) {
    const REAL gain = 1 - b->decay;
    for (int j = 0; j < VECTORS(O); j++) {
        const V h = at->h[j], activity = abs_(h);
        if (FOLLOWS == 2) {
            at->worth[j] += activity;
            at->mean[j] += h;
            continue;
        }
        at->mean[j] += gain * (h - at->mean[j]);
        at->seen[j] = at->seen[j] * b->decay + gain;
        const V deviation = abs_(h - at->mean[j] / at->seen[j]), sensitivity = abs_(h * at->sensitivity[j]);
        const V out = at->out[j], incoming = at->incoming[j];
        (void)deviation, (void)sensitivity, (void)out, (void)incoming;
        const V score = SCORE;
        at->worth[j] += gain * (PICK(score - score == 0, score, 0) - at->worth[j]); /* broken scores count as 0 */
    }
}

/* dL/d output into delta, whose padding stays 0 */
INLINE void loss_gradient(const V *z, const V *target, V *delta) {
    if (!CROSS_ENTROPY) {
        for (int j = 0; j < VECTORS(OUTPUTS); j++) delta[j] = (z[j] - target[j]) * (REAL)(2.0 / OUTPUTS);
    } else if (L > 1) {
        V most = z[0], sum = all(0);
        for (int o = 1; o < OUTPUTS; o++) most = PICK(z[o] > most, z[o], most);
        for (int o = 0; o < OUTPUTS; o++) sum += delta[o] = exp_(z[o] - most);
        for (int o = 0; o < OUTPUTS; o++) delta[o] = delta[o] / sum - target[o];
    } else {
        const REAL *values = (const REAL *)z;
        REAL most = values[0], sum = 0;
        for (int o = 1; o < OUTPUTS; o++) most = values[o] > most ? values[o] : most;
        for (int j = 0; j < VECTORS(OUTPUTS); j++) delta[j] = exp_(z[j] - most);
        for (int o = 0; o < OUTPUTS; o++) sum += ((const REAL *)delta)[o];
        for (int j = 0; j < VECTORS(OUTPUTS); j++) delta[j] = delta[j] / sum - target[j];
        for (int o = OUTPUTS; o < VECTORS(OUTPUTS) * ENTRIES; o++) ((REAL *)delta)[o] = 0;
    }
}

/* ---- between the caller's tensors and a block */

/* `[runs, I, P]` anywhere in memory, to or from `[I, P, LANES]` */
INLINE void lay(REAL *local, REAL *tensor, const int64_t *stride, int64_t run, int lanes, int I, int P, int back) {
    if (!tensor) return;
    for (int l = 0; l < lanes; l++)
        for (int i = 0; i < I; i++) {
            REAL *there = tensor + (run + l) * stride[0] + i * stride[1], *here = local + (size_t)i * P * L + l;
            if (back)
                for (int o = 0; o < P; o++) there[o * stride[2]] = here[o * L];
            else
                for (int o = 0; o < P; o++) here[o * L] = there[o * stride[2]];
        }
}

/* Weights and moments of one run are worked on where they lie; those of many are copied side by side. */
static REAL *borrow(REAL *tensor, const int64_t *stride, int64_t run, int lanes, int I, int P) {
    if (!tensor || L == 1) return tensor ? tensor + run * stride[0] : 0;
    const size_t size = sizeof(REAL) * I * P * L;
    REAL *local = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!local) abort(); /* some kilobytes; nothing could go on without them */
    memset(local, 0, size);
    lay(local, tensor, stride, run, lanes, I, P, 0);
    return local;
}
static void give_back(REAL *local, REAL *tensor, const int64_t *stride, int64_t run, int lanes, int I, int P) {
    if (!tensor || L == 1) return;
    lay(local, tensor, stride, run, lanes, I, P, 1);
    free(local);
}

static void run_block(const Job *job, Block *b, int64_t run, int lanes) {
    Layer *layers = b->layer;
#define PREVIOUS(k) ((k) ? &layers[(k) ? (k) - 1 : 0] : 0)
#define VECTORS_OF(k, O, I, P, back)                                                                            \
    lay((REAL *)layers[k].worth, job->worth[k], (int64_t[]){O, 1, 1}, run, lanes, O, 1, back);                  \
    lay((REAL *)layers[k].mean, job->mean[k], (int64_t[]){O, 1, 1}, run, lanes, O, 1, back);                    \
    lay((REAL *)layers[k].seen, job->seen[k], (int64_t[]){O, 1, 1}, run, lanes, O, 1, back);                    \
    for (int w = 0; w < 2; w++) {                                                                               \
        lay((REAL *)layers[k].row[w], job->rows[k][w], (int64_t[]){(I) + 1, 1, 1}, run, lanes, (I) + 1, 1, back); \
        lay((REAL *)layers[k].column[w], job->columns[k][w], (int64_t[]){job->padded[k], 1, 1}, run, lanes, P, 1, \
            back);                                                                                              \
    }
#define BORROW(k, I, O, P)                                                                                      \
    layers[k].w = borrow(job->weights[k], job->strides[k], run, lanes, (I) + 1, P);                             \
    layers[k].m = borrow(job->first_moments[k], job->strides[k], run, lanes, (I) + 1, P);                       \
    layers[k].v = borrow(job->second_moments[k], job->strides[k], run, lanes, (I) + 1, P);                      \
    VECTORS_OF(k, O, I, P, 0)
    LAYERS(BORROW)
    for (int e = 0; e < ENTRIES; e++) {
        const int64_t r = run + (L > 1 && e < lanes ? e : 0);
        b->descent[e] = job->descent[r], b->shrink[e] = job->shrink[r];
        b->weight_decay[e] = job->weight_decay[r], b->momentum[e] = job->momentum ? job->momentum[r] : 0;
    }
    if (FOLLOWS == 1 && SUMS && !DENSE) { /* rows that no step touches keep these sums; taken anew in every call */
#define FRESH(k, I, O, P)                                                                                       \
    memset(layers[k].made, 0, sizeof layers[k].made);                                                           \
    for (int i = 0; i < I; i++) {                                                                               \
        V sum = all(0);                                                                                         \
        for (int j = 0; j < VECTORS(P); j++) {                                                                  \
            const V a = abs_(ROW(layers[k].w, i, P)[j]);                                                        \
            sum += a;                                                                                           \
            for (int e = 0; e < ENTRIES; e++) layers[k].made[j * ENTRIES + e] += a[e];                          \
        }                                                                                                       \
        if (k) ((REAL *)PREVIOUS(k)->out)[i] = total_of(sum);                                                   \
    }
        LAYERS(FRESH)
    }
    for (int64_t s = 0; s < job->steps; s++) {
        const int64_t place = s * job->runs + run;
        const REAL *x = job->x + place * INPUTS, *y = job->targets + place * OUTPUTS;
        lay((REAL *)b->target, (REAL *)y, (int64_t[]){OUTPUTS, 1, 1}, 0, lanes, OUTPUTS, 1, 0);
        if (L > 1) {
            lay((REAL *)b->x, (REAL *)x, (int64_t[]){INPUTS, 1, 1}, 0, lanes, INPUTS, 1, 0);
            x = (const REAL *)b->x;
        }
        const void *h = x;
#define FORWARD(k, I, O, P)                                                                                     \
    forward(&layers[k], h, I, P);                                                                               \
    for (int j = 0; k < DEPTH - 1 && j < VECTORS(O); j++) layers[k].h[j] = ACT(layers[k].z[j]);                 \
    h = layers[k].h;
        LAYERS(FORWARD)
        Layer *last = &layers[DEPTH - 1];
        lay((REAL *)last->z, job->outputs + place * OUTPUTS, (int64_t[]){OUTPUTS, 1, 1}, 0, lanes, OUTPUTS, 1, 1);
        loss_gradient(last->z, b->target, last->delta);
#define BACKWARD(k, I, O, P)                                                                                    \
    backward(b, &layers[k], PREVIOUS(k), k ? (const void *)PREVIOUS(k)->h : x, I, P, k < DEPTH - 1);
        LAYERS_BACK(BACKWARD)
#define FOLLOW(k, I, O, P)                                                                                      \
    if (FOLLOWS && k < DEPTH - 1) follow(b, &layers[k], O);
        LAYERS(FOLLOW)
    }
#define GIVE_BACK(k, I, O, P)                                                                                   \
    give_back(layers[k].w, job->weights[k], job->strides[k], run, lanes, (I) + 1, P);                           \
    give_back(layers[k].m, job->first_moments[k], job->strides[k], run, lanes, (I) + 1, P);                     \
    give_back(layers[k].v, job->second_moments[k], job->strides[k], run, lanes, (I) + 1, P);                    \
    VECTORS_OF(k, O, I, P, 1)
    LAYERS(GIVE_BACK)
}

/* 0, or 1 if there was no memory */
int learn(const Job *job) {
    Block *block = aligned_alloc(64, (sizeof(Block) + 63) / 64 * 64);
    if (!block) return 1;
    memset(block, 0, sizeof *block); /* the padding of every row stays 0 */
    block->decay = job->decay, block->beta1 = job->beta1, block->beta2 = job->beta2, block->eps = job->eps;
    for (int64_t run = job->first; run < job->last; run += L)
        run_block(job, block, run, job->last - run < L ? (int)(job->last - run) : L);
    free(block);
    return 0;
}
