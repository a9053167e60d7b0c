// SPDX-License-Identifier: Apache-2.0
/* secure: the client's side of TLS, over memory; client.c moves the bytes. */
#include "net/internal.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <arpa/inet.h>
#include <stdlib.h>

struct secure {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out; /* ssl's */
    const char *host;
};

static const char *named(const char *variable)
{
    const char *value = getenv(variable);
    return value && *value ? value : NULL;
}

/* Whom the server's certificate must come from. */
static err trust(SSL_CTX *ctx)
{
    const char *ca = named("DHOW_CA");
    int got = ca ? SSL_CTX_load_verify_locations(ctx, ca, NULL) : SSL_CTX_set_default_verify_paths(ctx);
    ERR_clear_error();
    if (got != 1)
        FAIL(INVALID, "%s has no certificates that can be read (DHOW_CA names it)", ca ? ca : "the system");
    return NULL;
}

/* For a server that asks who comes. */
static err introduce(SSL_CTX *ctx)
{
    const char *cert = named("DHOW_CERT"), *key = named("DHOW_KEY");
    if (!cert && !key)
        return NULL;
    bool good = cert && key && SSL_CTX_use_certificate_chain_file(ctx, cert) == 1 &&
                SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) == 1;
    ERR_clear_error();
    if (!good)
        FAIL(INVALID, "%s and %s are not a certificate and its key (DHOW_CERT and DHOW_KEY name them)",
             cert ? cert : "nothing", key ? key : "nothing");
    return NULL;
}

err secure_new(struct arena *a, const char *host, const struct secure *like, struct secure **out)
{
    struct secure *s = NEW(a, struct secure);
    s->host = host;
    s->ctx = like ? like->ctx : SSL_CTX_new(TLS_client_method());
    *out = s;
    if (!s->ctx)
        FAIL(INTERNAL, "OpenSSL does not start");
    if (like) {
        SSL_CTX_up_ref(s->ctx);
        return NULL;
    }
    SSL_CTX_set_min_proto_version(s->ctx, TLS1_3_VERSION);
    SSL_CTX_set_verify(s->ctx, SSL_VERIFY_PEER, NULL);
    TRY(trust(s->ctx));
    return introduce(s->ctx);
}

/* The certificate is for the name, or for the address. */
static bool name_expect(struct secure *s)
{
    struct in6_addr at;
    bool address = inet_pton(AF_INET, s->host, &at) == 1 || inet_pton(AF_INET6, s->host, &at) == 1;
    if (address)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(s->ssl), s->host) == 1;
    return SSL_set1_host(s->ssl, s->host) == 1 && SSL_set_tlsext_host_name(s->ssl, s->host) == 1;
}

bool secure_begin(struct secure *s)
{
    SSL_free(s->ssl);
    s->ssl = SSL_new(s->ctx);
    s->in = BIO_new(BIO_s_mem());
    s->out = BIO_new(BIO_s_mem());
    if (!s->ssl || !s->in || !s->out)
        abort(); /* as arenas do */
    SSL_set_bio(s->ssl, s->in, s->out);
    SSL_set_connect_state(s->ssl);
    return name_expect(s);
}

bool secure_offer(struct secure *s, struct str protocol)
{
    unsigned char list[16] = { (unsigned char)protocol.n };
    if (protocol.n >= sizeof list)
        return false;
    memcpy(list + 1, protocol.p, protocol.n);
    return SSL_set_alpn_protos(s->ssl, list, (unsigned)protocol.n + 1) == 0;
}

enum secure_state secure_handshake(struct secure *s, const char **why)
{
    int got = SSL_do_handshake(s->ssl);
    if (got == 1)
        return SECURE_DONE;
    int how = SSL_get_error(s->ssl, got);
    if (how == SSL_ERROR_WANT_READ)
        return SECURE_WAITS;
    long wrong = SSL_get_verify_result(s->ssl);
    unsigned long code = ERR_peek_error();
    *why = wrong != X509_V_OK ? X509_verify_cert_error_string(wrong) : ERR_reason_error_string(code);
    *why = *why ? *why : "it does not speak TLS";
    ERR_clear_error();
    return SECURE_FAILED;
}

void secure_take(struct secure *s, struct str bytes)
{
    if (BIO_write(s->in, bytes.p, (int)bytes.n) != (int)bytes.n)
        abort();
}

struct str secure_give(struct secure *s)
{
    char *p;
    long n = BIO_get_mem_data(s->out, &p);
    return (struct str){ p, n > 0 ? (size_t)n : 0 };
}

void secure_given(struct secure *s)
{
    (void)BIO_reset(s->out);
}

bool secure_write(struct secure *s, struct str bytes)
{
    size_t n;
    bool good = !bytes.n || SSL_write_ex(s->ssl, bytes.p, bytes.n, &n) == 1;
    ERR_clear_error();
    return good;
}

enum secure_state secure_read(struct secure *s, char *p, size_t max, size_t *n)
{
    int got = SSL_read_ex(s->ssl, p, max, n);
    int how = SSL_get_error(s->ssl, got);
    ERR_clear_error();
    if (got == 1)
        return SECURE_DONE;
    *n = 0;
    return how == SSL_ERROR_WANT_READ ? SECURE_WAITS : SECURE_FAILED;
}

void secure_free(struct secure *s)
{
    if (!s)
        return;
    SSL_free(s->ssl);
    SSL_CTX_free(s->ctx);
}
