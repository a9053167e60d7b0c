/* yaml_write: JSON → YAML in block style, as a person would write it. Text that some reader could take
 * for another type (YAML 1.1's too: yes, 1:30, 2001-05-01) is quoted. */
// SPDX-License-Identifier: Apache-2.0
#include "schema/internal.h"
#include "schema/yaml.h"
#include <stdlib.h>

enum { KEY_PLAIN_MAX = 500, OUT_MAX = 64 << 20 };

/* ---- text ---- */

static bool letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool word_of_1_1(struct str s)
{
    static const char *const words[] = { "y", "n", "yes", "no", "on", "off", "true", "false", "null" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (s.n == strlen(words[i]) && strncasecmp(s.p, words[i], s.n) == 0)
            return true;
    return false;
}

/* Begins with a digit, and yet no reader takes it for a number or a date: "2h", "16Gi", "3.12-slim". */
static bool plain_digits(struct str s)
{
    if (s.n > 4 && digit(s.p[1]) && digit(s.p[2]) && digit(s.p[3]) && s.p[4] == '-')
        return false;
    bool far = false; /* a letter that is neither a hex digit nor a base's mark */
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == ':')
            return false;
        char low = (char)(s.p[i] | 0x20);
        far |= letter(s.p[i]) && low > 'f' && low != 'o' && low != 'x';
    }
    return far;
}

static bool plain(struct str s)
{
    if (s.n == 0 || s.n > 200 || yaml_plain_type(s) != YAML_TEXT || word_of_1_1(s))
        return false;
    if (!letter(s.p[0]) && !digit(s.p[0]) && s.p[0] != '_' && s.p[0] != '/')
        return false;
    for (size_t i = 1; i < s.n; i++) {
        char c = s.p[i], before = s.p[i - 1];
        bool ok = letter(c) || digit(c) || strchr("_-./+@%=,()^;~", c);
        ok |= c == ':' && i + 1 < s.n && s.p[i + 1] != ' ';
        ok |= c == ' ' && before != ' ' && i + 1 < s.n;
        if (!ok || !c)
            return false;
    }
    return !digit(s.p[0]) || plain_digits(s);
}

/* The character at i and its length. */
static uint32_t rune(struct str s, size_t i, size_t *n)
{
    unsigned char c = (unsigned char)s.p[i];
    *n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    uint32_t r = c & (*n == 1 ? 0x7F : 0xFF >> (*n + 1));
    for (size_t k = 1; k < *n; k++)
        r = r << 6 | ((unsigned char)s.p[i + k] & 0x3F);
    return r;
}

/* Stands in YAML as it is, without being a break of lines. */
static bool printable(uint32_t r)
{
    return (r >= 0x20 && r <= 0x7E) ||
           (r >= 0xA0 && r < 0xFFFE && r != 0x2028 && r != 0x2029 && r != 0xFEFF) || r >= 0x10000;
}

static void put_quoted(struct buf *b, struct str s)
{
    buf_put(b, "\"", 1);
    for (size_t i = 0, n; i < s.n; i += n) {
        uint32_t r = rune(s, i, &n);
        if (r == '"' || r == '\\')
            buf_fmt(b, "\\%c", (int)r);
        else if (r == '\n' || r == '\t')
            buf_str(b, r == '\n' ? S("\\n") : S("\\t"));
        else if (printable(r))
            buf_put(b, s.p + i, n);
        else if (r < 0x100)
            buf_fmt(b, "\\x%02x", r);
        else
            buf_fmt(b, "\\u%04x", r);
    }
    buf_put(b, "\"", 1);
}

/* Fit for a block after "|": its lines as they stand. */
static bool blockable(struct str s)
{
    if (str_find(s, '\n') == s.n || s.p[0] == '\n' || s.p[0] == ' ' || s.p[0] == '\t')
        return false;
    for (size_t i = 0, n; i < s.n; i += n) {
        uint32_t r = rune(s, i, &n);
        if (r != '\n' && r != '\t' && !printable(r))
            return false;
    }
    for (struct str rest = s, line; str_cut(&rest, '\n', &line);)
        if (line.n && str_trim(line).n == 0)
            return false;
    return true;
}

static void indent(struct buf *b, int depth)
{
    for (int i = 0; i < depth; i++)
        buf_put(b, "  ", 2);
}

static void put_block(struct buf *b, struct str s, int depth)
{
    bool ended = s.p[s.n - 1] == '\n', more = ended && s.n > 1 && s.p[s.n - 2] == '\n';
    buf_str(b, more ? S("|+\n") : ended ? S("|\n") : S("|-\n"));
    struct str rest = ended ? str_sub(s, 0, s.n - 1) : s;
    for (;;) {
        size_t n = str_find(rest, '\n');
        if (n) {
            indent(b, depth);
            buf_put(b, rest.p, n);
        }
        buf_put(b, "\n", 1);
        if (n == rest.n)
            return;
        rest = str_sub(rest, n + 1, rest.n);
    }
}

/* ---- values ---- */

static err put_value(struct buf *b, yyjson_val *v, int depth);

static err put_scalar(struct buf *b, yyjson_val *v, int depth)
{
    if (yyjson_is_str(v)) {
        struct str s = json_text(v);
        if (depth > 0 && blockable(s)) {
            put_block(b, s, depth);
            return NULL;
        }
        if (plain(s))
            buf_str(b, s);
        else
            put_quoted(b, s);
    } else {
        size_t n = 0;
        char *text = yyjson_val_write(v, YYJSON_WRITE_NOFLAG, &n);
        if (!text)
            FAIL(INTERNAL, "cannot write a JSON value");
        buf_put(b, text, n);
        free(text);
    }
    buf_put(b, "\n", 1);
    return NULL;
}

static bool filled(yyjson_val *v)
{
    return yyjson_is_ctn(v) && unsafe_yyjson_get_len(v) > 0;
}

/* Keys over libyaml's 1024 characters need the long form. */
static void put_key(struct buf *b, yyjson_val *k, int depth)
{
    struct str s = json_text(k);
    size_t start = b->n;
    if (s.n > KEY_PLAIN_MAX)
        buf_str(b, S("? "));
    if (plain(s))
        buf_str(b, s);
    else
        put_quoted(b, s);
    if (s.n > KEY_PLAIN_MAX || b->n - start > 1000) {
        if (s.n <= KEY_PLAIN_MAX) { /* short, but long once quoted: again, in the long form */
            b->n = start;
            buf_str(b, S("? "));
            put_quoted(b, s);
        }
        buf_put(b, "\n", 1);
        indent(b, depth);
    }
    buf_put(b, ":", 1);
}

static err put_object(struct buf *b, yyjson_val *v, int depth)
{
    size_t i, max;
    yyjson_val *k, *item;
    yyjson_obj_foreach (v, i, max, k, item) {
        if (i)
            indent(b, depth);
        put_key(b, k, depth);
        if (filled(item)) {
            buf_put(b, "\n", 1);
            indent(b, depth + 1);
        } else {
            buf_put(b, " ", 1);
        }
        TRY(put_value(b, item, depth + 1));
    }
    return NULL;
}

static err put_array(struct buf *b, yyjson_val *v, int depth)
{
    size_t i, max;
    yyjson_val *item;
    yyjson_arr_foreach (v, i, max, item) {
        if (i)
            indent(b, depth);
        buf_str(b, S("- "));
        TRY(put_value(b, item, depth + 1));
    }
    return NULL;
}

/* The line is indented already up to depth; ends with a newline. */
static err put_value(struct buf *b, yyjson_val *v, int depth)
{
    if (b->n > OUT_MAX)
        FAIL(TOO_LARGE, "too large to be written as YAML");
    if (!filled(v))
        return put_scalar(b, v, depth);
    return yyjson_is_arr(v) ? put_array(b, v, depth) : put_object(b, v, depth);
}

err json_to_yaml(struct arena *a, struct str json, struct str *out)
{
    auto_arena struct arena *t = arena_new(0);
    struct buf b = buf_new(t);
    yyjson_val *v;
    TRY(json_parse(t, json, &v));
    TRY(put_value(&b, v, 0));
    if (arena_left(a) < b.n)
        FAIL(TOO_LARGE, "too large for the memory of one request");
    *out = str_dup(a, buf_get(&b));
    return NULL;
}
