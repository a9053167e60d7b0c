// SPDX-License-Identifier: Apache-2.0
/* Curves over steps, drawn in braille: each character is two points wide and four high. */
#include "cli/train.h"

enum { COLUMNS = 64, LINES = 10, DOTS_X = 2 * COLUMNS, DOTS_Y = 4 * LINES };

void curves_add(struct arena *a, struct curves *all, const char *name, int64_t step, double value)
{
    size_t i = 0;
    while (i < all->v.n && !str_eq(all->v.v[i].name, str_of(name)))
        i++;
    if (i == all->v.n)
        push(a, &all->v, ((struct curve){ .name = str_dup(a, str_of(name)) }));
    push(a, &all->v.v[i].step, (double)step);
    push(a, &all->v.v[i].value, value);
}

static const struct curve *find(const struct curves *all, const char *name)
{
    for (size_t i = 0; i < all->v.n; i++)
        if (str_eq(all->v.v[i].name, str_of(name)))
            return &all->v.v[i];
    return NULL;
}

struct plot {
    double left, right, low, high;
    uint8_t dots[LINES][COLUMNS];
    bool marks[LINES][COLUMNS];
};

static void range_take(struct plot *p, const struct curve *c)
{
    for (size_t i = 0; c && i < c->value.n; i++) {
        if (!isfinite(c->value.v[i]))
            continue;
        p->left = fmin(p->left, c->step.v[i]);
        p->right = fmax(p->right, c->step.v[i]);
        p->low = fmin(p->low, c->value.v[i]);
        p->high = fmax(p->high, c->value.v[i]);
    }
}

static void dot(struct plot *p, int x, int y)
{
    static const uint8_t bits[4][2] = { { 0x01, 0x08 }, { 0x02, 0x10 }, { 0x04, 0x20 }, { 0x40, 0x80 } };
    if (x >= 0 && x < DOTS_X && y >= 0 && y < DOTS_Y)
        p->dots[y / 4][x / 2] |= bits[y % 4][x % 2];
}

static int place(double v, double from, double to, int n)
{
    return to > from ? (int)((v - from) / (to - from) * (n - 1) + 0.5) : 0;
}

static void line_draw(struct plot *p, const struct curve *c)
{
    int last_x = -1, last_y = 0;
    for (size_t i = 0; i < c->value.n; i++) {
        if (!isfinite(c->value.v[i]))
            continue;
        int x = place(c->step.v[i], p->left, p->right, DOTS_X),
            y = DOTS_Y - 1 - place(c->value.v[i], p->low, p->high, DOTS_Y);
        for (int k = last_x + 1; last_x >= 0 && k < x; k++)
            dot(p, k, last_y + (y - last_y) * (k - last_x) / (x - last_x));
        dot(p, x, y);
        last_x = x;
        last_y = y;
    }
}

static void marks_draw(struct plot *p, const struct curve *c)
{
    for (size_t i = 0; c && i < c->value.n; i++)
        if (isfinite(c->value.v[i]))
            p->marks[LINES - 1 - place(c->value.v[i], p->low, p->high, LINES)]
                    [place(c->step.v[i], p->left, p->right, COLUMNS)] = true;
}

struct str curves_text(struct arena *a, const struct curves *all)
{
    const struct curve *train = find(all, "train.logloss"), *valid = find(all, "valid.logloss");
    struct plot p = { .left = INFINITY, .right = -INFINITY, .low = INFINITY, .high = -INFINITY };
    if (!train)
        train = find(all, "train.loss");
    if (!train || train->value.n < 2)
        return S("");
    range_take(&p, train);
    range_take(&p, valid);
    if (!(p.high >= p.low))
        return S("");
    line_draw(&p, train);
    marks_draw(&p, valid);
    struct buf b = buf_new(a);
    for (int y = 0; y < LINES; y++) {
        if (y == 0 || y == LINES - 1)
            buf_fmt(&b, "%9.4g ", y ? p.low : p.high);
        else
            buf_fmt(&b, "%9s ", "");
        for (int x = 0; x < COLUMNS; x++) {
            unsigned code = 0x2800u + p.dots[y][x];
            char utf8[3] = { (char)(0xe0 | code >> 12), (char)(0x80 | (code >> 6 & 0x3f)),
                             (char)(0x80 | (code & 0x3f)) };
            if (p.marks[y][x])
                buf_str(&b, S("●"));
            else
                buf_put(&b, utf8, 3);
        }
        buf_str(&b, S("\n"));
    }
    buf_fmt(&b, "%9s step %.0f to %.0f: %.*s%s\n", "", p.left, p.right, STR(train->name),
            valid ? ", ● valid.logloss" : "");
    return buf_get(&b);
}
