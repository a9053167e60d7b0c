// SPDX-License-Identifier: Apache-2.0
#include "engine/stream_metrics.h"

#include "engine/metrics.h"
#include <math.h>
#include <stdlib.h>

enum {
    BINS_LOG = 18,
    BINS = 1 << BINS_LOG,
    CONFUSION_MAX = 512,
    CLASSES_MAX = 1 << 24,
    CALIBRATION = 10,
    RANKED_MAX = 1 << 20,
    POINTS_MAX = 2048
};

/* What is counted of a class. */
struct class_count {
    int64_t right, claimed, there;
};

/* Scores of two classes: kept while they are few, then counted in bins. */
struct ranks {
    float *p, *y;
    size_t n, cap, max;
    int64_t *bins[2]; /* of negatives, of positives; NULL: exact */
};

/* Rows whose key's hash is not above `most`, which sinks where there are too many. */
struct sample {
    float *p; /* width of them each */
    struct row {
        double y;
        int64_t key; /* the group; of points their number, of those of one meter */
    } * rows;
    size_t n, cap, max, width;
    uint64_t most;
};

struct meter {
    struct meter_spec spec;
    int64_t n;
    bool nan;
    double loss; /* Σ −ln p[label], or of two classes */
    double bin_p[CALIBRATION], bin_y[CALIBRATION];
    struct class_count *classes;
    int64_t *confusion, near; /* near: labels among the K greatest */
    struct ranks ranks;
    struct sample sample;
    double squares, absolutes, mean, m2; /* errors; of y: mean, Σ (y − mean)² */
};

static bool by_class(const struct meter *s)
{
    return s->spec.task == METER_CLASSES || s->spec.task == METER_TOKENS;
}

static int64_t class_count_of(const struct meter *s)
{
    return by_class(s) ? s->spec.classes : 2;
}

static void meter_free(void *arg)
{
    struct meter *s = arg;
    free(s->ranks.p);
    free(s->ranks.y);
    free(s->ranks.bins[0]);
    free(s->ranks.bins[1]);
    free(s->sample.p);
    free(s->sample.rows);
}

/* An empty one, with the room that it has. */
static struct sample sample_of(const struct meter_spec *spec, const struct sample *was)
{
    bool points = spec->task == METER_POINTS;
    return (struct sample){ .p = was->p,
                            .rows = was->rows,
                            .cap = was->cap,
                            .max = points ? POINTS_MAX : RANKED_MAX,
                            .width = points ? (size_t)spec->classes : 1,
                            .most = UINT64_MAX };
}

err meter_new(struct arena *a, const struct meter_spec *spec, struct meter **out)
{
    struct meter *s = NEW(a, struct meter);
    s->spec = *spec;
    if ((by_class(s) || spec->task == METER_POINTS) && (spec->classes < 1 || spec->classes > CLASSES_MAX))
        FAIL(INVALID, "%lld classes cannot be counted", (long long)spec->classes);
    if (!s->spec.k)
        s->spec.k = 5;
    s->ranks.max = spec->exact_max ? spec->exact_max : (size_t)1 << 22;
    s->sample = sample_of(&s->spec, &s->sample);
    int64_t classes = class_count_of(s);
    s->classes = NEW_N(a, struct class_count, classes);
    if (classes <= CONFUSION_MAX)
        s->confusion = NEW_N(a, int64_t, classes * classes);
    arena_defer(a, meter_free, s);
    *out = s;
    return NULL;
}

void meter_reset(struct meter *s)
{
    struct meter to = { .spec = s->spec, .classes = s->classes, .confusion = s->confusion };
    int64_t classes = class_count_of(s);
    memset(s->classes, 0, (size_t)classes * sizeof *s->classes);
    if (s->confusion)
        memset(s->confusion, 0, (size_t)(classes * classes) * sizeof *s->confusion);
    to.ranks = (struct ranks){ .p = s->ranks.p, .y = s->ranks.y, .cap = s->ranks.cap, .max = s->ranks.max };
    free(s->ranks.bins[0]);
    free(s->ranks.bins[1]);
    to.sample = sample_of(&s->spec, &s->sample);
    *s = to;
}

/* ---- scores, kept or in bins ---- */

static int bin_of(float p)
{
    uint32_t bits;
    p += 0.0f; /* −0 is 0 */
    memcpy(&bits, &p, 4);
    return (int)((bits ^ (bits >> 31 ? UINT32_MAX : (uint32_t)1 << 31)) >> (32 - BINS_LOG));
}

static void *room(void *p, size_t n)
{
    p = realloc(p, n);
    if (!p)
        abort(); /* as an arena does */
    return p;
}

static void ranks_bin(struct ranks *r)
{
    for (int k = 0; k < 2; k++) {
        r->bins[k] = room(NULL, BINS * sizeof **r->bins);
        memset(r->bins[k], 0, BINS * sizeof **r->bins);
    }
    for (size_t i = 0; i < r->n; i++)
        r->bins[r->y[i] > 0.5f][bin_of(r->p[i])]++;
    free(r->p);
    free(r->y);
    r->p = r->y = NULL;
    r->n = r->cap = 0;
}

static void ranks_add(struct ranks *r, float p, float y)
{
    if (!r->bins[0] && r->n == r->max)
        ranks_bin(r);
    if (r->bins[0]) {
        r->bins[y > 0.5f][bin_of(p)]++;
        return;
    }
    if (r->n == r->cap) {
        r->cap = r->cap ? r->cap * 2 : 1024;
        r->cap = r->cap > r->max ? r->max : r->cap;
        r->p = room(r->p, r->cap * sizeof *r->p);
        r->y = room(r->y, r->cap * sizeof *r->y);
    }
    r->p[r->n] = p;
    r->y[r->n++] = y;
}

static void ranks_merge(struct ranks *to, const struct ranks *from)
{
    for (size_t i = 0; i < from->n; i++)
        ranks_add(to, from->p[i], from->y[i]);
    if (!from->bins[0])
        return;
    if (!to->bins[0])
        ranks_bin(to);
    for (int k = 0; k < 2; k++)
        for (int b = 0; b < BINS; b++)
            to->bins[k][b] += from->bins[k][b];
}

static void ranks_sums(const struct ranks *r, double *negatives, double *positives)
{
    *negatives = *positives = 0;
    for (int b = 0; b < BINS; b++) {
        *negatives += (double)r->bins[0][b];
        *positives += (double)r->bins[1][b];
    }
}

static double ranks_auc(const struct ranks *r, double *error)
{
    double negatives, positives, below = 0, wins = 0, ties = 0;
    ranks_sums(r, &negatives, &positives);
    for (int b = 0; b < BINS; b++) {
        double neg = (double)r->bins[0][b], pos = (double)r->bins[1][b];
        wins += pos * (below + neg / 2);
        ties += pos * neg;
        below += neg;
    }
    *error = ties / 2 / (negatives * positives);
    return negatives > 0 && positives > 0 ? wins / (negatives * positives) : NAN;
}

/* Σ over a bin's positives of the precision at each, if `ahead` rows with `hits` positives stand above the bin and `before` of
 * its negatives before them: none at best, all at worst. */
static double bin_precision(double hits, double ahead, double before, double pos)
{
    double sum = 0, from = ahead + before;
    if (pos <= 64) {
        for (double k = 1; k <= pos; k++)
            sum += (hits + k) / (from + k);
        return sum;
    }
    /* (hits + k) / (from + k) = 1 − (from − hits) / (from + k); Σ 1 / (from + k) by Euler and Maclaurin. */
    double low = from + 0.5, high = from + pos + 0.5;
    return pos - (from - hits) * (log(high / low) + (1 / (high * high) - 1 / (low * low)) / 24);
}

static double ranks_precision(const struct ranks *r, double *error)
{
    double negatives, positives, hits = 0, ahead = 0, tied = 0, best = 0, worst = 0;
    ranks_sums(r, &negatives, &positives);
    for (int b = BINS - 1; b >= 0; b--) {
        double neg = (double)r->bins[0][b], pos = (double)r->bins[1][b];
        if (pos > 0) {
            tied += pos * (hits + pos) / (ahead + pos + neg);
            best += bin_precision(hits, ahead, 0, pos);
            worst += bin_precision(hits, ahead, neg, pos);
        }
        hits += pos;
        ahead += pos + neg;
    }
    *error = (best - tied > tied - worst ? best - tied : tied - worst) / positives;
    return positives > 0 ? tied / positives : NAN;
}

/* ---- rows, kept ---- */

static uint64_t spread(int64_t key)
{
    uint64_t state = (uint64_t)key;
    return splitmix(&state);
}

/* Those above leave. */
static void sample_sink(struct sample *s, uint64_t most)
{
    size_t n = 0;
    s->most = most;
    for (size_t i = 0; i < s->n; i++)
        if (spread(s->rows[i].key) <= most) {
            s->rows[n] = s->rows[i];
            memmove(s->p + n++ * s->width, s->p + i * s->width, s->width * sizeof *s->p);
        }
    s->n = n;
}

static void sample_add(struct sample *s, const float *p, double y, int64_t key)
{
    while (s->n == s->max && s->most) /* about half of the keys */
        sample_sink(s, s->most >> 1);
    if (spread(key) > s->most || s->n == s->max)
        return;
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 256;
        s->cap = s->cap > s->max ? s->max : s->cap;
        s->p = room(s->p, s->cap * s->width * sizeof *s->p);
        s->rows = room(s->rows, s->cap * sizeof *s->rows);
    }
    memcpy(s->p + s->n * s->width, p, s->width * sizeof *p);
    s->rows[s->n++] = (struct row){ y, key };
}

static void sample_merge(struct sample *to, const struct sample *from)
{
    if (from->most < to->most)
        sample_sink(to, from->most);
    for (size_t i = 0; i < from->n; i++)
        sample_add(to, from->p + i * from->width, from->rows[i].y, from->rows[i].key);
}

/* ---- adding ---- */

static int calibration_bin(double p)
{
    double place = ceil(p * CALIBRATION) - 1;
    return place < 0 ? 0 : place > CALIBRATION - 1 ? CALIBRATION - 1 : (int)place;
}

static void class_add(struct meter *s, int64_t label, int64_t claim)
{
    s->classes[label].there++;
    s->classes[claim].claimed++;
    s->classes[label].right += label == claim;
    if (s->confusion)
        s->confusion[label * class_count_of(s) + claim]++;
}

static err binary_add(struct meter *s, float p, float y, size_t row)
{
    const double least = 1e-7;
    double q = (double)p;
    if (y != 0 && y != 1)
        FAIL(INVALID, "label %g in row %zu is neither 0 nor 1", (double)y, row);
    s->nan |= isnan(p);
    if (isnan(p))
        return NULL;
    if (s->spec.logits) /* of ln(1 + e^x) the part that does not overflow */
        s->loss += log1p(exp(-fabs(q))) + (y == 1 ? fmax(-q, 0) : fmax(q, 0));
    q = s->spec.logits ? 1 / (1 + exp(-q)) : q;
    double clipped = q < least ? least : q > 1 - least ? 1 - least : q;
    if (!s->spec.logits)
        s->loss -= y == 1 ? log(clipped) : log1p(-clipped);
    int bin = calibration_bin(q);
    s->bin_p[bin] += q;
    s->bin_y[bin] += (double)y;
    s->squares += (q - (double)y) * (q - (double)y);
    class_add(s, y == 1, s->spec.logits ? p >= 0 : p >= 0.5f);
    ranks_add(&s->ranks, p, y);
    s->n++;
    return NULL;
}

static err classes_add(struct meter *s, const float *p, int64_t label, size_t row)
{
    int64_t n = s->spec.classes, best = 0, above = 0;
    if (label < 0 && s->spec.task == METER_TOKENS)
        return NULL;
    if (label < 0 || label >= n)
        FAIL(INVALID, "label %lld in row %zu is not among %lld classes", (long long)label, row, (long long)n);
    float own = p[label];
    bool nan = false;
    for (int64_t i = 0; i < n; i++) {
        best = p[i] > p[best] ? i : best;
        above += p[i] > own || (p[i] == own && i < label);
        nan |= isnan(p[i]);
    }
    double top = (double)p[best], loss;
    if (s->spec.logits || s->spec.task == METER_TOKENS) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++)
            sum += exp((double)p[i] - (double)p[best]);
        nan |= isnan(sum);
        loss = log(sum) + (double)p[best] - (double)own;
        top = 1 / sum;
    } else {
        loss = -log(own < 1e-7f ? 1e-7 : (double)own);
    }
    s->nan |= nan;
    if (nan)
        return NULL;
    s->loss += loss;
    int bin = calibration_bin(top);
    s->bin_p[bin] += top;
    s->bin_y[bin] += best == label;
    s->near += above < s->spec.k;
    class_add(s, label, best);
    s->n++;
    return NULL;
}

static void number_add(struct meter *s, float p, float y)
{
    double e = (double)p - (double)y, d = (double)y - s->mean;
    s->nan |= isnan(e);
    s->squares += e * e;
    s->absolutes += fabs(e);
    s->n++;
    s->mean += d / (double)s->n;
    s->m2 += d * ((double)y - s->mean);
}

static void ranked_add(struct meter *s, const float *p, const struct meter_ranked *y)
{
    s->nan |= isnan(*p) || isnan(y->relevance);
    sample_add(&s->sample, p, (double)y->relevance, y->group);
    s->n++;
}

static void point_add(struct meter *s, const float *p, int64_t label)
{
    for (int64_t i = 0; i < s->spec.classes; i++)
        s->nan |= isnan(p[i]);
    sample_add(&s->sample, p, (double)label, s->n++);
}

err meter_add(struct meter *s, const float *p, const void *y, size_t rows)
{
    for (size_t i = 0; i < rows; i++)
        if (s->spec.task == METER_NUMBERS)
            number_add(s, p[i], ((const float *)y)[i]);
        else if (s->spec.task == METER_BINARY)
            TRY(binary_add(s, p[i], ((const float *)y)[i], i));
        else if (s->spec.task == METER_RANKING)
            ranked_add(s, p + i, (const struct meter_ranked *)y + i);
        else if (s->spec.task == METER_POINTS)
            point_add(s, p + i * (size_t)s->spec.classes, ((const int64_t *)y)[i]);
        else
            TRY(classes_add(s, p + i * (size_t)s->spec.classes, ((const int64_t *)y)[i], i));
    return NULL;
}

void meter_merge(struct meter *to, const struct meter *from)
{
    int64_t classes = class_count_of(to);
    double n = (double)(to->n + from->n), d = from->mean - to->mean;
    if (from->n) { /* Chan, Golub & LeVeque 1979 */
        to->m2 += from->m2 + d * d * (double)to->n * (double)from->n / n;
        to->mean += d * (double)from->n / n;
    }
    to->n += from->n;
    to->nan |= from->nan;
    to->loss += from->loss;
    to->squares += from->squares;
    to->absolutes += from->absolutes;
    to->near += from->near;
    for (int b = 0; b < CALIBRATION; b++) {
        to->bin_p[b] += from->bin_p[b];
        to->bin_y[b] += from->bin_y[b];
    }
    for (int64_t c = 0; c < classes; c++) {
        to->classes[c].right += from->classes[c].right;
        to->classes[c].claimed += from->classes[c].claimed;
        to->classes[c].there += from->classes[c].there;
    }
    for (int64_t c = 0; to->confusion && c < classes * classes; c++)
        to->confusion[c] += from->confusion[c];
    ranks_merge(&to->ranks, &from->ranks);
    sample_merge(&to->sample, &from->sample);
}

int64_t meter_rows(const struct meter *s)
{
    return s->n;
}

/* ---- values; rows there are, and no NaN ---- */

static double of_accuracy(const struct meter *s)
{
    int64_t right = 0;
    for (int64_t c = 0; c < class_count_of(s); c++)
        right += s->classes[c].right;
    return (double)right / (double)s->n;
}

static double of_log_loss(const struct meter *s)
{
    return s->loss / (double)s->n;
}

static double of_perplexity(const struct meter *s)
{
    return exp(s->loss / (double)s->n);
}

static double of_calibration(const struct meter *s)
{
    double error = 0;
    for (int b = 0; b < CALIBRATION; b++)
        error += fabs(s->bin_p[b] - s->bin_y[b]);
    return error / (double)s->n;
}

static double of_top_k(const struct meter *s)
{
    return (double)s->near / (double)s->n;
}

static double ratio(int64_t a, int64_t b)
{
    return b ? (double)a / (double)b : 0;
}

/* Of class 1, or the mean over the classes that come. */
static double over_classes(const struct meter *s, double (*of)(const struct class_count *))
{
    double sum = 0;
    int64_t n = 0;
    if (s->spec.task == METER_BINARY)
        return of(&s->classes[1]);
    for (int64_t c = 0; c < s->spec.classes; c++)
        if (s->classes[c].there || s->classes[c].claimed) {
            sum += of(&s->classes[c]);
            n++;
        }
    return sum / (double)n;
}

static double class_precision(const struct class_count *c)
{
    return ratio(c->right, c->claimed);
}
static double class_recall(const struct class_count *c)
{
    return ratio(c->right, c->there);
}
static double class_f1(const struct class_count *c)
{
    return ratio(2 * c->right, c->claimed + c->there);
}
static double of_precision(const struct meter *s)
{
    return over_classes(s, class_precision);
}
static double of_recall(const struct meter *s)
{
    return over_classes(s, class_recall);
}
static double of_f1(const struct meter *s)
{
    return over_classes(s, class_f1);
}

static double of_auc(const struct meter *s)
{
    auto_arena struct arena *a = arena_new(0);
    double error;
    return s->ranks.bins[0] ? ranks_auc(&s->ranks, &error)
                            : metric_auc(a, s->ranks.p, s->ranks.y, s->ranks.n);
}

static double of_average_precision(const struct meter *s)
{
    auto_arena struct arena *a = arena_new(0);
    double error;
    return s->ranks.bins[0] ? ranks_precision(&s->ranks, &error)
                            : metric_average_precision(a, s->ranks.p, s->ranks.y, s->ranks.n);
}

static double of_rmse(const struct meter *s)
{
    return sqrt(s->squares / (double)s->n);
}

static double of_mae(const struct meter *s)
{
    return s->absolutes / (double)s->n;
}

static double of_r2(const struct meter *s)
{
    return s->m2 > 0 ? 1 - s->squares / s->m2 : NAN;
}

/* ---- groups ---- */

struct ranked {
    double p, y;
    int64_t group;
    size_t place; /* by score in the group, from 1; equal ones share it */
};

static int by_score(const void *a, const void *b) /* the greatest first */
{
    const struct ranked *x = a, *y = b;
    return x->group != y->group ? (x->group > y->group) - (x->group < y->group)
                                : (x->p < y->p) - (x->p > y->p);
}

static int by_relevance(const void *a, const void *b) /* the greatest first */
{
    const struct ranked *x = a, *y = b;
    return (x->y < y->y) - (x->y > y->y);
}

/* Rows by group, and in it by score. */
static struct ranked *ranked_rows(struct arena *a, const struct sample *s)
{
    struct ranked *v = NEW_N(a, struct ranked, s->n + 1);
    for (size_t i = 0; i < s->n; i++)
        v[i] = (struct ranked){ (double)s->p[i], s->rows[i].y, s->rows[i].key, 0 };
    qsort(v, s->n, sizeof *v, by_score);
    return v;
}

static size_t group_size(const struct ranked *v, size_t n)
{
    size_t k = 1;
    while (k < n && v[k].group == v[0].group)
        k++;
    return k;
}

/* How many from v[0] have its score, or its relevance. */
static size_t tied(const struct ranked *v, size_t n, bool score)
{
    size_t k = 1;
    while (k < n && (score ? v[k].p == v[0].p : v[k].y == v[0].y))
        k++;
    return k;
}

/* How many of places 1…at are counted: a Fenwick tree. */
static double counted(const int64_t *tree, size_t at)
{
    int64_t sum = 0;
    for (; at; at &= at - 1)
        sum += tree[at];
    return (double)sum;
}

/* From the most relevant down, each row meets those above it: it is right if its place is behind theirs. tree: n + 2 zeros. */
static void pairs_count(struct ranked *v, size_t n, int64_t *tree, double *right, double *all)
{
    size_t places = 0, above = 0;
    for (size_t i = 0, k; i < n; i += k) {
        k = tied(v + i, n - i, true);
        places++;
        for (size_t e = i; e < i + k; e++)
            v[e].place = places;
    }
    qsort(v, n, sizeof *v, by_relevance);
    for (size_t i = 0, k; i < n; i += k, above = i) {
        k = tied(v + i, n - i, false);
        for (size_t e = i; e < i + k; e++) {
            double before = counted(tree, v[e].place - 1), same = counted(tree, v[e].place) - before;
            *right += before + same / 2;
            *all += (double)above;
        }
        for (size_t e = i; e < i + k; e++)
            for (size_t at = v[e].place; at <= places; at += at & -at)
                tree[at]++;
    }
}

static double of_pair_accuracy(const struct meter *s)
{
    auto_arena struct arena *a = arena_new(0);
    struct ranked *v = ranked_rows(a, &s->sample);
    int64_t *tree = NEW_N(a, int64_t, s->sample.n + 2);
    double right = 0, all = 0;
    for (size_t i = 0, k; i < s->sample.n; i += k) {
        k = group_size(v + i, s->sample.n - i);
        memset(tree, 0, (k + 2) * sizeof *tree);
        pairs_count(v + i, k, tree, &right, &all);
    }
    return all > 0 ? right / all : NAN;
}

/* Σ of what rows gain, by their order; with scores, equal ones share what their places give. */
static double gain(const struct ranked *v, size_t n, bool scores)
{
    double sum = 0;
    for (size_t i = 0, k; i < n; i += k) {
        k = scores ? tied(v + i, n - i, true) : 1;
        double y = 0, places = 0;
        for (size_t e = i; e < i + k; e++) {
            y += v[e].y;
            places += 1 / log2((double)e + 2);
        }
        sum += y * places / (double)k;
    }
    return sum;
}

static double of_ndcg(const struct meter *s)
{
    auto_arena struct arena *a = arena_new(0);
    struct ranked *v = ranked_rows(a, &s->sample);
    double sum = 0, groups = 0;
    for (size_t i = 0, k; i < s->sample.n; i += k) {
        k = group_size(v + i, s->sample.n - i);
        double got = gain(v + i, k, true), most;
        qsort(v + i, k, sizeof *v, by_relevance);
        most = gain(v + i, k, false);
        if (v[i + k - 1].y < 0)
            return NAN;
        sum += most > 0 ? got / most : 0;
        groups += most > 0;
    }
    return groups > 0 ? sum / groups : NAN;
}

/* ---- points ---- */

/* Is one of the label among the k nearest others of row i? Its squared distances are in d. */
static bool is_near(const struct sample *s, const float *d, size_t i, int64_t k)
{
    double nearest = INFINITY;
    int64_t before = 0;
    for (size_t j = 0; j < s->n; j++)
        if (j != i && s->rows[j].y == s->rows[i].y)
            nearest = fmin(nearest, (double)d[j]);
    for (size_t j = 0; j < s->n; j++)
        before += s->rows[j].y != s->rows[i].y && (double)d[j] <= nearest;
    return before < k;
}

static double recall(const struct meter *m, int64_t k)
{
    auto_arena struct arena *a = arena_new(0);
    const struct sample *s = &m->sample;
    float *columns = NEW_N(a, float, s->n * s->width + 1), *d = NEW_N(a, float, s->n + 1);
    double found = 0, rows = 0;
    for (size_t i = 0; i < s->n; i++)
        for (size_t c = 0; c < s->width; c++)
            columns[c * s->n + i] = s->p[i * s->width + c];
    for (size_t i = 0; i < s->n; i++) {
        bool again = false;
        for (size_t j = 0; j < s->n && !again; j++)
            again = j != i && s->rows[j].y == s->rows[i].y;
        if (!again)
            continue;
        memset(d, 0, s->n * sizeof *d);
        for (size_t c = 0; c < s->width; c++)
            for (size_t j = 0; j < s->n; j++) {
                float e = columns[c * s->n + j] - columns[c * s->n + i];
                d[j] += e * e;
            }
        found += is_near(s, d, i, k);
        rows++;
    }
    return rows > 0 ? found / rows : NAN;
}

static double of_recall_1(const struct meter *s)
{
    return recall(s, 1);
}
static double of_recall_5(const struct meter *s)
{
    return recall(s, 5);
}

// clang-format off
enum { LABELS = METER_BINARY | METER_CLASSES, CLASSES = LABELS | METER_TOKENS };
const struct meter_metric meter_table[] = {
    { S_INIT("auc"), METER_BINARY, true, of_auc, "Chance that a positive scores above a negative." },
    { S_INIT("averagePrecision"), METER_BINARY, true, of_average_precision, "Area under the precision-recall steps." },
    { S_INIT("logLoss"), CLASSES, false, of_log_loss, "Mean negative log-likelihood of the labels." },
    { S_INIT("perplexity"), METER_TOKENS, false, of_perplexity, "e to the mean negative log-likelihood of a token." },
    { S_INIT("accuracy"), CLASSES, true, of_accuracy, "Share of rows whose greatest score (or side of one half) is the label's." },
    { S_INIT("topK"), METER_CLASSES | METER_TOKENS, true, of_top_k, "Share of rows whose label has one of the K greatest scores." },
    { S_INIT("precision"), LABELS, true, of_precision, "Share of the rows claimed that are right; mean over classes." },
    { S_INIT("recall"), LABELS, true, of_recall, "Share of a class's rows that are found; mean over classes." },
    { S_INIT("f1"), LABELS, true, of_f1, "Harmonic mean of precision and recall; mean over classes." },
    { S_INIT("calibrationError"), LABELS, false, of_calibration, "Expected calibration error, ten equal bins." },
    { S_INIT("rmse"), METER_NUMBERS | METER_BINARY, false, of_rmse, "Root of the mean squared error; of probabilities its square is the Brier score." },
    { S_INIT("mae"), METER_NUMBERS, false, of_mae, "Mean absolute error." },
    { S_INIT("r2"), METER_NUMBERS, true, of_r2, "Share of the labels' variance that is explained." },
    { S_INIT("pairAccuracy"), METER_RANKING, true, of_pair_accuracy, "Share of a group's pairs that are in their order." },
    { S_INIT("ndcg"), METER_RANKING, true, of_ndcg, "Normalised discounted cumulative gain, mean over groups." },
    { S_INIT("recallAt1"), METER_POINTS, true, of_recall_1, "Share of rows whose nearest other is of their label." },
    { S_INIT("recallAt5"), METER_POINTS, true, of_recall_5, "Share of rows that have one of their label among the five nearest." },
};
// clang-format on
const size_t meter_table_n = sizeof meter_table / sizeof *meter_table;

const struct meter_metric *meter_find(struct str name)
{
    for (size_t i = 0; i < meter_table_n; i++)
        if (str_eq(meter_table[i].name, name))
            return &meter_table[i];
    return NULL;
}

static double value_of(const struct meter *s, const struct meter_metric *m)
{
    return m && (m->tasks & s->spec.task) && s->n && !s->nan ? m->of(s) : NAN;
}

double meter_value(const struct meter *s, struct str name)
{
    return value_of(s, meter_find(name));
}

double meter_error(const struct meter *s, struct str name)
{
    double error = 0;
    if (s->ranks.bins[0] && str_is(name, "auc"))
        ranks_auc(&s->ranks, &error);
    if (s->ranks.bins[0] && str_is(name, "averagePrecision"))
        ranks_precision(&s->ranks, &error);
    return error;
}

const int64_t *meter_confusion(const struct meter *s, int64_t *classes)
{
    *classes = class_count_of(s);
    return s->spec.task == METER_BINARY || by_class(s) ? s->confusion : NULL;
}

void meter_write(const struct meter *s, struct json *j)
{
    json_obj(j);
    for (size_t i = 0; i < meter_table_n; i++) {
        const struct meter_metric *m = &meter_table[i];
        if (!(m->tasks & s->spec.task))
            continue;
        json_key(j, m->name);
        json_f64(j, value_of(s, m));
        double error = meter_error(s, m->name);
        if (error > 0) {
            json_key(j, fmt(j->b.a, "%.*sError", STR(m->name)));
            json_f64(j, error);
        }
    }
    json_obj_end(j);
}
