// SPDX-License-Identifier: Apache-2.0
/* refuse: the record of refused requests. Refusals are queued, as the loop must not wait for the disk, and
 * written at a bounded rate, as a stranger must not fill it; what was left out is counted. */
#include "auth/internal.h"

void refusals_init(struct refusals *q)
{
    pthread_mutex_init(&q->m, NULL);
    q->all.left = REFUSED_BURST * 4;
    q->all.at_ns = mono_ns();
}

void refusals_done(struct refusals *q)
{
    pthread_mutex_destroy(&q->m);
}

/* Takes one from a bucket that fills by per_s up to burst. */
static bool bucket_take(struct bucket *b, int64_t now_ns, double per_s, double burst)
{
    double left = b->left + (double)(now_ns - b->at_ns) * 1e-9 * per_s;
    b->at_ns = now_ns;
    b->left = left < burst ? left : burst;
    if (b->left < 1)
        return false;
    b->left -= 1;
    return true;
}

/* Peers share buckets by hash: an attacker may starve another's record, never grow the log. */
static bool refusal_counts(struct refusals *q, struct str peer)
{
    int64_t now = mono_ns();
    uint64_t h = hash64(peer);
    struct bucket *b = &q->peers[h % PEERS];
    if (b->at_ns == 0)
        *b = (struct bucket){ .peer = h, .at_ns = now, .left = REFUSED_BURST };
    return bucket_take(b, now, REFUSED_PER_S, REFUSED_BURST) &&
           bucket_take(&q->all, now, REFUSED_ALL_PER_S, REFUSED_BURST * 4);
}

static void copy(char *to, size_t room, struct str from)
{
    size_t n = from.n < room - 1 ? from.n : room - 1;
    while (n < from.n && n > 0 && ((unsigned char)from.p[n] & 0xc0) == 0x80)
        n--; /* between characters */
    memcpy(to, from.p ? from.p : "", n);
    to[n] = '\0';
}

/* "127.0.0.1:5000" and "[::1]:5000" without the port. */
static struct str peer_host(struct str peer)
{
    size_t end = peer.n;
    while (end > 0 && peer.p[end - 1] >= '0' && peer.p[end - 1] <= '9')
        end--;
    bool port = end > 1 && end < peer.n && peer.p[end - 1] == ':' &&
                (peer.p[end - 2] == ']' || str_find(peer, ':') == end - 1);
    return port ? str_sub(peer, 0, end - 1) : peer;
}

void refuse(struct auth *auth, const struct req *r, const struct principal *who, enum err_code code)
{
    struct refusals *q = &auth->refused;
    struct str peer = peer_host(r->peer);
    LOCKED(&q->m);
    if (q->n == REFUSED_MAX || !refusal_counts(q, peer)) {
        q->uncounted++;
        return;
    }
    struct refusal *f = &q->v[q->n++];
    f->code = code;
    copy(f->who, sizeof f->who, who ? who->name : S("anonymous"));
    copy(f->peer, sizeof f->peer, peer);
    copy(f->method, sizeof f->method, r->method);
    copy(f->path, sizeof f->path, r->path);
    copy(f->permission, sizeof f->permission, r->route ? str_of(r->route->may) : S(""));
    copy(f->project, sizeof f->project, who && !str_is(who->project, "*") ? who->project : S(""));
    copy(f->id, sizeof f->id, r->id);
}

struct batch {
    struct refusal v[REFUSED_MAX];
    size_t n;
    int64_t uncounted;
};

static struct str refusal_detail(struct arena *a, const struct refusal *f, int64_t left_out)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "peer", str_of(f->peer));
    json_kstr(&j, "method", str_of(f->method));
    json_kstr(&j, "path", str_of(f->path));
    json_kstr(&j, "permission", str_of(f->permission));
    if (left_out)
        json_ki64(&j, "leftOut", left_out);
    json_obj_end(&j);
    return json_get(&j);
}

static err batch_write(struct tx *tx, void *arg)
{
    const struct batch *b = arg;
    for (size_t i = 0; i < b->n; i++) {
        const struct refusal *f = &b->v[i];
        TRY(audit_append(tx, &(struct audit_entry){
                                 .who = str_of(f->who),
                                 .action = S("auth.refused"),
                                 .project = str_of(f->project),
                                 .outcome = err_table[f->code].name,
                                 .detail = refusal_detail(tx_arena(tx), f, i == 0 ? b->uncounted : 0),
                                 .request_id = str_of(f->id),
                             }));
    }
    return NULL;
}

static void batch_take(struct refusals *q, struct batch *b)
{
    LOCKED(&q->m);
    memcpy(b->v, q->v, q->n * sizeof *q->v);
    b->n = q->n;
    if (q->n == 0)
        return;
    b->uncounted = q->uncounted;
    q->uncounted = 0;
    q->n = 0;
}

err refusals_write(struct auth *auth)
{
    auto_arena struct arena *a = arena_new(0);
    struct batch *b = NEW(a, struct batch);
    batch_take(&auth->refused, b);
    return b->n ? store_write(auth->store, batch_write, b) : NULL;
}
