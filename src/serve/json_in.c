// SPDX-License-Identifier: Apache-2.0
#include "serve/json_in.h"

err json_in_wrong(const struct json_in *in, const char *what)
{
    FAIL(INVALID, "failed to parse the request JSON buffer: %s at %zu", what, (size_t)(in->p - in->start));
}

static inline char at(const struct json_in *in)
{
    return in->p < in->end ? *in->p : 0;
}

char json_in_peek(struct json_in *in)
{
    while (in->p < in->end && (*in->p == ' ' || *in->p == '\n' || *in->p == '\r' || *in->p == '\t'))
        in->p++;
    return at(in);
}

err json_in_end(struct json_in *in)
{
    (void)json_in_peek(in);
    return in->p == in->end ? NULL : json_in_wrong(in, "there is more after the end,");
}

static err expect(struct json_in *in, char c)
{
    char what[] = "no ' '";
    what[4] = c;
    if (json_in_peek(in) != c)
        return json_in_wrong(in, what);
    in->p++;
    return NULL;
}

/* Is there another item before the bracket `close`? Takes the comma, or the bracket. */
static err another(struct json_in *in, char close, bool first, bool *out)
{
    *out = json_in_peek(in) != close;
    if (!*out)
        in->p++;
    else if (!first)
        TRY(expect(in, ','));
    return NULL;
}

/* ---- texts ---- */

/* Bytes from p that stand for themselves in a text: neither quote, backslash, control character nor beyond ASCII. */
static const char *plain_end(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101, high = 0x8080808080808080;
    uint64_t v, quote, slash;
    for (; end - p >= 8; p += 8) {
        memcpy(&v, p, sizeof v);
        quote = v ^ ones * '"';
        slash = v ^ ones * '\\';
        if (((v - ones * 0x20) | (quote - ones) | (slash - ones) | v) & high)
            break;
    }
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20 && (unsigned char)*p < 0x80)
        p++;
    return p;
}

static bool hex4(const char *p, const char *end, uint32_t *out)
{
    *out = 0;
    if (end - p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = p[i], low = (char)(c | 0x20);
        if (!(c >= '0' && c <= '9') && !(low >= 'a' && low <= 'f'))
            return false;
        *out = *out << 4 | (uint32_t)(c <= '9' ? c - '0' : low - 'a' + 10);
    }
    return true;
}

static void utf8_put(struct buf *b, uint32_t c)
{
    char *p = buf_room(b, 4);
    if (c < 0x80) {
        p[0] = (char)c;
        b->n += 1;
    } else if (c < 0x800) {
        p[0] = (char)(0xc0 | c >> 6);
        p[1] = (char)(0x80 | (c & 0x3f));
        b->n += 2;
    } else if (c < 0x10000) {
        p[0] = (char)(0xe0 | c >> 12);
        p[1] = (char)(0x80 | (c >> 6 & 0x3f));
        p[2] = (char)(0x80 | (c & 0x3f));
        b->n += 3;
    } else {
        p[0] = (char)(0xf0 | c >> 18);
        p[1] = (char)(0x80 | (c >> 12 & 0x3f));
        p[2] = (char)(0x80 | (c >> 6 & 0x3f));
        p[3] = (char)(0x80 | (c & 0x3f));
        b->n += 4;
    }
}

/* \uXXXX, at the digits; two of them where the first is half of a pair. */
static err escape_unicode(struct json_in *in, struct buf *b)
{
    uint32_t c, low;
    if (!hex4(in->p, in->end, &c) || (c >= 0xdc00 && c < 0xe000))
        return json_in_wrong(in, "Incorrect hex digit or half a surrogate pair after \\u escape in string");
    in->p += 4;
    if (c >= 0xd800 && c < 0xdc00) {
        if (in->end - in->p < 6 || in->p[0] != '\\' || in->p[1] != 'u' || !hex4(in->p + 2, in->end, &low) ||
            low < 0xdc00 || low > 0xdfff)
            return json_in_wrong(in, "The surrogate pair in string is invalid");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        in->p += 6;
    }
    utf8_put(b, c);
    return NULL;
}

static err escape_read(struct json_in *in, struct buf *b)
{
    static const char marks[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    char c = at(in);
    const char *mark = c ? memchr(marks, c, sizeof marks - 1) : NULL;
    if (!mark && c != 'u')
        return json_in_wrong(in, "Invalid escape character in string");
    in->p++;
    if (c == 'u')
        return escape_unicode(in, b);
    buf_put(b, &means[mark - marks], 1);
    return NULL;
}

/* Behind a text's first quote. b is used, and begun, at the first escape; else *out is a view. */
static err text_rest(struct json_in *in, struct buf *b, struct str *out)
{
    const char *from = in->p;
    for (;;) {
        in->p = plain_end(in->p, in->end);
        unsigned char c = (unsigned char)at(in);
        if (c >= 0x80) {
            size_t n = str_utf8_len((struct str){ in->p, (size_t)(in->end - in->p) });
            if (!n)
                return json_in_wrong(in, "Invalid UTF-8 in string");
            in->p += n;
            continue;
        }
        if (c != '"' && c != '\\')
            return json_in_wrong(in, in->p < in->end ? "a control character in string"
                                                     : "Missing a closing quotation mark in string");
        struct str piece = { from, (size_t)(in->p - from) };
        in->p++;
        if (c == '"' && !b->p) {
            *out = piece;
            return NULL;
        }
        buf_str(b, piece);
        if (c == '"') {
            *out = buf_get(b);
            return NULL;
        }
        TRY(escape_read(in, b));
        from = in->p;
    }
}

err json_in_text(struct json_in *in, struct str *out)
{
    struct buf b = buf_new(in->a);
    if (json_in_peek(in) != '"')
        return json_in_wrong(in, "no text");
    in->p++;
    return text_rest(in, &b, out);
}

/* ---- values ---- */

static const char *digits_end(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

/* Past a number by the grammar; NULL if none begins here. */
static const char *number_end(const char *p, const char *end)
{
    p += p < end && *p == '-';
    const char *from = p;
    p = digits_end(p, end);
    if (p == from || (*from == '0' && p - from > 1))
        return NULL;
    if (p < end && *p == '.') {
        from = ++p;
        p = digits_end(p, end);
        if (p == from)
            return NULL;
    }
    if (p < end && (*p | 0x20) == 'e') {
        p++;
        p += p < end && (*p == '-' || *p == '+');
        from = p;
        p = digits_end(p, end);
        if (p == from)
            return NULL;
    }
    return p;
}

err json_in_scalar(struct json_in *in, struct scalar *out)
{
    static const struct {
        struct str word;
        struct scalar means;
    } words[] = { { S_INIT("true"), { .kind = SCALAR_BOOL, .yes = true } },
                  { S_INIT("false"), { .kind = SCALAR_BOOL } },
                  { S_INIT("null"), { .kind = SCALAR_NULL } } };
    char c = json_in_peek(in);
    if (c == '"') {
        *out = (struct scalar){ .kind = SCALAR_TEXT };
        return json_in_text(in, &out->text);
    }
    struct str rest = { in->p, (size_t)(in->end - in->p) };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!str_starts(rest, words[i].word))
            continue;
        *out = words[i].means;
        in->p += words[i].word.n;
        return NULL;
    }
    const char *end = number_end(in->p, in->end);
    if (!end)
        return json_in_wrong(in, "no text, number or boolean");
    *out = (struct scalar){ .kind = SCALAR_NUMBER, .text = { in->p, (size_t)(end - in->p) } };
    in->p = end;
    return NULL;
}

bool scalar_is_whole(const struct scalar *s)
{
    if (s->kind != SCALAR_NUMBER)
        return false;
    const char *end = s->text.p + s->text.n;
    return digits_end(s->text.p + (*s->text.p == '-'), end) == end;
}

err json_in_skip(struct json_in *in, struct str *out)
{
    struct str text;
    size_t depth = 0;
    char c = json_in_peek(in);
    const char *from = in->p;
    do {
        c = json_in_peek(in);
        if (c == '[' || c == '{') {
            if (++depth > JSON_IN_DEPTH)
                return json_in_wrong(in, "nested too deep");
            in->p++;
        } else if (depth && (c == ']' || c == '}')) {
            depth--;
            in->p++;
        } else if (depth && (c == ',' || c == ':')) {
            in->p++;
        } else if (c == '"') {
            TRY(json_in_text(in, &text));
        } else {
            const char *word = in->p;
            while (in->p < in->end && !memchr(" \n\r\t,:[]{}\"", *in->p, 11))
                in->p++;
            if (in->p == word)
                return json_in_wrong(in, "no value");
        }
    } while (depth);
    *out = (struct str){ from, (size_t)(in->p - from) };
    return NULL;
}

err json_in_tree(struct json_in *in, yyjson_val **out)
{
    struct str text;
    TRY(json_in_skip(in, &text));
    return json_parse(in->a, text, out);
}

err json_in_pass(void *self, struct json_in *in, struct str key)
{
    yyjson_val *any;
    (void)self;
    (void)key;
    return json_in_tree(in, &any);
}

/* ---- objects and arrays ---- */

static err open_with(struct json_in *in, char bracket, struct str what, const char *kind)
{
    char c = json_in_peek(in);
    if (in->p == in->end)
        return json_in_wrong(in, "The document ends too early");
    if (c != bracket)
        FAIL(INVALID, "%.*s is not %s", STR(what), kind);
    in->p++;
    return NULL;
}

static err unknown(struct str what, const struct member *rows, size_t n, struct str key)
{
    char known[256];
    size_t at_ = 0;
    for (size_t i = 0; i < n && at_ < sizeof known; i++)
        at_ += (size_t)snprintf(known + at_, sizeof known - at_, "%s%.*s", i ? ", " : "", STR(rows[i].key));
    FAIL(INVALID, "%.*s: '%.*s' is not known; there are %s", STR(what), STR(str_sub(key, 0, 64)), known);
}

/* Keys that no row has are few or none: the number of those that are remembered to find doubles is a limit. */
struct others {
    struct str keys[MEMBERS_MAX];
    size_t n;
};

static err other_once(struct json_in *in, struct others *o, struct str key)
{
    for (size_t i = 0; i < o->n; i++)
        if (str_eq(o->keys[i], key))
            return json_in_wrong(in, "a key that was given already");
    if (o->n == MEMBERS_MAX)
        return json_in_wrong(in, "too many keys");
    o->keys[o->n++] = key;
    return NULL;
}

err json_in_object(struct json_in *in, struct str what, const struct member *rows, size_t n, void *self,
                   err (*other)(void *self, struct json_in *, struct str key), uint32_t *seen)
{
    struct others others;
    struct str key;
    bool more;
    others.n = 0;
    *seen = 0;
    TRY(open_with(in, '{', what, "an object"));
    for (bool first = true;; first = false) {
        TRY(another(in, '}', first, &more));
        if (!more)
            return NULL;
        TRY(json_in_text(in, &key));
        TRY(expect(in, ':'));
        size_t i = 0;
        while (i < n && !str_eq(rows[i].key, key))
            i++;
        if (i == n && !other)
            return unknown(what, rows, n, key);
        if (i < n && *seen >> i & 1)
            return json_in_wrong(in, "a key that was given already");
        if (i == n) {
            TRY(other_once(in, &others, key));
            TRY(other(self, in, key));
        } else {
            *seen |= (uint32_t)1 << i;
            TRY(rows[i].read(self, in));
        }
    }
}

err json_in_array(struct json_in *in, struct str what, err (*item)(void *self, struct json_in *, size_t i),
                  void *self, size_t *n)
{
    bool more;
    TRY(open_with(in, '[', what, "a list"));
    for (*n = 0;; ++*n) {
        TRY(another(in, ']', *n == 0, &more));
        if (!more)
            return NULL;
        TRY(item(self, in, *n));
    }
}
