#include "frame.h"

#include <stdio.h>
#include <string.h>

static const char OPTIONS[] = "options";

int fr_frame_metadata(const xla_frame *frame)
{
    for (xla_extension *e = frame->extensions; e; e = e->next) {
        if (e->type != XLA_METADATA)
            continue;
        xla_metadata *metadata = ((xla_metadata_extension *)e)->metadata;
        int minor = frame->api ? frame->api->version.minor : XLA_OLDEST_MINOR;
        minor = minor < XLA_OLDEST_MINOR ? XLA_OLDEST_MINOR : minor > XLA_NEWEST_MINOR ? XLA_NEWEST_MINOR : minor;
        metadata->version = (xla_version){sizeof(xla_version), NULL, XLA_MAJOR, minor};
        metadata->traits = 0;
        return 1;
    }
    return 0;
}

static const fr_options *find_options(const xla_attributes *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        const xla_name *name = a->names[i];
        const xla_array *value = a->values[i];
        if (a->kinds[i] == XLA_ARRAY && name->length == sizeof OPTIONS - 1 && memcmp(name->start, OPTIONS, name->length) == 0
            && value->type == XLA_S64 && value->n * sizeof(int64_t) == sizeof(fr_options))
            return value->data;
    }
    return NULL;
}

fr_frame fr_frame_open(const xla_frame *frame, int arguments, int results)
{
    fr_frame opened = {.frame = frame, .options = find_options(&frame->attributes)};
    if (frame->stage != XLA_EXECUTE || frame->arguments.n != arguments || frame->results.n != results || !opened.options) {
        opened.error = XLA_INVALID_ARGUMENT;
        snprintf(opened.message, sizeof opened.message, "expected a call of fastrnn.jax, with %d arguments, %d results and options",
            arguments, results);
    }
    return opened;
}

xla_error *fr_frame_close(const fr_frame *frame)
{
    if (!frame->error)
        return NULL;
    xla_error_arguments arguments = {
        .struct_size = sizeof arguments, .message = frame->message, .code = frame->error};
    return frame->frame->api->create_error(&arguments);
}

static void *data(const xla_buffer *buffer)
{
    for (int64_t axis = 0; axis < buffer->rank; axis++)
        if (buffer->dims[axis] == 0)
            return NULL;
    return buffer->data;
}

void *fr_argument(const fr_frame *frame, int place)
{
    return data(fr_buffer(&frame->frame->arguments, place));
}

void *fr_result(const fr_frame *frame, int place)
{
    return data(fr_buffer(&frame->frame->results, place));
}
