// SPDX-License-Identifier: Apache-2.0
/* The part of Triton's ModelConfig that says how requests come to their run: a deployment's policy, in Triton's words. */
#include "serve/ext.h"
#include "serve/policy.h"

static void sizes_write(struct json *j, const char *key, const size_t *v, size_t n)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < n; i++)
        json_i64(j, (int64_t)v[i]);
    json_arr_end(j);
}

/* ---- batches ---- */

static void queue_write(struct json *j, const struct batching *b)
{
    static const char *const actions[] = { [TIMEOUT_REJECT] = "REJECT", [TIMEOUT_DELAY] = "DELAY" };
    json_key(j, S("default_queue_policy"));
    json_obj(j);
    json_kstr(j, "timeout_action", str_of(actions[b->timeout_action]));
    json_ki64(j, "default_timeout_microseconds", b->timeout * 1000);
    json_kbool(j, "allow_timeout_override", b->timeout_override);
    json_ki64(j, "max_queue_size", b->queue);
    json_obj_end(j);
}

/* One level is Triton's none. */
static void dynamic_write(struct json *j, const struct policy *p)
{
    const struct batching *b = &p->batching;
    bool levels = b->priorities > 1;
    json_key(j, S("dynamic_batching"));
    json_obj(j);
    sizes_write(j, "preferred_batch_size", p->preferred, p->preferred_n);
    json_ki64(j, "max_queue_delay_microseconds", b->delay_us);
    json_ki64(j, "priority_levels", levels ? b->priorities : 0);
    json_ki64(j, "default_priority_level",
              !levels               ? 0
              : b->default_priority ? b->default_priority
                                    : (b->priorities + 1) / 2);
    queue_write(j, b);
    json_obj_end(j);
}

/* ---- sequences ---- */

static const struct tensor_spec *input_of(const struct session_info *info, struct str name)
{
    size_t i = 0;
    while (i < info->n_inputs && !str_eq(info->inputs[i].name, name))
        i++;
    return i < info->n_inputs ? &info->inputs[i] : NULL;
}

static void control_write(struct json *j, const struct sequence_control *c, const struct session_info *info)
{
    static const char *const kinds[] = { [CONTROL_START] = "CONTROL_SEQUENCE_START",
                                         [CONTROL_READY] = "CONTROL_SEQUENCE_READY",
                                         [CONTROL_END] = "CONTROL_SEQUENCE_END",
                                         [CONTROL_ID] = "CONTROL_SEQUENCE_CORRID" };
    const struct tensor_spec *in = input_of(info, c->input);
    json_obj(j);
    json_kstr(j, "name", c->input);
    json_key(j, S("control"));
    json_arr(j);
    json_obj(j);
    json_kstr(j, "kind", str_of(kinds[c->kind]));
    if (c->kind == CONTROL_ID)
        json_kstr(j, "data_type", config_type(j->b.a, in ? in->type : TENSOR_NONE));
    else if (in && in->type == TENSOR_F32)
        json_kraw(j, "fp32_false_true", S("[0,1]"));
    else if (in && in->type == TENSOR_BOOL)
        json_kraw(j, "bool_false_true", S("[false,true]"));
    else
        json_kraw(j, "int32_false_true", S("[0,1]"));
    json_obj_end(j);
    json_arr_end(j);
    json_obj_end(j);
}

static void state_write(struct json *j, const struct sequence_state *s, const struct session_info *info)
{
    const struct tensor_spec *in = input_of(info, s->input);
    json_obj(j);
    json_kstr(j, "input_name", s->input);
    json_kstr(j, "output_name", s->output);
    json_kstr(j, "data_type", config_type(j->b.a, in ? in->type : TENSOR_NONE));
    json_key(j, S("dims"));
    json_arr(j);
    for (size_t d = 0; in && d < in->rank; d++)
        json_i64(j, in->dims[d]);
    json_arr_end(j);
    json_obj_end(j);
}

/* Any sequence may have the next run: Triton's strategy "oldest". */
static void sequence_write(struct json *j, const struct policy *p, const struct session_info *info)
{
    const struct sequencing *q = &p->sequence;
    const struct sequence_control *control = q->controls.v;
    const struct sequence_state *state = q->state.v;
    json_key(j, S("sequence_batching"));
    json_obj(j);
    json_ki64(j, "max_sequence_idle_microseconds", q->idle * 1000);
    json_key(j, S("control_input"));
    json_arr(j);
    for (size_t i = 0; i < q->controls.n; i++)
        control_write(j, &control[i], info);
    json_arr_end(j);
    json_key(j, S("state"));
    json_arr(j);
    for (size_t i = 0; i < q->state.n; i++)
        state_write(j, &state[i], info);
    json_arr_end(j);
    json_key(j, S("oldest"));
    json_obj(j);
    json_ki64(j, "max_candidate_sequences", q->max_sequences);
    sizes_write(j, "preferred_batch_size", p->preferred, p->preferred_n);
    json_ki64(j, "max_queue_delay_microseconds", p->batching.delay_us);
    json_obj_end(j);
    json_obj_end(j);
}

/* ---- all of it ---- */

int64_t schedule_batch_max(const struct policy *p, int64_t most)
{
    return most && p && p->batching.max_batch > 1 ? p->batching.max_batch : most;
}

/* Triton's config has one of three. */
void schedule_write(struct json *j, const struct policy *p, const struct model *m)
{
    if (m->composed)
        ensemble_write(j, m->session);
    else if (p && p->sequences)
        sequence_write(j, p, m->info);
    else if (p && p->batching.max_batch > 1)
        dynamic_write(j, p);
    if (p && p->cache)
        json_kraw(j, "response_cache", S("{\"enable\":true}"));
}

/* Runs at the same time, where they are. */
void instances_write(struct json *j, struct str name, const struct policy *p, const struct session_info *info)
{
    json_key(j, S("instance_group"));
    json_arr(j);
    json_obj(j);
    json_kstr(j, "name", name);
    json_kstr(j, "kind",
              strcmp(info->device, "cuda") && strcmp(info->device, "tensorrt") ? S("KIND_CPU")
                                                                               : S("KIND_GPU"));
    json_ki64(j, "count", p ? (int64_t)p->instances : 1);
    json_obj_end(j);
    json_arr_end(j);
}
