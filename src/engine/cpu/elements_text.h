// SPDX-License-Identifier: Apache-2.0
// The body of an element table for a domain: R, TEXT(name) and the functions in capitals are defined by who includes it.

#define HEAD(name)                                                                             \
    static void TEXT(name)(void *d_, const void *a_, const void *b_, const void *c_, size_t n, \
                           const double *k_)                                                   \
    {                                                                                          \
        R *d = d_;                                                                             \
        const R *a = a_, *b = b_, *c = c_, k0 = (R)k_[0], k1 = (R)k_[1];                       \
        (void)b, (void)c, (void)k0, (void)k1;                                                  \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)
#define E1(name, expression) \
    HEAD(name)               \
    {                        \
        const R x = a[i];    \
        d[i] = expression;   \
    }                        \
    }
#define E2(name, expression)        \
    HEAD(name)                      \
    {                               \
        const R x = a[i], y = b[i]; \
        d[i] = expression;          \
    }                               \
    }
#define E3(name, expression)                  \
    HEAD(name)                                \
    {                                         \
        const R x = a[i], y = b[i], z = c[i]; \
        d[i] = expression;                    \
    }                                         \
    }
THE_ELEMENTS(E1, E2, E3)
#undef E1
#undef E2
#undef E3
#undef HEAD

/* T: type in memory; from and to: an element's conversion. */
#define LOAD_STORE(NAME, T, FROM, TO)                                                 \
    static void TEXT(load_##NAME)(void *d_, const void *s_, int64_t stride, size_t n) \
    {                                                                                 \
        R *restrict d = d_;                                                           \
        const T *restrict s = s_;                                                     \
        if (stride == 1)                                                              \
            for (size_t i = 0; i < n; i++) {                                          \
                const T x = s[i];                                                     \
                d[i] = FROM;                                                          \
            }                                                                         \
        else if (stride == 0) {                                                       \
            const T x = s[0];                                                         \
            const R v = FROM;                                                         \
            for (size_t i = 0; i < n; i++)                                            \
                d[i] = v;                                                             \
        } else                                                                        \
            for (size_t i = 0; i < n; i++) {                                          \
                const T x = s[(int64_t)i * stride];                                   \
                d[i] = FROM;                                                          \
            }                                                                         \
    }                                                                                 \
    static void TEXT(store_##NAME)(void *d_, const void *s_, size_t n)                \
    {                                                                                 \
        T *restrict d = d_;                                                           \
        const R *restrict s = s_;                                                     \
        for (size_t i = 0; i < n; i++) {                                              \
            const R x = s[i];                                                         \
            d[i] = TO;                                                                \
        }                                                                             \
    }
