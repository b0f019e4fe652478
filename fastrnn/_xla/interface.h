/* interface.h - what a handler of XLA's foreign function interface is given.
 *
 * Our own declarations of the C interface that jaxlib documents in xla/ffi/api/c_api.h, because there is no jaxlib where fastrnn is
 * built. Its layout up to the last field named here is the same in all versions from 0.1 (jaxlib 0.5) to 0.3 (jaxlib 0.10); a change
 * of it would raise the major version, and XLA refuses handlers of another one. Structs begin with their size in bytes.
 */
#ifndef FR_XLA_INTERFACE_H
#define FR_XLA_INTERFACE_H
#include <stddef.h>
#include <stdint.h>

enum { XLA_MAJOR = 0, XLA_OLDEST_MINOR = 1, XLA_NEWEST_MINOR = 3 };
enum { XLA_PRED = 1, XLA_S32 = 4, XLA_S64 = 5, XLA_F32 = 11, XLA_F64 = 12 }; /* types of numbers */
enum { XLA_INVALID_ARGUMENT = 3, XLA_RESOURCE_EXHAUSTED = 8 };                /* kinds of error */
enum { XLA_ARRAY = 1 };    /* kinds of attribute */
enum { XLA_EXECUTE = 3 };  /* stages of a call */
enum { XLA_METADATA = 1 }; /* kinds of extension */

typedef struct xla_extension {
    size_t struct_size;
    int type;
    struct xla_extension *next;
} xla_extension;

typedef struct {
    size_t struct_size;
    xla_extension *extensions;
    int major, minor;
} xla_version;

/* XLA asks with this extension which version the handler was made for. */
typedef struct {
    size_t struct_size;
    xla_version version;
    uint32_t traits;
} xla_metadata;

typedef struct {
    xla_extension extension;
    xla_metadata *metadata;
} xla_metadata_extension;

typedef struct xla_error xla_error;

typedef struct {
    size_t struct_size;
    xla_extension *extensions;
    const char *message; /* copied */
    int code;
} xla_error_arguments;

typedef struct {
    size_t struct_size;
    xla_extension *extensions;
    xla_version version;
    const void *internal;
    xla_error *(*create_error)(xla_error_arguments *);
} xla_api;

/* An array in C order. */
typedef struct {
    size_t struct_size;
    xla_extension *extensions;
    int type;
    void *data;
    int64_t rank;
    int64_t *dims;
} xla_buffer;

/* The arguments or the results of a call: buffers. */
typedef struct {
    size_t struct_size;
    xla_extension *extensions;
    int64_t n;
    int *kinds;
    void **buffers;
} xla_buffers;

/* The value of an attribute that is an array. */
typedef struct {
    int type;
    size_t n;
    void *data;
} xla_array;

typedef struct {
    const char *start;
    size_t length;
} xla_name;

typedef struct {
    size_t struct_size;
    xla_extension *extensions;
    int64_t n;
    int *kinds;
    xla_name **names;
    void **values;
} xla_attributes;

typedef struct {
    size_t struct_size;
    xla_extension *extensions;
    const xla_api *api;
    void *context;
    int stage;
    xla_buffers arguments, results;
    xla_attributes attributes;
} xla_frame;

#endif
