// SPDX-License-Identifier: Apache-2.0
// Reference kernels of pictures for one element type: T, with names ending in NAME(x). They take any layout by strides and any
// window, and add in the order of the loops. image.c includes this text for float and double.

/* One output channel block: y[n, m, o] = bias + Σ x · w. */
static void NAME(conv)(const struct conv *v, const void *x_, const void *w_, const void *bias_, void *y_)
{
    const T *x = x_;
    const T *w = w_;
    const T *bias = bias_;
    T *y = y_;
    const struct window *q = &v->w;
    const int64_t cg = v->x.c / q->group, mg = v->y.c / q->group;
    EACH(n, v->y.n) EACH(m, v->y.c) EACH(o0, q->out[0]) EACH(o1, q->out[1]) EACH(o2, q->out[2])
    {
        T s = bias ? bias[m] : 0;
        const T *wm = w + m * cg * v->kernels;
        EACH(k0, q->kernel[0]) EACH(k1, q->kernel[1]) EACH(k2, q->kernel[2])
        {
            const int64_t i0 = PLACE(0), i1 = PLACE(1), i2 = PLACE(2);
            if (OUTSIDE)
                continue;
            const T *xp = x + AT(v->x, n, m / mg * cg, i0, i1, i2),
                    *wp = wm + (k0 * q->kernel[1] + k1) * q->kernel[2] + k2;
            EACH(c, cg) s += xp[c * v->x.sc] * wp[c * v->kernels];
        }
        y[AT(v->y, n, m, o0, o1, o2)] = s;
    }
}

/* The gradient by x, or the transposed convolution: dx = bias + what each output took, given back. */
static void NAME(conv_back)(const struct conv *v, const void *dy_, const void *w_, const void *bias_,
                            void *dx_)
{
    const T *dy = dy_;
    const T *w = w_;
    const T *bias = bias_;
    T *dx = dx_;
    const struct window *q = &v->w;
    const int64_t cg = v->x.c / q->group, mg = v->y.c / q->group;
    EACH(n, v->x.n)
    EACH(c, v->x.c)
    EACH(i0, q->in[0])
    EACH(i1, q->in[1]) EACH(i2, q->in[2]) dx[AT(v->x, n, c, i0, i1, i2)] = bias ? bias[c] : 0;
    EACH(n, v->y.n) EACH(m, v->y.c) EACH(o0, q->out[0]) EACH(o1, q->out[1]) EACH(o2, q->out[2])
    {
        const T g = dy[AT(v->y, n, m, o0, o1, o2)], *wm = w + m * cg * v->kernels;
        EACH(k0, q->kernel[0]) EACH(k1, q->kernel[1]) EACH(k2, q->kernel[2])
        {
            const int64_t i0 = PLACE(0), i1 = PLACE(1), i2 = PLACE(2);
            if (OUTSIDE)
                continue;
            T *xp = dx + AT(v->x, n, m / mg * cg, i0, i1, i2);
            const T *wp = wm + (k0 * q->kernel[1] + k1) * q->kernel[2] + k2;
            EACH(c, cg) xp[c * v->x.sc] += g * wp[c * v->kernels];
        }
    }
}

static void NAME(conv_weights)(const struct conv *v, const void *x_, const void *dy_, void *dw_)
{
    const T *x = x_;
    const T *dy = dy_;
    T *dw = dw_;
    const struct window *q = &v->w;
    const int64_t cg = v->x.c / q->group, mg = v->y.c / q->group;
    memset(dw, 0, (size_t)(v->y.c * cg * v->kernels) * sizeof *dw);
    EACH(n, v->y.n) EACH(m, v->y.c) EACH(o0, q->out[0]) EACH(o1, q->out[1]) EACH(o2, q->out[2])
    {
        const T g = dy[AT(v->y, n, m, o0, o1, o2)];
        T *wm = dw + m * cg * v->kernels;
        EACH(k0, q->kernel[0]) EACH(k1, q->kernel[1]) EACH(k2, q->kernel[2])
        {
            const int64_t i0 = PLACE(0), i1 = PLACE(1), i2 = PLACE(2);
            if (OUTSIDE)
                continue;
            const T *xp = x + AT(v->x, n, m / mg * cg, i0, i1, i2);
            T *wp = wm + (k0 * q->kernel[1] + k1) * q->kernel[2] + k2;
            EACH(c, cg) wp[c * v->kernels] += g * xp[c * v->x.sc];
        }
    }
}

static void NAME(channel_sum)(const struct picture *p, const void *x_, void *sum_)
{
    const T *x = x_;
    T *sum = sum_;
    EACH(c, p->c)
    {
        double s = 0;
        EACH(n, p->n)
        EACH(i0, p->s[0]) EACH(i1, p->s[1]) EACH(i2, p->s[2]) s += (double)x[AT(*p, n, c, i0, i1, i2)];
        sum[c] = (T)s;
    }
}

/* index: by ONNX (a place in the row-major tensor); where: by window. Either may be NULL. */
static void NAME(max_pool)(const struct conv *v, const void *x_, void *y_, int64_t *index, int32_t *where)
{
    const T *x = x_;
    T *y = y_;
    const struct window *q = &v->w;
    EACH(n, v->y.n) EACH(c, v->y.c) EACH(o0, q->out[0]) EACH(o1, q->out[1]) EACH(o2, q->out[2])
    {
        T best = 0;
        int64_t best_at = 0;
        int32_t best_k = -1, k = 0;
        EACH(k0, q->kernel[0]) EACH(k1, q->kernel[1]) for (int64_t k2 = 0; k2 < q->kernel[2]; k2++, k++)
        {
            const int64_t i0 = PLACE(0), i1 = PLACE(1), i2 = PLACE(2);
            if (OUTSIDE)
                continue;
            const T t = x[AT(v->x, n, c, i0, i1, i2)];
            if (best_k >= 0 && !(t > best) && t == t)
                continue;
            if (best_k >= 0 && best != best)
                continue; /* the first NaN stays */
            best = t;
            best_k = k;
            const int64_t inner = v->column_major ? (i2 * q->in[1] + i1) * q->in[0] + i0
                                                  : (i0 * q->in[1] + i1) * q->in[2] + i2;
            best_at = (n * v->x.c + c) * q->in[0] * q->in[1] * q->in[2] + inner;
        }
        const int64_t at = AT(v->y, n, c, o0, o1, o2);
        y[at] = best;
        if (index)
            index[((n * v->y.c + c) * q->out[0] + o0) * q->out[1] * q->out[2] + o1 * q->out[2] + o2] =
                best_at;
        if (where)
            where[at] = best_k;
    }
}

static void NAME(max_pool_back)(const struct conv *v, const void *dy_, const int32_t *where, void *dx_)
{
    const T *dy = dy_;
    T *dx = dx_;
    const struct window *q = &v->w;
    memset(dx, 0, (size_t)(v->x.n * v->x.c * q->in[0] * q->in[1] * q->in[2]) * sizeof *dx);
    EACH(n, v->y.n) EACH(o0, q->out[0]) EACH(o1, q->out[1]) EACH(o2, q->out[2]) EACH(c, v->y.c)
    {
        const int64_t at = AT(v->y, n, c, o0, o1, o2);
        const int64_t k = where[at];
        if (k < 0)
            continue;
        const int64_t k2 = k % q->kernel[2], k1 = k / q->kernel[2] % q->kernel[1],
                      k0 = k / q->kernel[2] / q->kernel[1];
        dx[AT(v->x, n, c, PLACE(0), PLACE(1), PLACE(2))] += dy[at];
    }
}

static void NAME(average_pool)(const struct conv *v, const void *x_, void *y_)
{
    const T *x = x_;
    T *y = y_;
    const struct window *q = &v->w;
    EACH(n, v->y.n) EACH(o0, q->out[0]) EACH(o1, q->out[1]) EACH(o2, q->out[2])
    {
        const T by = (T)pool_count(v, (const int64_t[]){ o0, o1, o2 });
        T *yp = y + AT(v->y, n, 0, o0, o1, o2);
        EACH(c, v->y.c) yp[c * v->y.sc] = 0;
        EACH(k0, q->kernel[0]) EACH(k1, q->kernel[1]) EACH(k2, q->kernel[2])
        {
            const int64_t i0 = PLACE(0), i1 = PLACE(1), i2 = PLACE(2);
            if (OUTSIDE)
                continue;
            const T *xp = x + AT(v->x, n, 0, i0, i1, i2);
            EACH(c, v->y.c) yp[c * v->y.sc] += xp[c * v->x.sc];
        }
        EACH(c, v->y.c) yp[c * v->y.sc] /= by;
    }
}

static void NAME(average_pool_back)(const struct conv *v, const void *dy_, void *dx_)
{
    const T *dy = dy_;
    T *dx = dx_;
    const struct window *q = &v->w;
    memset(dx, 0, (size_t)(v->x.n * v->x.c * q->in[0] * q->in[1] * q->in[2]) * sizeof *dx);
    EACH(n, v->y.n) EACH(o0, q->out[0]) EACH(o1, q->out[1]) EACH(o2, q->out[2])
    {
        const T by = 1 / (T)pool_count(v, (const int64_t[]){ o0, o1, o2 });
        const T *yp = dy + AT(v->y, n, 0, o0, o1, o2);
        EACH(k0, q->kernel[0]) EACH(k1, q->kernel[1]) EACH(k2, q->kernel[2])
        {
            const int64_t i0 = PLACE(0), i1 = PLACE(1), i2 = PLACE(2);
            if (OUTSIDE)
                continue;
            T *xp = dx + AT(v->x, n, 0, i0, i1, i2);
            EACH(c, v->y.c) xp[c * v->x.sc] += yp[c * v->y.sc] * by;
        }
    }
}

/* ---- batch normalisation: sums over this rank's rows, and what is made of those of all ranks ---- */

/* sums[2c], [2c + 1]: of x − pivot and its square, where the pivot keeps the square small. */
static void NAME(moments)(const struct picture *p, const void *x_, const double *pivot, double *sums)
{
    const T *x = x_;
    EACH(c, p->c)
    {
        double s = 0, q = 0;
        EACH(n, p->n) EACH(i0, p->s[0]) EACH(i1, p->s[1]) EACH(i2, p->s[2])
        {
            double t = (double)x[AT(*p, n, c, i0, i1, i2)] - pivot[c];
            s += t;
            q += t * t;
        }
        sums[2 * c] = s;
        sums[2 * c + 1] = q;
    }
}

static void NAME(norm)(const struct picture *p, const void *x_, const double *by, const double *plus,
                       const void *addend_, bool relu, void *y_)
{
    const T *x = x_;
    const T *addend = addend_;
    T *y = y_;
    EACH(n, p->n) EACH(i0, p->s[0]) EACH(i1, p->s[1]) EACH(i2, p->s[2]) EACH(c, p->c)
    {
        const int64_t at = AT(*p, n, c, i0, i1, i2);
        T t = (T)((double)x[at] * by[c] + plus[c]);
        if (addend)
            t += addend[at];
        y[at] = relu && t <= 0 ? 0 : t;
    }
}

/* sums[2c], [2c + 1]: of g and g · (x − mean), g = dy where y is positive. */
static void NAME(norm_back_sums)(const struct picture *p, const void *dy_, const void *x_, const void *y_,
                                 const double *mean, double *sums)
{
    const T *dy = dy_;
    const T *x = x_;
    const T *y = y_;
    EACH(c, p->c)
    {
        double s = 0, q = 0;
        EACH(n, p->n) EACH(i0, p->s[0]) EACH(i1, p->s[1]) EACH(i2, p->s[2])
        {
            const int64_t at = AT(*p, n, c, i0, i1, i2);
            double t = y && !(y[at] > 0) ? 0 : (double)dy[at];
            s += t;
            q += t * ((double)x[at] - mean[c]);
        }
        sums[2 * c] = s;
        sums[2 * c + 1] = q;
    }
}

/* dx = by_g · g + by_x · x + plus; g itself goes to the addend. */
static void NAME(norm_back)(const struct picture *p, const void *dy_, const void *x_, const void *y_,
                            const double *by_g, const double *by_x, const double *plus, void *dx_, void *dz_)
{
    const T *dy = dy_;
    const T *x = x_;
    const T *y = y_;
    T *dx = dx_;
    T *dz = dz_;
    EACH(n, p->n) EACH(i0, p->s[0]) EACH(i1, p->s[1]) EACH(i2, p->s[2]) EACH(c, p->c)
    {
        const int64_t at = AT(*p, n, c, i0, i1, i2);
        double t = y && !(y[at] > 0) ? 0 : (double)dy[at], xt = (double)x[at];
        if (dz)
            dz[at] = (T)t;
        dx[at] = (T)(by_g[c] * t + by_x[c] * xt + plus[c]);
    }
}

/* ---- Resize: an output is a sum over corners; axis by axis, innermost first ---- */

static void NAME(resize)(const struct resized *r, int axis, int64_t x_at, int64_t y_at, double weight,
                         void *x_, void *y_, bool back)
{
    T *x = x_;
    T *y = y_;
    if (axis == r->r.rank) {
        if (back)
            x[x_at] += (T)(weight * (double)y[y_at]);
        else
            y[y_at] += (T)(weight * (double)x[x_at]);
        return;
    }
    EACH(o, r->r.out[axis])
    {
        const struct resize_tap *t = &r->taps[axis][o];
        const int64_t to = y_at + o * r->y_step[axis];
        NAME(resize)
        (r, axis + 1, x_at + t->at[0] * r->x_step[axis], to, weight * (1 - t->second), x, y, back);
        if (t->second != 0)
            NAME(resize)(r, axis + 1, x_at + t->at[1] * r->x_step[axis], to, weight * t->second, x, y, back);
    }
}

static const struct image_kernels NAME(kernels) = {
    .conv = NAME(conv),
    .conv_back = NAME(conv_back),
    .conv_weights = NAME(conv_weights),
    .channel_sum = NAME(channel_sum),
    .max_pool = NAME(max_pool),
    .max_pool_back = NAME(max_pool_back),
    .average_pool = NAME(average_pool),
    .average_pool_back = NAME(average_pool_back),
    .moments = NAME(moments),
    .norm = NAME(norm),
    .norm_back_sums = NAME(norm_back_sums),
    .norm_back = NAME(norm_back),
    .resize = NAME(resize),
};
#undef T
#undef NAME
