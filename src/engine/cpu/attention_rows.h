// SPDX-License-Identifier: Apache-2.0
// Attention, for one REAL: included by attention_simd.c once with float, once with double.

/* The scores of one query become its weights. s: `cols` of them, from the first key on; those that the query does not see are
 * 0 afterwards. Gives the log of their sum, −∞ if it sees none. scores: where they are wanted as `mode` says, or NULL. */
static REAL N(weigh)(const struct attention *k, const struct tensor *mask, const struct tensor *lengths,
                     int64_t b, int64_t h, int64_t i, REAL *s, int64_t cols, int mode, REAL *scores)
{
    struct span see = keys_seen(k, lengths, b, i, cols);
    if (scores && mode == 0)
        memcpy(scores, s, (size_t)cols * sizeof *s);
    if (k->softcap > 0)
        for (int64_t j = 0; j < cols; j++)
            s[j] = (REAL)(k->softcap * tanh((double)s[j] / k->softcap));
    if (scores && mode == 1)
        memcpy(scores, s, (size_t)cols * sizeof *s);
    if (mask) {
        int64_t at = b * k->mask_step[0] + h * k->mask_step[1] + i * k->mask_step[2];
        for (int64_t j = see.from; j < see.to; j++)
            s[j] += (REAL)(j >= k->mask_length ? -(double)INFINITY : mask_at(mask, at + j));
    }
    for (int64_t j = 0; j < see.from; j++)
        s[j] = -(REAL)INFINITY;
    for (int64_t j = see.to; j < cols; j++)
        s[j] = -(REAL)INFINITY;
    if (scores && mode == 2)
        memcpy(scores, s, (size_t)cols * sizeof *s);
    REAL *seen = s + see.from, max = N(rows_max)(seen, see.to - see.from), lse = -(REAL)INFINITY;
    memset(s, 0, (size_t)see.from * sizeof *s);
    memset(s + see.to, 0, (size_t)(cols - see.to) * sizeof *s);
    if (max == -(REAL)INFINITY) /* it sees none */
        memset(seen, 0, (size_t)(see.to - see.from) * sizeof *s);
    else {
        REAL sum = N(rows_exp_sum)(seen, seen, see.to - see.from, max), f = 1 / sum;
        for (int64_t j = 0; j < see.to - see.from; j++)
            seen[j] *= f;
        lse = max + (REAL)log((double)sum);
    }
    if (scores && mode == 3)
        memcpy(scores, s, (size_t)cols * sizeof *s);
    return lse;
}

/* The same weights again, from the log of their sum. */
static void N(weigh_again)(const struct attention *k, const struct tensor *mask, int64_t b, int64_t h,
                           int64_t i, REAL *s, int64_t cols, REAL lse)
{
    struct span see = keys_seen(k, NULL, b, i, cols);
    if (lse == -(REAL)INFINITY)
        see.to = see.from;
    if (mask) {
        int64_t at = b * k->mask_step[0] + h * k->mask_step[1] + i * k->mask_step[2];
        for (int64_t j = see.from; j < see.to; j++)
            s[j] += (REAL)(j >= k->mask_length ? -(double)INFINITY : mask_at(mask, at + j));
    }
    memset(s, 0, (size_t)see.from * sizeof *s);
#pragma GCC ivdep
    for (int64_t j = see.from; j < see.to; j++)
        s[j] = N(rows_exp)(s[j] - lse);
    memset(s + see.to, 0, (size_t)(cols - see.to) * sizeof *s);
}

static void N(attention)(const struct step *st, struct rank *r)
{
    const struct attention *k = st->state;
    const struct tensor *mask = input_of(st, k->mask_in);
    const struct tensor *lengths = k->packed ? NULL : input_of(st, 6);
    struct tensor *lse = output_of(st, k->packed ? 1 : 4), *qk_out = k->packed ? NULL : output_of(st, 3);
    char *scratch = r->scratch;
    REAL *s = (REAL *)(scratch + k->at_scores);
    const char *key, *value;
    caches(k, st, scratch, &key, &value);
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t h = 0; h < k->heads; h++)
            for (int64_t n = 0; n < k->n_blocks; n++) {
                const struct block *p = &k->blocks[n];
                const char *q = at_head(st->in[0], &k->q, k->size, b, h, p->from);
                const char *kh = key + place(&k->k, b, h / k->group, 0) * k->size,
                           *vh = value + place(&k->v, b, h / k->group, 0) * k->size;
                gemm_run(&p->scores, q, kh, s, NULL, scratch + k->at_gemm);
                for (int64_t i = 0; i < p->rows; i++) {
                    REAL *row = s + i * k->row_max, sum;
                    int64_t at = (b * k->heads + h) * k->length + p->from + i;
                    REAL *told = qk_out ? (REAL *)(scratch + k->at_told) : NULL;
                    sum = N(weigh)(k, mask, lengths, b, h, p->from + i, row, p->keys, k->mode, told);
                    if (lse)
                        N(rows_put)(lse, at, 1, &sum);
                    if (told)
                        N(rows_put)(qk_out, at * k->keys, k->keys, told);
                    if (k->halves)
                        floats_to(st->in[0]->type, (const float *)row, p->keys,
                                  scratch + k->at_half + (size_t)(i * k->row_max) * 2);
                }
                gemm_run(&p->values, k->halves ? (void *)(scratch + k->at_half) : s, vh,
                         at_head(st->out[0], &k->y, k->size, b, h, p->from), NULL, scratch + k->at_gemm);
            }
}

/* Sums over the queries for one head of keys or values, rows of `size` numbers, go to their place. */
static void N(sums_put)(const struct tensor *t, const struct stride *to, int64_t b, int64_t h, int64_t rows,
                        int64_t size, const REAL *v)
{
    for (int64_t j = 0; j < rows; j++)
        N(rows_put)(t, place(to, b, h, j), size, v + j * size);
}

/* dV = Pᵀ dY, dP = dY Vᵀ, dS = P (dP − Σ dY y), dQ = dS K, dK = dSᵀ Q: the scores of a block of queries at a time, so that memory
 * is linear in the length (Dao et al. 2022). */
static void N(attention_grad)(const struct step *st, struct rank *r)
{
    const struct attention *k = st->state;
    const struct tensor *mask = input_of(st, k->mask_in), *ty = st->in[k->packed ? 2 : 4], *tdy = st->in[0];
    const struct tensor *tq = st->in[1], *tk = st->in[k->packed ? 1 : 2], *tv = st->in[k->packed ? 1 : 3];
    const struct tensor *kept = st->in[k->packed ? 3 : 5];
    struct tensor *dq = st->out[0], *to_k = output_of(st, k->packed ? 0 : 1),
                  *to_v = output_of(st, k->packed ? 0 : 2);
    enum tensor_type type = st->in[1]->type;
    char *scratch = r->scratch;
    REAL *s = (REAL *)(scratch + k->at_scores), *d = (REAL *)(scratch + k->at_slopes);
    REAL *dk = (REAL *)(scratch + k->at_sums), *dv = dk + k->keys * k->q_size,
         *buf = (REAL *)(scratch + k->at_told);
    void *half_s = scratch + k->at_half, *half_d = scratch + k->at_half_d;
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t h = 0; h < k->heads; h++) {
            int64_t hk = h / k->group;
            const char *kh = at_head(tk, &k->k, k->size, b, hk, 0),
                       *vh = at_head(tv, &k->v, k->size, b, hk, 0);
            if (h % k->group == 0)
                memset(dk, 0, (size_t)(k->keys * (k->q_size + k->v_size)) * sizeof *dk);
            for (int64_t n = 0; n < k->n_blocks; n++) {
                const struct block *p = &k->blocks[n];
                const char *q = at_head(tq, &k->q, k->size, b, h, p->from),
                           *dy = at_head(tdy, &k->y, k->size, b, h, p->from);
                gemm_run(&p->scores, q, kh, s, NULL, scratch + k->at_gemm);
                gemm_run(&p->slopes, dy, vh, d, NULL, scratch + k->at_gemm);
                for (int64_t i = 0; i < p->rows; i++) {
                    REAL *row = s + i * k->row_max, *slope = d + i * k->row_max, lse, *b1 = buf,
                         *b2 = buf + k->v_size;
                    int64_t at = place(&k->y, b, h, p->from + i);
                    lse = *N(rows_get)(kept, (b * k->heads + h) * k->length + p->from + i, 1, b1);
                    N(weigh_again)(k, mask, b, h, p->from + i, row, p->keys, lse);
                    REAL dot = N(rows_dot)(N(rows_get)(ty, at, k->v_size, b1),
                                           N(rows_get)(tdy, at, k->v_size, b2), k->v_size);
                    for (int64_t j = 0; j < p->keys; j++)
                        slope[j] = row[j] * (slope[j] - dot) * (REAL)k->scale;
                    if (k->halves) {
                        floats_to(type, (const float *)row, p->keys,
                                  (char *)half_s + (size_t)(i * k->row_max) * 2);
                        floats_to(type, (const float *)slope, p->keys,
                                  (char *)half_d + (size_t)(i * k->row_max) * 2);
                    }
                }
                const void *ps = k->halves ? half_s : s, *pd = k->halves ? half_d : d;
                if (dq)
                    gemm_run(&p->dq, pd, kh, at_head(dq, &k->q, k->size, b, h, p->from), NULL,
                             scratch + k->at_gemm);
                gemm_run(&p->dk, pd, q, dk, NULL, scratch + k->at_gemm);
                gemm_run(&p->dv, ps, dy, dv, NULL, scratch + k->at_gemm);
            }
            if (h % k->group != k->group - 1)
                continue;
            if (to_k)
                N(sums_put)(to_k, &k->k, b, hk, k->keys, k->q_size, dk);
            if (to_v)
                N(sums_put)(to_v, &k->v, b, hk, k->keys, k->v_size, dv);
        }
}

/* ---- rotary positions ---- */

static void N(rotary)(const struct step *st, struct rank *r)
{
    const struct rotary *k = st->state;
    const struct tensor *x = st->in[0], *ids = input_of(st, 3);
    int64_t half = k->turned / 2;
    REAL *buf = r->scratch, *out = buf + k->size, *cb = out + k->size, *sb = cb + half;
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t t = 0; t < k->length; t++) {
            int64_t at = b * k->length + t;
            if (ids)
                at = rows_whole(ids, at);
            if (at < 0 || (at + 1) * half > st->in[1]->n) {
                r->bad_indices++;
                at = 0;
            }
            const REAL *c = N(rows_get)(st->in[1], at * half, half, cb),
                       *s = N(rows_get)(st->in[2], at * half, half, sb);
            REAL sign = k->back ? -1 : 1;
            for (int64_t h = 0; h < k->heads; h++) {
                int64_t from = place(&k->x, b, h, t);
                const REAL *v = N(rows_get)(x, from, k->size, buf);
                memcpy(out + k->turned, v + k->turned, (size_t)(k->size - k->turned) * sizeof *out);
                if (k->interleaved)
                    for (int64_t i = 0; i < half; i++) {
                        out[2 * i] = c[i] * v[2 * i] - sign * s[i] * v[2 * i + 1];
                        out[2 * i + 1] = sign * s[i] * v[2 * i] + c[i] * v[2 * i + 1];
                    }
                else
                    for (int64_t i = 0; i < half; i++) {
                        out[i] = c[i] * v[i] - sign * s[i] * v[half + i];
                        out[half + i] = sign * s[i] * v[i] + c[i] * v[half + i];
                    }
                N(rows_put)(st->out[0], from, k->size, out);
            }
        }
}
