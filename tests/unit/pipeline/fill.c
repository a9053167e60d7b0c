// SPDX-License-Identifier: Apache-2.0
/* ${…} in the parameters of a step. */
#define SUITE fill
#include "test.h"
#include "pipeline/pipeline.h"

static bool lookup(void *arg, struct arena *a, struct str name, struct str *out)
{
    (void)arg;
    (void)a;
    if (str_is(name, "params.until"))
        *out = S("\"2001-05-01\"");
    else if (str_is(name, "steps.judge.metrics"))
        *out = S("{\"auc\":0.75}");
    else if (str_is(name, "steps.count.n"))
        *out = S("7");
    else
        return false;
    return true;
}

static struct str filled(struct arena *a, const char *json)
{
    struct str out;
    CHECK_OK(pipeline_fill(a, str_of(json), lookup, NULL, &out));
    return out;
}

TEST(a_whole_value_keeps_its_type)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(
        filled(a,
               "{\"m\":\"${steps.judge.metrics}\",\"n\":\"${ steps.count.n }\",\"u\":\"${params.until}\"}"),
        "{\"m\":{\"auc\":0.75},\"n\":7,\"u\":\"2001-05-01\"}");
}

TEST(inside_a_text_it_becomes_text)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(filled(a, "[\"n=${steps.count.n}, until ${params.until}!\"]"), "[\"n=7, until 2001-05-01!\"]");
}

TEST(all_else_is_left_as_it_is)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(filled(a, "{\"a\":[1,2.5,true,null,\"$x {y} ${open\"]}"),
              "{\"a\":[1,2.5,true,null,\"$x {y} ${open\"]}");
    CHECK_STR(filled(a, ""), "{}");
}

TEST(an_unknown_name_is_named)
{
    auto_arena struct arena *a = arena_new(0);
    struct str out;
    err e = pipeline_fill(a, S("{\"a\":\"${params.untli}\"}"), lookup, NULL, &out);
    CHECK_ERR(e, INVALID);
    CHECK_STR(e->text, "${params.untli} names nothing");
}
